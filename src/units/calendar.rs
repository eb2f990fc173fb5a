// SPDX-License-Identifier: LGPL-2.1-or-later
//! Days and times of day, as files and people are told them: always UTC.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A second, counted from 1970 on.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Utc(pub u64);

/// Names of months, as people abbreviate them.
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

impl Utc {
    /// By the machine's clock, which may be wrong; 1970 where it says that it is earlier.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(since.map_or(0, |since| since.as_secs()))
    }

    /// As part of a file's name: `20260102T030405Z`.
    pub fn compact(self) -> String {
        let (year, month, day) = self.date();
        let (hour, minute, second) = self.time();
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
    }

    /// The day: "Mar 3, 2026".
    pub fn day(self) -> String {
        let (year, month, day) = self.date();
        let name = usize::try_from(month - 1).ok().and_then(|m| MONTHS.get(m));
        format!("{} {day}, {year}", name.unwrap_or(&"?"))
    }

    fn time(self) -> (u64, u64, u64) {
        let second = self.0 % 86_400;
        (second / 3600, second / 60 % 60, second % 60)
    }

    /// Year, month and day of the Gregorian calendar.
    fn date(self) -> (u64, u64, u64) {
        const DAYS_IN_400_YEARS: u64 = 146_097;
        // Counted from 2000-03-01 the leap day is a year's last; 1970 is then in
        // the cycle of 400 years before.
        const TO_MARCH_1600: u64 = 135_080;
        let days = self.0 / 86_400 + TO_MARCH_1600;
        let (cycle, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
        let century = (day / 36_524).min(3);
        let day = day - century * 36_524;
        let four = day / 1461;
        let day = day % 1461;
        let year = (day / 365).min(3);
        let mut day = day - year * 365;
        let mut month = 3;
        for length in [31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31] {
            if day < length {
                break;
            }
            day -= length;
            month += 1;
        }
        let year = 1600 + cycle * 400 + century * 100 + four * 4 + year;
        if month > 12 {
            (year + 1, month - 12, day + 1)
        } else {
            (year, month, day + 1)
        }
    }
}

/// As RFC 3339 has it: `2026-01-02T03:04:05Z`.
impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        let (hour, minute, second) = self.time();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_date_u() {
        // date -u -d @N +%Y%m%dT%H%M%SZ
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_709_164_799, "20240228T235959Z"),
            (1_735_689_599, "20241231T235959Z"),
            (1_735_689_600, "20250101T000000Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(Utc(seconds).compact(), text);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut today = (1970, 1, 1);
        for days in 0..366 * 500 {
            assert_eq!(Utc(days * 86_400).date(), today, "{days} days");
            let (year, month, day) = today;
            let leap = year % 4 == 0 && year % 100 != 0 || year % 400 == 0;
            let last = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            today = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == last => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }

    #[test]
    fn a_second_is_written_for_files_for_programs_and_for_people() {
        let second = Utc(86_400 + 3_600 * 13 + 60 * 7 + 9);
        assert_eq!(second.compact(), "19700102T130709Z");
        assert_eq!(second.to_string(), "1970-01-02T13:07:09Z");
        assert_eq!(second.day(), "Jan 2, 1970");
        assert_eq!(Utc(86_400 * 364).day(), "Dec 31, 1970");
    }
}
