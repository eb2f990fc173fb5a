// SPDX-License-Identifier: LGPL-2.1-or-later
//! Waiting for what can only be looked at.

use std::thread;
use std::time::{Duration, Instant};

use crate::host::HostError;

/// How long to look for something, and how long to wait between two looks.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub(super) most: Duration,
    pub(super) between: Duration,
}

/// Looks until there is something, at least once, and for the last time when patience
/// has ended. None when there was nothing then, either; a look that fails is the last.
pub(super) fn look_until<T>(
    patience: Patience,
    mut look: impl FnMut() -> Result<Option<T>, HostError>,
) -> Result<Option<T>, HostError> {
    let deadline = Instant::now() + patience.most;
    loop {
        let is_last = Instant::now() >= deadline;
        let found = look()?;
        if found.is_some() || is_last {
            return Ok(found);
        }
        thread::sleep(patience.between);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of looks that find these, one after the other, and how many were made.
    fn looked(most: Duration, found: &[Result<Option<u32>, ()>]) -> (Option<Option<u32>>, usize) {
        let patience = Patience {
            most,
            between: Duration::from_micros(1),
        };
        let mut looks = 0;
        let answer = look_until(patience, || {
            looks += 1;
            found[looks - 1].map_err(|()| HostError::new("look", "refused"))
        });
        (answer.ok(), looks)
    }

    #[test]
    fn it_is_looked_until_there_is_something_or_a_look_fails_or_time_is_up() {
        let long = Duration::from_secs(60);
        assert_eq!(looked(long, &[Ok(None), Ok(Some(7))]), (Some(Some(7)), 2));
        assert_eq!(looked(long, &[Ok(None), Err(())]), (None, 2));
        assert_eq!(looked(Duration::ZERO, &[Ok(None)]), (Some(None), 1));
        assert_eq!(looked(Duration::ZERO, &[Ok(Some(7))]), (Some(Some(7)), 1));
    }
}
