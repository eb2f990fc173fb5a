// SPDX-License-Identifier: LGPL-2.1-or-later
//! Disk I/O policies: how much of the disk the dump takes once recovery runs.

use std::fmt;

use crate::units::size;

/// What [`Policy::parse`] takes, for people.
pub const ALLOWED: &str =
    "unlimited, fixed:RATE (bytes a second, 1K to 1T), share:PERCENT (1 to 100), \
     recovery-first, adaptive";

/// How the disk is divided between dump and recovery. Under every policy the
/// dump goes at full speed while recovery is stopped for lack of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// The dump takes all that it can get.
    Unlimited,
    /// So many bytes a second and no more.
    Fixed {
        /// From 1 KiB to 1 TiB a second.
        bytes_per_s: u64,
    },
    /// A share of what the disk gives when the dump writes.
    Share {
        /// From 1 to 100.
        percent: u8,
    },
    /// Next to nothing while recovery uses its disks, all while it does not.
    RecoveryFirst,
    /// As much as hardly delays recovery, and more when recovery will need the
    /// memory.
    Adaptive,
}

impl Policy {
    /// Reads a policy as an operator writes it; `None` when it is not one of
    /// [`ALLOWED`].
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "unlimited" => return Some(Self::Unlimited),
            "recovery-first" => return Some(Self::RecoveryFirst),
            "adaptive" => return Some(Self::Adaptive),
            _ => {}
        }
        match text.split_once(':')? {
            ("fixed", rate) => {
                let bytes_per_s = size(rate)?;
                (1 << 10..=1 << 40)
                    .contains(&bytes_per_s)
                    .then_some(Self::Fixed { bytes_per_s })
            }
            ("share", percent) => {
                let digits = percent.bytes().all(|b| b.is_ascii_digit());
                let percent: u8 = digits.then(|| percent.parse().ok())??;
                (1..=100)
                    .contains(&percent)
                    .then_some(Self::Share { percent })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::Fixed { bytes_per_s } => write!(f, "fixed:{bytes_per_s}"),
            Self::Share { percent } => write!(f, "share:{percent}"),
            Self::RecoveryFirst => f.write_str("recovery-first"),
            Self::Adaptive => f.write_str("adaptive"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_policy_says_of_itself_is_read_as_the_same() {
        for policy in [
            Policy::Unlimited,
            Policy::Fixed {
                bytes_per_s: 1 << 10,
            },
            Policy::Fixed {
                bytes_per_s: 1 << 40,
            },
            Policy::Share { percent: 1 },
            Policy::Share { percent: 100 },
            Policy::RecoveryFirst,
            Policy::Adaptive,
        ] {
            assert_eq!(Policy::parse(&policy.to_string()), Some(policy));
        }
        let rate = Policy::parse("fixed:80M");
        assert_eq!(
            rate,
            Some(Policy::Fixed {
                bytes_per_s: 80 << 20
            })
        );
    }

    #[test]
    fn anything_else_is_none() {
        for bad in [
            "",
            "fixed",
            "fixed:",
            "fixed:1",
            "fixed:2T",
            "fixed:-1M",
            "80M",
            "share",
            "share:",
            "share:0",
            "share:101",
            "share:+5",
            "share:5%",
            "adaptive:",
            "Adaptive",
            "recovery",
        ] {
            assert_eq!(Policy::parse(bad), None, "{bad:?}");
        }
    }
}
