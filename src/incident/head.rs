// SPDX-License-Identifier: LGPL-2.1-or-later
//! The beginning of a record: what a list of crashes shows, and no more.
//!
//! There may be thousands of records, each with a log and a call trace in it. Of each
//! only the first bytes are read, and of these what comes before the title of what the
//! guest died of.

use std::fs::OpenOptions;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::files::{Files, RECORD};
use super::value::{DumpPart, Incident, RecoveryPart};
use crate::error::joined;
use crate::job::Outcome;
use crate::os::fd::{entries, open, Making};
use crate::os::sync::thread;
use crate::os::thread::{start_in, Signals};
use crate::units::Utc;

/// Bytes that are read of a record: what comes first in it hardly ever has a quarter.
const HEAD_BYTES: u64 = 8 << 10;

/// So many records are read by two threads.
const ENOUGH_FOR_TWO: usize = 500;

/// What a list of crashes shows of one.
#[derive(Clone, PartialEq, Debug)]
pub struct Head {
    /// What the names of its files begin with.
    pub id: String,
    /// The guest's name.
    pub guest: String,
    /// What is the same over all crashes of the guest.
    pub uuid: String,
    /// When its handling began.
    pub crashed_s: Utc,
    /// Whether it is handled to its end.
    pub is_over: bool,
    /// How it ended for the guest.
    pub outcome: Outcome,
    /// The recovery domain.
    pub recovery: RecoveryPart,
    /// The dump.
    pub dump: DumpPart,
    /// The signature and the title of what the guest died of, if that is known.
    pub died: Option<(String, String)>,
}

/// The crashes whose records are in `directory`, in the order in which they happened.
/// What is no record is left out.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(directory: &Path) -> std::io::Result<Vec<Head>> {
    // Looked at once for all files, not for each.
    let _making = Making::begin()?;
    let paths = entries(directory)?;
    let is_record = |path: &PathBuf| path.extension().is_some_and(|end| end == RECORD);
    let records: Vec<PathBuf> = paths.into_iter().filter(is_record).collect();
    let mut heads = heads(&records);
    heads.sort_by(|one, other| (one.crashed_s, &one.id).cmp(&(other.crashed_s, &other.id)));
    Ok(heads)
}

/// Reads many at a time: most of the time goes to opening files.
fn heads(records: &[PathBuf]) -> Vec<Head> {
    let some = |records: &[PathBuf]| -> Vec<Head> {
        let heads = records.iter().filter_map(|path| head(path));
        heads.collect()
    };
    let half = match records.len() {
        0..ENOUGH_FOR_TWO => 0,
        count => count / 2,
    };
    let (first, second) = records.split_at(half);
    thread::scope(|scope| {
        let beside = match first.is_empty() {
            true => None,
            false => start_in(scope, "vicover-list", Signals::ToOthers, || some(first)).ok(),
        };
        let mut heads = some(second);
        heads.extend(match beside {
            Some(beside) => joined(beside).unwrap_or_else(|_| some(first)),
            None => some(first),
        });
        heads
    })
}

fn head(path: &Path) -> Option<Head> {
    let file = open(path, OpenOptions::new().read(true)).ok()?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES as usize);
    file.take(HEAD_BYTES).read_to_end(&mut bytes).ok()?;
    let mut parts = Parts::default();
    // It ends with an error when enough is known, and where the bytes end.
    let _ = serde_json::Deserializer::from_slice(&bytes).deserialize_map(&mut parts);
    parts.whole().or_else(|| {
        let incident = Files::of_record(path)?.read().ok()?;
        Some(Head::of(incident))
    })
}

impl Head {
    fn of(incident: Incident) -> Self {
        Self {
            id: incident.id,
            guest: incident.guest,
            uuid: incident.uuid,
            crashed_s: incident.crashed_s,
            is_over: incident.is_over,
            outcome: incident.outcome,
            recovery: incident.recovery,
            dump: incident.dump,
            died: incident.died.map(|died| (died.signature, died.oops.title)),
        }
    }
}

/// What has been read of a head.
#[derive(Default)]
struct Parts {
    id: Option<String>,
    guest: Option<String>,
    uuid: Option<String>,
    crashed_s: Option<Utc>,
    is_over: Option<bool>,
    outcome: Option<Outcome>,
    recovery: Option<RecoveryPart>,
    dump: Option<DumpPart>,
    /// Whether it is known what the guest died of, and if so, that.
    died: Option<Option<(String, String)>>,
}

impl Parts {
    fn whole(self) -> Option<Head> {
        Some(Head {
            id: self.id?,
            guest: self.guest?,
            uuid: self.uuid?,
            crashed_s: self.crashed_s?,
            is_over: self.is_over?,
            outcome: self.outcome?,
            recovery: self.recovery?,
            dump: self.dump?,
            died: self.died?,
        })
    }
}

impl<'de> Visitor<'de> for &mut Parts {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the record of a crash")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(member) = map.next_key::<String>()? {
            match member.as_str() {
                "id" => self.id = Some(map.next_value()?),
                "guest" => self.guest = Some(map.next_value()?),
                "uuid" => self.uuid = Some(map.next_value()?),
                "crashed_s" => self.crashed_s = Some(map.next_value()?),
                "is_over" => self.is_over = Some(map.next_value()?),
                "outcome" => self.outcome = Some(map.next_value()?),
                "recovery" => self.recovery = Some(map.next_value()?),
                "dump" => self.dump = Some(map.next_value()?),
                "died" => {
                    map.next_value_seed(DiedSeed(&mut self.died))?;
                    return Ok(());
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Reads of `died` what comes first.
struct DiedSeed<'a>(&'a mut Option<Option<(String, String)>>);

impl<'de> DeserializeSeed<'de> for DiedSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for DiedSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("what a guest died of")
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        *self.0 = Some(None);
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut signature, mut title) = (None::<String>, None::<String>);
        while let Some(member) = map.next_key::<String>()? {
            match member.as_str() {
                "signature" => signature = Some(map.next_value()?),
                "title" => title = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            if signature.is_some() && title.is_some() {
                *self.0 = Some(signature.zip(title));
                return Err(A::Error::custom("enough is known"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::screen::tests::ended_well;

    fn written(directory: &Path, incident: &Incident) {
        let files = Files::claim(directory, &incident.id).unwrap();
        let text = serde_json::to_string_pretty(incident).unwrap();
        files.replace(RECORD, &text, false).unwrap();
    }

    #[test]
    fn crashes_are_listed_in_their_order_and_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let mut known = ended_well();
        known.id = "web1-b".into();
        let mut unknown = Incident::new("web2-a", "web2", "uuid", Utc(5));
        unknown.outcome = Outcome::Undecided;
        // More than is read at first.
        let mut long = known.clone();
        (long.id, long.crashed_s) = ("web1-c".into(), Utc(u64::MAX));
        long.dump.why = Some("x".repeat(2 * HEAD_BYTES as usize));
        for incident in [&long, &known, &unknown] {
            written(directory.path(), incident);
        }
        std::fs::write(directory.path().join("empty.json"), "").unwrap();
        std::fs::write(directory.path().join("other.json"), "[1, 2]").unwrap();
        std::fs::write(directory.path().join("notes.txt"), "{}").unwrap();
        let expected = [unknown, known, long].map(Head::of);
        assert_eq!(list(directory.path()).unwrap(), expected);
        assert!(expected[1].died.is_some() && expected[0].died.is_none());
        list(&directory.path().join("missing")).unwrap_err();
    }

    #[test]
    fn many_crashes_are_all_there() {
        let directory = tempfile::tempdir().unwrap();
        let many = ENOUGH_FOR_TWO as u64 + 3;
        for number in 0..many {
            let id = format!("web1-{number}");
            written(
                directory.path(),
                &Incident::new(&id, "web1", "uuid", Utc(number)),
            );
        }
        let listed = list(directory.path()).unwrap();
        let seconds: Vec<u64> = listed.iter().map(|head| head.crashed_s.0).collect();
        assert_eq!(seconds, Vec::from_iter(0..many));
    }

    #[test]
    fn what_a_list_shows_comes_first_in_a_record() {
        let text = serde_json::to_string_pretty(&ended_well()).unwrap();
        let place = |member: &str| text.find(&format!("\"{member}\"")).unwrap();
        let title = place("title");
        for member in [
            "id",
            "guest",
            "uuid",
            "crashed_s",
            "is_over",
            "outcome",
            "dump",
        ] {
            assert!(place(member) < title, "{member}");
        }
        for member in ["trace", "modules", "plan", "log"] {
            assert!(place(member) > title, "{member}");
        }
    }
}
