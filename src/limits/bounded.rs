// SPDX-License-Identifier: LGPL-2.1-or-later
//! Memory for as many things as somebody states: a caller, a file, a configuration,
//! the hypervisor. Every such number has a bound; what is within it and still cannot
//! be had is an error, and not the end of the process.

/// Frames that a guest has at most: 16 TiB. Xen has no more for all of them together
/// (`host::xen::relied_on::most_frames`).
pub(crate) const MOST_FRAMES: u64 = 1 << 32;
/// Virtual processors that a guest has at most, with room for a Xen that allows more
/// than today's (`host::xen::relied_on::most_vcpus`).
pub(crate) const MOST_VCPUS: u32 = 4096;

/// Why there is no memory for so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// More than anybody can have.
    #[error("{stated} {what} cannot be: {most} are allowed")]
    Beyond {
        /// Things of which kind.
        what: &'static str,
        /// How many there should be.
        stated: u64,
        /// How many there may be.
        most: u64,
    },
    /// More than this process can have now.
    #[error("no memory for {stated} {what}")]
    NoMemory {
        /// Things of which kind.
        what: &'static str,
        /// How many there should be.
        stated: u64,
    },
}

/// The number itself, when it is within its bound.
pub(crate) fn within(what: &'static str, stated: u64, most: u64) -> Result<u64, TooMany> {
    match stated > most {
        true => Err(TooMany::Beyond { what, stated, most }),
        false => Ok(stated),
    }
}

/// Memory for so many things, for `what` that it is counted in.
pub(crate) fn zeroes<T: Clone + Default>(
    what: &'static str,
    stated: u64,
    count: u64,
) -> Result<Vec<T>, TooMany> {
    let none = TooMany::NoMemory { what, stated };
    let count = usize::try_from(count).map_err(|_| none)?;
    let mut zeroes = Vec::new();
    zeroes.try_reserve_exact(count).map_err(|_| none)?;
    zeroes.resize(count, T::default());
    Ok(zeroes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_named_with_what_is_allowed() {
        assert_eq!(within("frames", 7, 7), Ok(7));
        let error = within("frames", 8, 7).unwrap_err();
        assert_eq!(error.to_string(), "8 frames cannot be: 7 are allowed");
        let error = zeroes::<u64>("frames", 1 << 62, 1 << 56).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no memory for 4611686018427387904 frames"
        );
        assert_eq!(zeroes::<u64>("frames", 3, 3), Ok(vec![0; 3]));
    }
}
