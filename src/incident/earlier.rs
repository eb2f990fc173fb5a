// SPDX-License-Identifier: LGPL-2.1-or-later
//! Earlier crashes of the same, by the records in a directory.

use std::path::Path;

use super::head::list;
use super::value::{Earlier, EarlierCrash};

/// Crashes with this signature beside that of the record `own`; none when there was none,
/// or none can be seen: the crash is being handled.
pub(super) fn earlier(directory: &Path, signature: &str, own: &str) -> Option<Earlier> {
    let is_same = |died: &(String, String)| died.0 == signature;
    let crashes = list(directory).ok()?;
    let crashes: Vec<EarlierCrash> = crashes
        .into_iter()
        .filter(|head| head.id != own && head.died.as_ref().is_some_and(is_same))
        .map(|head| EarlierCrash {
            crashed_s: head.crashed_s,
            id: head.id,
            guest: head.guest,
        })
        .collect();
    Some(Earlier {
        count: crashes.len(),
        first: crashes.first()?.clone(),
        last: crashes.last()?.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::files::{Files, RECORD};
    use super::*;
    use crate::incident::{Died, Incident};
    use crate::units::Utc;

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
