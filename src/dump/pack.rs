// SPDX-License-Identifier: LGPL-2.1-or-later
//! One page, made ready to be written.

use super::buffer::State;
use super::codec::Compressor;
use crate::addr::{Page, PAGE_SIZE};

/// Compresses a page to the start of `out`, or copies it there when it does not
/// get smaller.
pub(super) fn store_compressed(compressor: &mut Compressor, out: &mut [u8], page: &Page) -> State {
    let (size, flags) = match compressor.compress(page, out) {
        Some(size) => (size, compressor.flag),
        None => {
            out[..PAGE_SIZE].copy_from_slice(page);
            (PAGE_SIZE, 0)
        }
    };
    State::Stored {
        at: 0,
        size: size as u32,
        flags,
        sum: 0,
    }
}

/// Copies a page straight to where it is written from.
pub(super) fn store_raw<E>(out: &mut [u8], copy: impl FnOnce(&mut Page) -> Result<(), E>) -> State {
    let page: &mut Page = (&mut out[..PAGE_SIZE])
        .try_into()
        .expect("a slice of one page");
    match copy(page) {
        Err(_) => State::Unreadable,
        Ok(()) if is_zero(page) => State::Zero,
        Ok(()) => State::Stored {
            at: 0,
            size: PAGE_SIZE as u32,
            flags: 0,
            sum: 0,
        },
    }
}

/// Whether all bytes are zero.
pub(super) fn is_zero(page: &Page) -> bool {
    page.chunks_exact(256)
        .all(|part| part.iter().fold(0, |any, byte| any | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::Codec;

    #[test]
    fn a_single_byte_makes_a_page_not_zero() {
        assert!(is_zero(&[0; PAGE_SIZE]));
        for at in [0, 255, 256, 2000, PAGE_SIZE - 1] {
            let mut page = [0; PAGE_SIZE];
            page[at] = 1;
            assert!(!is_zero(&page), "byte {at}");
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_stored_as_it_is() {
        let mut out = vec![7; 2 * PAGE_SIZE];
        let page = std::array::from_fn(|at| at as u8);
        let mut none = Codec::NONE.compressor().unwrap();
        let stored = State::Stored {
            at: 0,
            size: PAGE_SIZE as u32,
            flags: 0,
            sum: 0,
        };
        assert_eq!(store_compressed(&mut none, &mut out, &page), stored);
        assert!(out[..PAGE_SIZE] == page && out[PAGE_SIZE..] == [7; PAGE_SIZE]);
    }

    #[test]
    fn a_page_that_is_copied_is_there_or_zero_or_unreadable() {
        let mut out = vec![7; 2 * PAGE_SIZE];
        let mut store =
            |byte: Result<u8, ()>| store_raw(&mut out, |page| byte.map(|byte| page.fill(byte)));
        assert_eq!(store(Err(())), State::Unreadable);
        assert_eq!(store(Ok(0)), State::Zero);
        let State::Stored {
            size: 4096,
            flags: 0,
            ..
        } = store(Ok(5))
        else {
            panic!("it is neither");
        };
        assert!(out[..PAGE_SIZE] == [5; PAGE_SIZE] && out[PAGE_SIZE..] == [7; PAGE_SIZE]);
    }
}
