// SPDX-License-Identifier: LGPL-2.1-or-later
//! Earlier crashes of the same, by the records in a directory.

use std::path::Path;

use serde::Deserialize;

use super::files::{Files, RECORD};
use super::value::{Earlier, EarlierCrash};
use crate::os::fd::entries;
use crate::units::Utc;

/// Records that are looked at: more than this and the oldest crash that is told of may not
/// be the oldest.
const MOST_RECORDS: usize = 20_000;

/// What is read of a record here; the rest is skipped.
#[derive(Deserialize)]
struct Head {
    id: String,
    guest: String,
    crashed_s: Utc,
    died: Option<Signed>,
}

#[derive(Deserialize)]
struct Signed {
    signature: String,
}

/// Crashes with this signature beside that of the record `own`; none when there was none.
/// Records that cannot be read do not count: the crash is being handled.
pub(super) fn earlier(directory: &Path, signature: &str, own: &str) -> Option<Earlier> {
    let paths = entries(directory).ok()?;
    let is_record = |path: &&std::path::PathBuf| path.extension().is_some_and(|end| end == RECORD);
    let crashes = paths
        .iter()
        .filter(is_record)
        .take(MOST_RECORDS)
        .filter_map(|path| head(path))
        .filter(|head| head.id != own)
        .filter(|head| {
            head.died
                .as_ref()
                .is_some_and(|died| died.signature == signature)
        });
    let mut crashes: Vec<EarlierCrash> = crashes
        .map(|head| EarlierCrash {
            crashed_s: head.crashed_s,
            id: head.id,
            guest: head.guest,
        })
        .collect();
    crashes.sort();
    Some(Earlier {
        count: crashes.len(),
        first: crashes.first()?.clone(),
        last: crashes.last()?.clone(),
    })
}

fn head(path: &Path) -> Option<Head> {
    let text = Files::of_record(path)?.record_text().ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::{Died, Incident};

    fn crashed(directory: &Path, guest: &str, at: u64, signature: Option<&str>) {
        let id = format!("{guest}-{at}");
        let files = Files::claim(directory, &id).unwrap();
        let mut incident = Incident::new(&id, guest, "uuid", Utc(at));
        incident.died = signature.map(|signature| Died {
            signature: signature.into(),
            oops: crate::guest::oops::Oops {
                title: "BUG".into(),
                panic: None,
                up_ns: 0,
                task: None,
                at: None,
                trace: vec![],
                modules: vec![],
            },
        });
        let text = serde_json::to_string(&incident).unwrap();
        files.replace(RECORD, &text, false).unwrap();
    }

    #[test]
    fn crashes_of_the_same_are_counted_whoever_had_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(earlier(path, "aa", "web1-400"), None);
        crashed(path, "web7", 300, Some("aa"));
        crashed(path, "web1", 100, Some("aa"));
        crashed(path, "web1", 200, Some("bb"));
        crashed(path, "web2", 250, None);
        crashed(path, "web1", 400, Some("aa"));
        std::fs::write(path.join("half.json"), "{\"id\":\"half\"").unwrap();
        let crash = |guest: &str, at| EarlierCrash {
            crashed_s: Utc(at),
            id: format!("{guest}-{at}"),
            guest: guest.into(),
        };
        let expected = Earlier {
            count: 2,
            first: crash("web1", 100),
            last: crash("web7", 300),
        };
        assert_eq!(earlier(path, "aa", "web1-400"), Some(expected));
        assert_eq!(earlier(&path.join("missing"), "aa", ""), None);
    }
}
