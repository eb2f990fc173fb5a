// SPDX-License-Identifier: LGPL-2.1-or-later
//! `vicover status`: crashes that are being handled, and how far their dumps are.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use super::arguments::Status;
use super::failure::Failure;
use super::list::crashes;
use super::table::{fitted, Terminal};
use crate::incident::{self, printable, DumpState, Incident, ProgressMark, RecoveryState};
use crate::journal;
use crate::os::wait::{wait_readable, DirectoryWatch};
use crate::units::{Size, Span, Utc};

/// While it watches, after so long it is drawn anew though nothing was written: how long
/// ago something was goes on.
const REDRAW_MS: i32 = 1000;
/// Characters of a progress bar.
const BAR: u64 = 30;
/// How much of the past the rate is of.
const RECENT_MS: u64 = 10_000;

pub(super) fn print(
    asked: &Status,
    terminal: Option<Terminal>,
    to: &mut dyn Write,
) -> Result<(), Failure> {
    let watch = match asked.is_watch {
        true => DirectoryWatch::of(&asked.directory).ok(),
        false => None,
    };
    let mut drawn = 0;
    loop {
        let handled = handled(&asked.directory, asked.guest.as_deref())?;
        let lines = match asked.is_json {
            true => handled.iter().map(json).collect(),
            false => screen_of(&handled, terminal),
        };
        if drawn > 0 {
            // Over what was drawn before (ECMA-48: CPL, ED).
            write!(to, "\x1b[{drawn}F\x1b[J")?;
        }
        for line in &lines {
            writeln!(to, "{line}")?;
        }
        to.flush()?;
        let Some(watch) = watch.as_ref().filter(|_| !handled.is_empty()) else {
            return Ok(());
        };
        drawn = match terminal {
            Some(_) if !asked.is_json => lines.len(),
            _ => 0,
        };
        wait_readable(&[watch.as_fd()], Some(REDRAW_MS))?;
        watch.drain();
    }
}

/// The records of crashes that are not handled to their end.
fn handled(directory: &Path, guest: Option<&str>) -> Result<Vec<Incident>, Failure> {
    let heads = crashes(directory, guest)?;
    let open = heads.iter().filter(|head| !head.is_over);
    // One that cannot be read any more has been removed meanwhile.
    let read = |id: &str| incident::read(directory, id).ok();
    Ok(open.filter_map(|head| read(&head.id)).collect())
}

fn screen_of(handled: &[Incident], terminal: Option<Terminal>) -> Vec<String> {
    if handled.is_empty() {
        return vec!["no crash is being handled".to_owned()];
    }
    let blocks = handled.iter().flat_map(|incident| {
        let is_gone = !journal::is_written(&incident.uuid);
        block(incident, Utc::now(), is_gone)
    });
    blocks.map(|line| fitted(&line, terminal)).collect()
}

/// A crash in some lines. When its process `is_gone`, nothing goes on.
fn block(incident: &Incident, now: Utc, is_gone: bool) -> Vec<String> {
    let ago = Duration::from_secs(now.0.saturating_sub(incident.crashed_s.0));
    let title = incident.died.as_ref().map(|died| died.oops.title.as_str());
    let mut lines = vec![
        format!("{}, {} ago", incident.id, Span(ago)),
        format!(
            "  died of   {}",
            printable(title.unwrap_or("not known yet"))
        ),
        format!("  recovery  {}", recovery(incident)),
        format!("  dump      {}", dump(incident)),
    ];
    if let Some(mark) = latest(incident) {
        let all = incident.memory_bytes.unwrap_or(0);
        let held = all.saturating_sub(mark.released_bytes);
        lines.push(format!(
            "  memory    {} of {} handed over, {} still held",
            Size(mark.released_bytes),
            Size(all),
            Size(held)
        ));
    }
    if is_gone {
        lines.push("  its process is gone: xl vicover-resume goes on with it".to_owned());
    }
    lines
}

fn recovery(incident: &Incident) -> String {
    let recovery = &incident.recovery;
    let domid = recovery.domid.unwrap_or(0);
    let since = recovery.unpaused_ms.map(|ms| {
        let after = Span(Duration::from_millis(ms));
        format!(", since {after} after the crash")
    });
    let paused = recovery.pauses.map(|pauses| {
        let long = Span(Duration::from_millis(pauses.paused_ms));
        format!("; paused {} times, {long} in all", pauses.count)
    });
    let state = match recovery.state {
        RecoveryState::None => "is to come".to_owned(),
        RecoveryState::Created => format!("domain {domid} is built"),
        RecoveryState::Running => format!("domain {domid} runs on part of its memory"),
        RecoveryState::Settled => format!("domain {domid} is an ordinary domain"),
        RecoveryState::Gone => format!("domain {domid} has ended"),
        RecoveryState::Failed => "failed".to_owned(),
    };
    state + &since.unwrap_or_default() + &paused.unwrap_or_default()
}

/// How far dump and memory are, as far as that is known.
fn latest(incident: &Incident) -> Option<ProgressMark> {
    incident.now.or(incident.progress.last().copied())
}

fn dump(incident: &Incident) -> String {
    match incident.dump.state {
        DumpState::None => "is to come".to_owned(),
        DumpState::Written => incident.now.map_or_else(
            || "is begun".to_owned(),
            |now| progress(now, rate(incident, now)),
        ),
        DumpState::Complete => format!(
            "complete, {}",
            Size(incident.dump.length_bytes.unwrap_or(0))
        ),
        DumpState::Incomplete => "incomplete".to_owned(),
        DumpState::NotMade => "none".to_owned(),
        DumpState::NotWanted => "not wanted".to_owned(),
        DumpState::Removed => "removed".to_owned(),
    }
}

/// How fast pages and bytes are written, a second.
#[derive(Clone, Copy)]
struct Rate {
    pages: f64,
    bytes: f64,
}

/// The rate of late; none before there is one.
fn rate(incident: &Incident, now: ProgressMark) -> Option<Rate> {
    let recent = now.at_ms.saturating_sub(RECENT_MS);
    let mut marks = incident
        .progress
        .iter()
        .filter(|mark| mark.planned_pages > 0);
    let first = marks.clone().find(|mark| mark.at_ms >= recent);
    let from = first.or_else(|| marks.next_back())?;
    let seconds = now.at_ms.saturating_sub(from.at_ms) as f64 / 1000.0;
    let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
    (seconds > 0.5).then(|| Rate {
        pages: per_second(now.dumped_pages, from.dumped_pages),
        bytes: per_second(now.written_bytes, from.written_bytes),
    })
}

impl Rate {
    /// How long the rest takes at this rate; none while hardly anything goes on.
    fn left(self, now: ProgressMark) -> Option<Duration> {
        let pages = now.planned_pages.saturating_sub(now.dumped_pages);
        (self.pages >= 1.0).then(|| Duration::from_secs_f64(pages as f64 / self.pages))
    }
}

fn progress(now: ProgressMark, rate: Option<Rate>) -> String {
    let planned = now.planned_pages.max(1);
    let dumped = now.dumped_pages.min(planned);
    let done = BAR * dumped / planned;
    let bar: String = (0..BAR)
        .map(|at| if at < done { '#' } else { '.' })
        .collect();
    let mut text = format!(
        "[{bar}] {:3} %, {}",
        100 * dumped / planned,
        Size(now.written_bytes)
    );
    if let Some(rate) = rate {
        text.push_str(&format!(", {}/s", Size(rate.bytes as u64)));
        if let Some(left) = rate.left(now) {
            text.push_str(&format!(", {} left", Span(left)));
        }
    }
    text
}

/// A crash as programs read it.
fn json(incident: &Incident) -> String {
    let now = latest(incident);
    let rate = incident.now.and_then(|now| rate(incident, now));
    let left = incident
        .now
        .zip(rate)
        .and_then(|(now, rate)| rate.left(now));
    serde_json::json!({
        "id": incident.id,
        "guest": incident.guest,
        "crashed_s": incident.crashed_s,
        "outcome": incident.outcome,
        "recovery": incident.recovery,
        "dump": incident.dump,
        "now": now,
        "bytes_per_s": rate.map(|rate| rate.bytes as u64),
        "left_s": left.map(|left| left.as_secs()),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(at_ms: u64, dumped_pages: u64) -> ProgressMark {
        ProgressMark {
            at_ms,
            dumped_pages,
            planned_pages: 1000,
            written_bytes: dumped_pages * 1024,
            released_bytes: 100 << 20,
        }
    }

    fn running() -> Incident {
        let mut incident = Incident::new("web1-T", "web1", "uuid", Utc(100));
        incident.memory_bytes = Some(512 << 20);
        incident.recovery.state = RecoveryState::Running;
        incident.recovery.domid = Some(7);
        incident.recovery.unpaused_ms = Some(2350);
        incident.dump.state = DumpState::Written;
        incident.progress = vec![mark(1000, 100), mark(15_000, 300)];
        incident.now = Some(mark(20_000, 500));
        incident
    }

    #[test]
    fn a_crash_is_drawn_with_a_bar_a_rate_and_what_is_left() {
        assert_eq!(
            block(&running(), Utc(120), false),
            [
                "web1-T, 20.00 s ago",
                "  died of   not known yet",
                "  recovery  domain 7 runs on part of its memory, since 2.35 s after the crash",
                "  dump      [###############...............]  50 %, 500 KiB, 40 KiB/s, 12.50 s \
                 left",
                "  memory    100 MiB of 512 MiB handed over, 412 MiB still held",
            ]
        );
        let gone = block(&running(), Utc(120), true);
        assert!(gone.last().unwrap().contains("xl vicover-resume"));
    }

    #[test]
    fn before_anything_is_known_that_is_said() {
        let incident = Incident::new("web1-T", "web1", "uuid", Utc(100));
        let lines = block(&incident, Utc(100), false);
        assert_eq!(
            lines[2..],
            ["  recovery  is to come", "  dump      is to come"]
        );
        let mut begun = running();
        (begun.now, begun.progress) = (None, vec![]);
        assert_eq!(dump(&begun), "is begun");
        begun.now = Some(mark(0, 2000));
        assert!(dump(&begun).contains("100 %"), "more than was planned");
    }
}
