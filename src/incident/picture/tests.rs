// SPDX-License-Identifier: LGPL-2.1-or-later
//! The picture: its elements are where the figures say, and it is SVG whatever a guest
//! has in its log.

use super::super::screen::tests::ended_well;
use super::*;
use crate::incident::{ProgressMark, StepMark};

fn crash() -> Incident {
    let mut incident = ended_well();
    let step = |(at_ms, what): &(u64, &str)| StepMark {
        at_ms: *at_ms,
        what: (*what).into(),
    };
    incident.steps = [
        (500, "guest planned"),
        (900, "recovery detached"),
        (1000, "recovery seeded"),
        (2000, "recovery unpaused"),
        (2100, "dump started"),
        (9000, "dump complete"),
        (10_000, "recovery settled"),
        (10_000, "recovery times"),
    ]
    .iter()
    .map(step)
    .collect();
    incident.progress = vec![ProgressMark {
        at_ms: 5000,
        dumped_pages: 10,
        planned_pages: 40,
        written_bytes: 1,
        released_bytes: 256 << 20,
    }];
    incident.recovery.unpaused_ms = Some(2000);
    incident
}

#[test]
fn curves_and_bars_are_where_the_figures_say() {
    let svg = picture(&crash());
    // 5 s of 10 are in the middle; a quarter is written, a half given back.
    let middle = (LEFT + RIGHT) / 2.0;
    let (quarter, half) = (Drawing::y(25.0), Drawing::y(50.0));
    assert!(
        svg.contains(&format!(" {middle:.1},{quarter:.1} ")),
        "{svg}"
    );
    assert!(svg.contains(&format!(" {middle:.1},{half:.1} ")), "{svg}");
    let runs = LEFT + (RIGHT - LEFT) / 5.0;
    let bar = format!("<rect x=\"{runs:.1}\" y=\"{RUNS:.1}\"");
    assert!(svg.contains(&bar), "{svg}");
    for phase in ["recover", "drain", "close"] {
        assert!(svg.contains(&format!(">{phase}</text>")), "{svg}");
    }
    assert!(svg.contains(">10 s</text>") && !svg.contains(">11 s</text>"));
}

#[test]
fn a_guest_cannot_put_elements_into_it() {
    let mut incident = crash();
    let died = incident.died.as_mut().unwrap();
    died.oops.title = "<script>&\u{7}".into();
    let svg = picture(&incident);
    assert!(svg.contains(">&lt;script&gt;&amp;.</text>"), "{svg}");
    // A crash that nothing is known of.
    let svg = picture(&Incident::new("a", "a", "", crate::units::Utc(0)));
    assert!(svg.ends_with("</svg>\n"));
}
