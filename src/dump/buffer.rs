//! The engine's buffers: aligned for direct I/O, reused, limited in number.

use super::error::Error;
use crate::addr::{Pfn, PAGE_SIZE};
use crc32fast::Hasher;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Pages that one filled buffer may tell of, however small they became.
pub(super) const MAX_SLOTS: usize = 4096;
/// Bytes of a buffer when there is room for as many as are useful.
const USUAL_SIZE: usize = 2 << 20;
/// Fewer make the writes too small.
const LEAST_SIZE: usize = 1 << 16;

/// Page-aligned bytes, a whole number of pages: direct I/O wants memory aligned
/// to the device's logical blocks, which are at most a page.
pub(super) struct AlignedBytes {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBytes {
    /// Zeroes, which take no memory until they are written to.
    pub(super) fn new(length: usize) -> Self {
        let length = length.next_multiple_of(PAGE_SIZE);
        let memory = vec![0; length + PAGE_SIZE - 1];
        Self {
            start: memory.as_ptr().align_offset(PAGE_SIZE),
            memory,
            length,
        }
    }
}

impl std::ops::Deref for AlignedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.start..][..self.length]
    }
}

impl std::ops::DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.length]
    }
}

/// What became of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its bytes are in the buffer.
    Stored { at: u32, size: u32, flags: u32 },
    /// All its bytes are zero.
    Zero,
    /// It could not be read.
    Unreadable,
}

/// A buffer's memory.
pub(super) struct Buffer {
    pub(super) bytes: AlignedBytes,
    /// Bytes in use.
    pub(super) used: usize,
    /// Checksum of these.
    pub(super) sum: Hasher,
    /// Wanted pages, consecutive in rank.
    pub(super) slots: Vec<State>,
    /// The first slot's page.
    pub(super) first: Pfn,
    /// Its rank among the wanted pages.
    pub(super) first_rank: u64,
}

/// How large and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Bytes in one buffer.
    pub(super) size: usize,
    /// How many there may be at once.
    pub(super) count: usize,
}

impl Sizes {
    /// Divides `total` bytes: one buffer's worth is for the writer to gather
    /// pages in, and every thread can fill one while another is written.
    ///
    /// # Errors
    /// When `total` is too small for that.
    pub(super) fn new(total: usize, threads: usize) -> Result<Self, Error> {
        let least_count = 2 * threads + 1;
        let slots = MAX_SLOTS * std::mem::size_of::<State>();
        let share = total / (least_count + 1);
        let size = share.saturating_sub(slots).min(USUAL_SIZE) / PAGE_SIZE * PAGE_SIZE;
        if size < LEAST_SIZE {
            return Err(Error::Buffers {
                given: total,
                least: (LEAST_SIZE + slots) * (least_count + 1),
                threads,
            });
        }
        let count = total / (size + slots) - 1;
        Ok(Self { size, count })
    }
}

struct Free {
    buffers: Vec<Buffer>,
    /// How many may still be made.
    unmade: usize,
}

/// Lends buffers; whoever wants one when all are out waits.
pub(super) struct Pool {
    size: usize,
    free: Mutex<Free>,
    returned: Condvar,
}

impl Pool {
    pub(super) fn new(sizes: Sizes) -> Arc<Self> {
        Arc::new(Self {
            size: sizes.size,
            free: Mutex::new(Free {
                buffers: Vec::new(),
                unmade: sizes.count,
            }),
            returned: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        // Nothing panics while holding the lock in a half-changed state.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty buffer. Waits for one to come back when all are lent; each
    /// borrower must hold at most one while it waits.
    pub(super) fn lend(self: &Arc<Self>) -> Lease {
        let mut free = self.lock();
        let buffer = loop {
            if let Some(mut buffer) = free.buffers.pop() {
                buffer.used = 0;
                buffer.sum.reset();
                buffer.slots.clear();
                break buffer;
            }
            if free.unmade > 0 {
                free.unmade -= 1;
                break Buffer {
                    bytes: AlignedBytes::new(self.size),
                    used: 0,
                    sum: Hasher::new(),
                    slots: Vec::with_capacity(MAX_SLOTS),
                    first: Pfn(0),
                    first_rank: 0,
                };
            }
            free = self
                .returned
                .wait(free)
                .unwrap_or_else(PoisonError::into_inner);
        };
        Lease {
            pool: Arc::clone(self),
            buffer: Some(buffer),
        }
    }
}

/// A buffer on loan; dropping it gives it back, also when a thread panics.
pub(super) struct Lease {
    pool: Arc<Pool>,
    buffer: Option<Buffer>,
}

impl std::ops::Deref for Lease {
    type Target = Buffer;
    fn deref(&self) -> &Buffer {
        self.buffer.as_ref().expect("only Drop takes the buffer")
    }
}

impl std::ops::DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Buffer {
        self.buffer.as_mut().expect("only Drop takes the buffer")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.lock().buffers.extend(self.buffer.take());
        self.pool.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_buffers_together_stay_within_the_total() {
        let slots = MAX_SLOTS * std::mem::size_of::<State>();
        for (total, threads) in [(64 << 20, 1), (64 << 20, 16), (4 << 20, 2), (1 << 30, 128)] {
            let sizes = Sizes::new(total, threads).unwrap();
            assert!(
                (sizes.count + 1) * (sizes.size + slots) <= total,
                "{sizes:?}"
            );
            assert!(sizes.count > threads, "{sizes:?}");
            assert_eq!(sizes.size % PAGE_SIZE, 0);
        }
        assert!(matches!(Sizes::new(1 << 20, 4), Err(Error::Buffers { .. })));
    }

    #[test]
    fn memory_is_aligned_for_direct_io() {
        let pool = Pool::new(Sizes {
            size: 3 * PAGE_SIZE,
            count: 1,
        });
        let lease = pool.lend();
        assert_eq!(lease.bytes.as_ptr() as usize % PAGE_SIZE, 0);
        assert_eq!(lease.bytes.len(), 3 * PAGE_SIZE);
    }

    #[test]
    fn a_borrower_waits_until_a_buffer_is_returned() {
        let pool = Pool::new(Sizes {
            size: PAGE_SIZE,
            count: 1,
        });
        let mut first = pool.lend();
        first.used = 7;
        let waiting = std::thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.lend().used
        });
        drop(first);
        assert_eq!(waiting.join().unwrap(), 0);
    }
}
