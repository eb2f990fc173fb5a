// SPDX-License-Identifier: LGPL-2.1-or-later
//! Entries about a crash in the journal of systemd, with fields for who looks for them.
//!
//! An entry is one datagram (systemd's "Native Journal Protocol"): a line `FIELD=value` for
//! each field. Where there is no such journal, or it takes nothing, xl's log has it all.

use std::fmt::Write;
use std::path::Path;

use super::screen::{dump, printable, recovery};
use super::value::{DumpState, Incident};
use crate::job::Outcome;
use crate::os::fd::datagram_socket;

/// What there is an entry about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moment {
    /// The crash has a record.
    Crashed,
    /// It is handled to its end.
    Over,
}

/// Sends an entry about the crash whose record is at `path` to the journal at `socket`.
pub(super) fn tell(socket: &Path, moment: Moment, incident: &Incident, path: &Path) {
    if let Ok(from) = datagram_socket() {
        // Nobody waits for the journal, and what it does not take is in the log.
        let _ = from.send_to(entry(moment, incident, path).as_bytes(), socket);
    }
}

impl Moment {
    /// What marks all entries of a kind (`journalctl MESSAGE_ID=...`).
    fn message_id(self) -> &'static str {
        match self {
            Self::Crashed => "67968c6c5a3341dc9f0dadf2580a186a",
            Self::Over => "0b43e6a1e28d463ba16b2ad956aaefb9",
        }
    }

    /// As syslog(3) counts: a guest that is down is critical, a failure an error.
    fn priority(self, incident: &Incident) -> u8 {
        let is_dumped = matches!(
            incident.dump.state,
            DumpState::Complete | DumpState::NotWanted
        );
        match (self, incident.outcome) {
            (Self::Crashed, _) => 2,
            (Self::Over, Outcome::Adopted) if is_dumped => 5,
            (Self::Over, _) => 3,
        }
    }

    fn message(self, incident: &Incident) -> String {
        let guest = &incident.guest;
        match self {
            Self::Crashed => {
                let title = incident.died.as_ref().map(|died| &died.oops.title);
                let of = title.map_or_else(String::new, |title| format!(": {title}"));
                format!("guest {guest} crashed{of}")
            }
            Self::Over => format!(
                "the crash of guest {guest} is handled: recovery: {}; dump: {}",
                recovery(incident),
                dump(incident)
            ),
        }
    }
}

fn entry(moment: Moment, incident: &Incident, path: &Path) -> String {
    let mut entry = String::new();
    let mut field = |name: &str, value: &str| {
        // No end of a line within, which would begin another field.
        let _ = writeln!(entry, "{name}={}", printable(value));
    };
    let as_word = |value: serde_json::Result<serde_json::Value>| {
        let value = value.unwrap_or_default();
        value.as_str().unwrap_or_default().to_owned()
    };
    field("MESSAGE", &moment.message(incident));
    field("MESSAGE_ID", moment.message_id());
    field("PRIORITY", &moment.priority(incident).to_string());
    field("SYSLOG_IDENTIFIER", "vicover");
    field("VICOVER_ID", &incident.id);
    field("VICOVER_GUEST", &incident.guest);
    field("VICOVER_UUID", &incident.uuid);
    field("VICOVER_RECORD", &path.display().to_string());
    if let Some(kernel) = &incident.kernel {
        field("VICOVER_KERNEL", kernel);
    }
    if let Some(died) = &incident.died {
        field("VICOVER_SIGNATURE", &died.signature);
        field("VICOVER_TITLE", &died.oops.title);
    }
    if moment == Moment::Over {
        let outcome = serde_json::to_value(incident.outcome);
        field("VICOVER_OUTCOME", &as_word(outcome));
        let state = serde_json::to_value(incident.dump.state);
        field("VICOVER_DUMP_STATE", &as_word(state));
        if let Some(path) = &incident.dump.path {
            field("VICOVER_DUMP", path);
        }
        if let Some(domid) = incident.recovery.domid {
            field("VICOVER_RECOVERY_DOMID", &domid.to_string());
        }
        if let Some(ms) = incident.recovery.unpaused_ms {
            field("VICOVER_RECOVERY_MS", &ms.to_string());
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use super::*;
    use crate::incident::screen::tests::ended_well;

    fn fields(entry: &str) -> Vec<(&str, &str)> {
        let lines = entry.strip_suffix('\n').unwrap().split('\n');
        lines.map(|line| line.split_once('=').unwrap()).collect()
    }

    fn field<'a>(entry: &'a str, name: &str) -> Option<&'a str> {
        let of_it = fields(entry).into_iter().filter(|field| field.0 == name);
        let values: Vec<&str> = of_it.map(|field| field.1).collect();
        assert!(values.len() <= 1, "{name} stands there twice");
        values.first().copied()
    }

    #[test]
    fn an_entry_has_what_one_looks_for() {
        let incident = ended_well();
        let path = Path::new("/d/web1.json");
        let died = incident.died.clone().unwrap();
        for moment in [Moment::Crashed, Moment::Over] {
            let entry = entry(moment, &incident, path);
            for (name, value) in fields(&entry) {
                assert!(!value.is_empty(), "{name}");
                let is_fine = |c: char| c.is_ascii_uppercase() || c == '_';
                assert!(name.chars().all(is_fine), "{name}");
            }
            assert_eq!(field(&entry, "VICOVER_GUEST"), Some("web1"));
            assert_eq!(field(&entry, "VICOVER_RECORD"), path.to_str());
            assert_eq!(field(&entry, "VICOVER_SIGNATURE"), Some(&*died.signature));
            assert_eq!(field(&entry, "MESSAGE_ID").unwrap().len(), 32);
        }
        let crashed = entry(Moment::Crashed, &incident, path);
        let message = format!("guest web1 crashed: {}", died.oops.title);
        assert_eq!(field(&crashed, "MESSAGE"), Some(&*message));
        assert_eq!(field(&crashed, "PRIORITY"), Some("2"));
        assert_eq!(field(&crashed, "VICOVER_OUTCOME"), None);
        let over = entry(Moment::Over, &incident, path);
        assert_eq!(field(&over, "PRIORITY"), Some("5"));
        assert_eq!(field(&over, "VICOVER_OUTCOME"), Some("adopted"));
        assert_eq!(field(&over, "VICOVER_DUMP_STATE"), Some("complete"));
        assert_eq!(field(&over, "VICOVER_DUMP"), incident.dump.path.as_deref());
        let message = field(&over, "MESSAGE").unwrap();
        assert!(message.contains("is an ordinary domain"), "{message}");
        assert!(message.contains("dump: complete"), "{message}");
        for (outcome, state) in [
            (Outcome::Adopted, DumpState::Incomplete),
            (Outcome::Dirty, DumpState::Complete),
        ] {
            let mut failed = incident.clone();
            (failed.outcome, failed.dump.state) = (outcome, state);
            assert_eq!(Moment::Over.priority(&failed), 3);
        }
    }

    #[test]
    fn the_catalog_explains_both_kinds_with_fields_that_there_are() {
        let catalog = include_str!("../../xl-patch/vicover.catalog");
        let incident = ended_well();
        for moment in [Moment::Crashed, Moment::Over] {
            let begin = format!("-- {}\n", moment.message_id());
            let (_, text) = catalog.split_once(&begin).expect("it is explained");
            let text = text.split("\n-- ").next().unwrap();
            let entry = entry(moment, &incident, Path::new("/d/web1.json"));
            let names: Vec<&str> = text.split('@').skip(1).step_by(2).collect();
            assert!(!names.is_empty());
            for name in names {
                assert!(field(&entry, name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn what_a_guest_writes_begins_no_field() {
        let mut incident = ended_well();
        let died = incident.died.as_mut().unwrap();
        died.oops.title = "x\nPRIORITY=7\n\u{1b}[2J".into();
        incident.guest = "web1\nVICOVER_UUID=other".into();
        let entry = entry(Moment::Crashed, &incident, Path::new("/d/a\nb"));
        assert_eq!(field(&entry, "PRIORITY"), Some("2"));
        assert_eq!(field(&entry, "VICOVER_UUID"), Some(&*incident.uuid));
        assert!(!entry.contains('\u{1b}'));
    }

    #[test]
    fn an_entry_is_one_datagram_and_nobody_need_listen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let incident = ended_well();
        tell(&path, Moment::Over, &incident, &path);
        let listener = UnixDatagram::bind(&path).unwrap();
        listener
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        tell(&path, Moment::Over, &incident, &path);
        let mut bytes = [0; 1 << 16];
        let length = listener.recv(&mut bytes).unwrap();
        let expected = entry(Moment::Over, &incident, &path);
        assert_eq!(&bytes[..length], expected.as_bytes());
    }
}
