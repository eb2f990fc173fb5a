// SPDX-License-Identifier: LGPL-2.1-or-later
//! The engine's buffers: reused, and limited in number.

use super::error::Error;
use crate::addr::{Pfn, PAGE_SIZE};
use crate::os::page_buffer::PageBuffer;
use crate::os::sync::{Condvar, Mutex, MutexGuard};
use crc32fast::Hasher;
use std::io;
use std::sync::{Arc, PoisonError};

/// Pages that one filled buffer may tell of, however small they became.
pub(super) const MAX_SLOTS: usize = 4096;
/// Bytes of a buffer when there is room for as many as are useful.
const USUAL_SIZE: usize = 2 << 20;
/// Buffers that a short dump gets: to keep a disk busy takes no more.
const USUAL_SOON: usize = 8;
/// Every so many loans there may be one more. A new buffer costs more than one that
/// was used, since the system has to clear its memory; many even out how fast
/// pages come.
const LOANS_A_BUFFER: usize = 16;
/// Fewer make the writes too small.
const LEAST_SIZE: usize = 1 << 16;

/// What became of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The page's bytes are in the buffer; `sum` is their checksum, where pages are
    /// checksummed.
    Stored {
        at: u32,
        size: u32,
        flags: u32,
        sum: u32,
    },
    /// All bytes of the page are zero.
    Zero,
    /// The page could not be read.
    Unreadable,
    /// There was no room for the page.
    NoRoom,
}

/// A buffer's memory.
pub(super) struct Buffer {
    pub(super) bytes: PageBuffer,
    /// Bytes in use.
    pub(super) used: usize,
    /// Checksum of the bytes in use.
    pub(super) sum: Hasher,
    /// Wanted pages, consecutive in rank.
    pub(super) slots: Vec<State>,
    /// The first slot's page.
    pub(super) first: Pfn,
    /// The first slot's rank among the wanted pages.
    pub(super) first_rank: u64,
}

impl Buffer {
    fn new(size: usize) -> io::Result<Self> {
        Ok(Self {
            bytes: PageBuffer::new(size)?,
            used: 0,
            sum: Hasher::new(),
            slots: Vec::with_capacity(MAX_SLOTS),
            first: Pfn(0),
            first_rank: 0,
        })
    }

    /// Leaves out the pages that do not fit into `room`, from the first of them on.
    /// What is left of the room is none then: nothing smaller comes in their place.
    pub(super) fn keep_within(&mut self, room: &mut u64) {
        if self.used as u64 <= *room {
            *room -= self.used as u64;
            return;
        }
        let mut kept = 0;
        for slot in &mut self.slots {
            let &mut State::Stored { at, size, .. } = slot else {
                continue;
            };
            let end = (at + size) as usize;
            if end as u64 > *room {
                *slot = State::NoRoom;
                continue;
            }
            kept = end;
        }
        self.used = kept;
        self.sum.reset();
        self.sum.update(&self.bytes[..kept]);
        *room = 0;
    }
}

/// How large and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Bytes in one buffer.
    pub(super) size: usize,
    /// How many there may be at once.
    pub(super) count: usize,
    /// How many there are at once in a short dump.
    pub(super) soon: usize,
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
        Ok(Self {
            size,
            count,
            soon: count.min(least_count.max(USUAL_SOON)),
        })
    }
}

struct Free {
    buffers: Vec<Buffer>,
    /// None is lent any more.
    closed: bool,
    /// How many there are, here or lent.
    made: usize,
    /// How often one was lent.
    loans: usize,
}

/// Lends buffers; whoever wants one when all are out waits.
pub(super) struct Pool {
    sizes: Sizes,
    free: Mutex<Free>,
    returned: Condvar,
}

impl Pool {
    /// Makes the first buffer: with one there is nothing that waits for ever.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn new(sizes: Sizes) -> Result<Arc<Self>, Error> {
        let first = Buffer::new(sizes.size).map_err(Error::Memory)?;
        Ok(Arc::new(Self {
            sizes,
            free: Mutex::new(Free {
                buffers: vec![first],
                closed: false,
                made: 1,
                loans: 0,
            }),
            returned: Condvar::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        // Nothing panics while holding the lock in a half-changed state.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty buffer. Waits for one to come back when all are lent; each
    /// borrower must hold at most one while it waits. `None` once the pool is closed.
    pub(super) fn lend(self: &Arc<Self>) -> Option<Lease> {
        let mut free = self.lock();
        free.loans += 1;
        let many = self.sizes.soon + free.loans / LOANS_A_BUFFER;
        let mut most = self.sizes.count.min(many);
        let buffer = loop {
            if free.closed {
                return None;
            }
            if let Some(mut buffer) = free.buffers.pop() {
                buffer.used = 0;
                buffer.sum.reset();
                buffer.slots.clear();
                break buffer;
            }
            if free.made < most {
                match Buffer::new(self.sizes.size) {
                    Ok(buffer) => {
                        free.made += 1;
                        break buffer;
                    }
                    // Memory is short: those that there are have to do.
                    Err(_) => {
                        most = free.made;
                        continue;
                    }
                }
            }
            free = self
                .returned
                .wait(free)
                .unwrap_or_else(PoisonError::into_inner);
        };
        Some(Lease {
            pool: Arc::clone(self),
            buffer: Some(buffer),
        })
    }

    /// Lends no more, and lets go whoever waits for a buffer.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.returned.notify_all();
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
    fn a_buffer_keeps_what_there_is_room_for() {
        let mut buffer = Buffer::new(PAGE_SIZE).unwrap();
        let stored = |at| State::Stored {
            at,
            size: 100,
            flags: 0,
            sum: 0,
        };
        buffer.bytes[..300].fill(7);
        buffer.used = 300;
        buffer.slots = vec![
            State::Zero,
            stored(0),
            stored(100),
            State::Zero,
            stored(200),
        ];
        let mut room = 500;
        buffer.keep_within(&mut room);
        assert_eq!((buffer.used, room), (300, 200));
        buffer.keep_within(&mut room);
        assert_eq!((buffer.used, room), (200, 0));
        assert_eq!(buffer.sum.clone().finalize(), crc32fast::hash(&[7; 200]));
        buffer.keep_within(&mut room);
        assert_eq!(buffer.used, 0);
        let none = State::NoRoom;
        assert_eq!(buffer.slots, [State::Zero, none, none, State::Zero, none]);
    }

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
    fn there_are_few_buffers_until_many_were_lent() {
        let pool = Pool::new(Sizes {
            size: PAGE_SIZE,
            count: 4,
            soon: 2,
        })
        .unwrap();
        let made = |pool: &Arc<Pool>| pool.lock().made;
        let lend = |pool: &Arc<Pool>| pool.lend().unwrap();
        let lease = lend(&pool);
        while pool.lock().loans < LOANS_A_BUFFER - 1 {
            drop(pool.lend());
        }
        assert_eq!(made(&pool), 2);
        let both = (lease, lend(&pool), lend(&pool));
        assert_eq!(made(&pool), 3);
        drop(both);
        while pool.lock().loans < 10 * LOANS_A_BUFFER {
            drop(pool.lend());
        }
        let all: Vec<_> = (0..4).map(|_| lend(&pool)).collect();
        assert_eq!((made(&pool), all.len()), (4, 4));
        assert!(pool.lock().buffers.is_empty());
    }

    #[test]
    fn a_borrower_waits_until_a_buffer_is_returned() {
        let pool = Pool::new(Sizes {
            size: PAGE_SIZE,
            count: 4,
            soon: 1,
        })
        .unwrap();
        let mut first = pool.lend().unwrap();
        first.used = 7;
        let wait = || {
            let pool = Arc::clone(&pool);
            std::thread::spawn(move || pool.lend().map(|lease| lease.used))
        };
        let waiting = wait();
        while pool.lock().loans < 2 {
            std::thread::yield_now();
        }
        assert_eq!(pool.lock().made, 1, "it waits");
        drop(first);
        assert_eq!(waiting.join().unwrap(), Some(0));
        let first = pool.lend();
        let waiting = wait();
        pool.close();
        assert_eq!(waiting.join().unwrap(), None);
        drop(first);
    }

    #[test]
    fn what_there_is_is_divided_among_as_many_as_are_of_use() {
        let slots = MAX_SLOTS * std::mem::size_of::<State>();
        let usual = USUAL_SIZE + slots;
        let sizes = |total, threads| {
            let sizes = Sizes::new(total, threads).unwrap();
            (sizes.size, sizes.count, sizes.soon)
        };
        // One is the writer's own; there are eight soon, or what all threads need.
        assert_eq!(sizes(30 * usual, 2), (USUAL_SIZE, 29, 8));
        assert_eq!(sizes(30 * usual - 1, 2), (USUAL_SIZE, 28, 8));
        assert_eq!(sizes(30 * usual, 10), (USUAL_SIZE, 29, 21));
        // Smaller ones, where all threads are to have two.
        let small = 100 * PAGE_SIZE;
        assert_eq!(sizes(12 * (small + slots), 5), (small, 11, 11));
        let smaller = (small - PAGE_SIZE, 11, 11);
        assert_eq!(sizes(12 * (small + slots) - 1, 5), smaller);
    }

    #[test]
    fn the_least_that_is_asked_for_is_enough() {
        for threads in [1, 4, 64] {
            let Err(Error::Buffers { least, .. }) = Sizes::new(0, threads) else {
                panic!("none are enough for {threads}");
            };
            let sizes = Sizes::new(least, threads).unwrap();
            assert_eq!((sizes.size, sizes.count), (LEAST_SIZE, 2 * threads + 1));
            assert!(Sizes::new(least - 1, threads).is_err());
        }
    }
}
