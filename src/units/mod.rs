// SPDX-License-Identifier: LGPL-2.1-or-later
//! Figures as people write them.

mod calendar;

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::addr::PAGE_SIZE;

pub use calendar::Utc;

/// An amount of bytes: "512 bytes", "1.5 KiB", "64 MiB".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(transparent)]
pub struct Size(pub u64);

impl Size {
    /// What so many pages take.
    pub fn of_pages(pages: u64) -> Self {
        Self(pages.saturating_mul(PAGE_SIZE as u64))
    }
}

impl fmt::Display for Size {
    /// Two digits at least where there are so many; never more than the unit needs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} bytes", self.0);
        }
        let mut amount = self.0 as f64 / 1024.0;
        let mut unit = 0;
        // What would be written as 1024 is 1 of the next unit.
        while amount >= 1023.5 && unit + 1 < UNITS.len() {
            amount /= 1024.0;
            unit += 1;
        }
        let tenths = (amount * 10.0).round();
        match tenths < 100.0 && tenths % 10.0 != 0.0 {
            true => write!(f, "{:.1} {}", amount, UNITS[unit]),
            false => write!(f, "{:.0} {}", amount, UNITS[unit]),
        }
    }
}

/// A length of time: "40 ms", "2.35 s", "3 min 5 s", "2 h 10 min".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Span(pub Duration);

impl Span {
    /// Whole milliseconds.
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Whole milliseconds.
impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.millis())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0 => write!(f, "{} ms", self.0.as_millis()),
            1..60 => write!(f, "{}.{:02} s", seconds, self.0.subsec_millis() / 10),
            60..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            _ => write!(f, "{} h {} min", seconds / 3600, seconds / 60 % 60),
        }
    }
}

/// A whole number within bounds, in decimal digits and nothing else.
pub(crate) fn number(text: &str, least: u64, most: u64) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let value: u64 = digits.then(|| text.parse().ok())??;
    (least..=most).contains(&value).then_some(value)
}

/// Bytes from `64M`, `1G`, `4096`: binary multiples, as xl.cfg uses them.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        b'T' | b't' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    number(digits, 0, u64::MAX >> shift).map(|value| value << shift)
}

/// A time from `90s`, `10m`, `1h`, `2d`: a second to a year.
pub(crate) fn time(text: &str) -> Option<Duration> {
    let unit_s = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        b'd' => 24 * 3600,
        _ => return None,
    };
    let most = 365 * 24 * 3600 / unit_s;
    let count = number(&text[..text.len() - 1], 1, most)?;
    Some(Duration::from_secs(count * unit_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_people_write_them() {
        let cases = [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (67_522_560, "64 MiB"),
            (70_069_796_864, "65 GiB"),
            ((1 << 20) - 1, "1 MiB"),
            (10 << 30, "10 GiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!(Size::of_pages(65_536).to_string(), "256 MiB");
    }

    #[test]
    fn times_are_written_as_people_write_them() {
        let cases = [
            (0, "0 ms"),
            (999, "999 ms"),
            (2_359, "2.35 s"),
            (59_999, "59.99 s"),
            (185_000, "3 min 5 s"),
            (7_800_000, "2 h 10 min"),
        ];
        for (ms, text) in cases {
            assert_eq!(Span(Duration::from_millis(ms)).to_string(), text);
        }
    }
}
