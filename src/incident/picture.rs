// SPDX-License-Identifier: LGPL-2.1-or-later
//! What happened when, as a picture (SVG): the phases, how much of the dump was written and
//! how much memory was given back, and when the recovery domain ran.

use std::fmt::Write;

use super::screen::printable;
use super::value::Incident;

/// The picture, in pixels.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 300.0;
/// Where time begins and ends in it.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 840.0;
/// The plot of percentages.
const TOP: f64 = 64.0;
const BOTTOM: f64 = 200.0;
const PHASES: f64 = 216.0;
const RUNS: f64 = 238.0;
const ROW: f64 = 16.0;
/// Of a character, on the wide side.
const CHARACTER: f64 = 6.4;

const DUMPED: &str = "#222222";
const RELEASED: &str = "#c05a1a";
const RECOVERY: &str = "#1a66a8";
const FILLS: [&str; 2] = ["#dfe5ec", "#c3cdd9"];

/// Phases, each with the step that it ends with.
const ENDS: [(&str, &str); 6] = [
    ("understand", "guest planned"),
    ("detach", "recovery detached"),
    ("seed", "recovery seeded"),
    ("recover", "recovery unpaused"),
    ("drain", "dump complete"),
    ("close", "recovery times"),
];

/// The picture of a crash that is handled.
pub(super) fn picture(incident: &Incident) -> String {
    let drawing = Drawing::new(incident);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    drawing.title(&mut svg, incident);
    drawing.axes(&mut svg);
    drawing.curves(&mut svg, incident);
    drawing.phases(&mut svg, incident);
    drawing.recovery(&mut svg, incident);
    svg.push_str("</svg>\n");
    svg
}

struct Drawing {
    /// What the time axis ends with.
    end_ms: f64,
}

fn text(svg: &mut String, x: f64, y: f64, more: &str, said: &str) {
    let said = escaped(said);
    // Writing to a text does not fail, here and below.
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\"{more}>{said}</text>");
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
    );
}

/// When a step was taken first, if it was.
fn when(incident: &Incident, what: &str) -> Option<u64> {
    let found = incident.steps.iter().find(|step| step.what == what);
    found.map(|step| step.at_ms)
}

/// As the text of an element: the guest chose some of it.
fn escaped(text: &str) -> String {
    let text = printable(text).replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

/// A round distance between ticks, of which there are ten at most.
fn step_of(span: f64) -> f64 {
    let mut power = 1.0;
    while power * 100.0 < span {
        power *= 10.0;
    }
    let factors = [1.0, 2.0, 5.0, 10.0];
    let fitting = factors
        .into_iter()
        .find(|factor| span <= factor * power * 10.0);
    power * fitting.unwrap_or(10.0)
}

impl Drawing {
    fn new(incident: &Incident) -> Self {
        let steps = incident.steps.iter().map(|step| step.at_ms);
        let marks = incident.progress.iter().map(|mark| mark.at_ms);
        let last = steps.chain(marks).max().unwrap_or(0);
        Self {
            end_ms: (last as f64).max(1000.0),
        }
    }

    fn x(&self, at_ms: u64) -> f64 {
        LEFT + (RIGHT - LEFT) * (at_ms as f64 / self.end_ms).min(1.0)
    }

    fn y(percent: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * percent / 100.0
    }

    fn title(&self, svg: &mut String, incident: &Incident) {
        let bold = " font-size=\"14\" font-weight=\"bold\"";
        text(svg, LEFT, 22.0, bold, &incident.id);
        let most = ((RIGHT - LEFT) / CHARACTER) as usize;
        if let Some(died) = &incident.died {
            let title: String = died.oops.title.chars().take(most).collect();
            text(svg, LEFT, 40.0, "", &title);
        }
        let legend = [
            (RELEASED, "memory given back"),
            (DUMPED, "dump written"),
            (RECOVERY, "recovery runs"),
        ];
        let mut x = LEFT;
        for (colour, said) in legend {
            text(svg, x, 56.0, &format!(" fill=\"{colour}\""), said);
            x += said.len() as f64 * CHARACTER + 16.0;
        }
    }

    fn axes(&self, svg: &mut String) {
        for percent in [0.0, 50.0, 100.0] {
            let y = Self::y(percent);
            line(svg, (LEFT, y), (RIGHT, y), "#dddddd");
            let said = format!("{percent} %");
            text(svg, LEFT - 8.0, y + 4.0, " text-anchor=\"end\"", &said);
        }
        let step = step_of(self.end_ms / 1000.0);
        let mut seconds = 0.0;
        while seconds * 1000.0 <= self.end_ms {
            let x = self.x((seconds * 1000.0) as u64);
            line(svg, (x, TOP), (x, RUNS + ROW), "#eeeeee");
            let said = format!("{seconds} s");
            text(svg, x, RUNS + ROW + 16.0, " text-anchor=\"middle\"", &said);
            seconds += step;
        }
        let note = "since the crash began to be handled";
        text(svg, LEFT, HEIGHT - 8.0, " fill=\"#777777\"", note);
    }

    fn curves(&self, svg: &mut String, incident: &Incident) {
        let memory = incident.memory_bytes.unwrap_or(0);
        let share = |part: u64, whole: u64| match whole {
            0 => 0.0,
            _ => 100.0 * (part as f64 / whole as f64).min(1.0),
        };
        let when = |what| when(incident, what);
        let mut dumped: Vec<(u64, f64)> = Vec::new();
        let mut released: Vec<(u64, f64)> = Vec::new();
        dumped.extend(when("dump started").map(|at| (at, 0.0)));
        released.extend(when("recovery detached").map(|at| (at, 0.0)));
        for mark in &incident.progress {
            // What is given back first is that before there is a dump.
            if mark.planned_pages > 0 {
                dumped.push((mark.at_ms, share(mark.dumped_pages, mark.planned_pages)));
            }
            released.push((mark.at_ms, share(mark.released_bytes, memory)));
        }
        dumped.extend(when("dump complete").map(|at| (at, 100.0)));
        released.extend(when("recovery settled").map(|at| (at, 100.0)));
        for (points, colour) in [(dumped, DUMPED), (released, RELEASED)] {
            let points: Vec<String> = points
                .iter()
                .map(|&(at, percent)| format!("{:.1},{:.1}", self.x(at), Self::y(percent)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"{colour}\" points=\"{}\"/>",
                points.join(" ")
            );
        }
    }

    fn phases(&self, svg: &mut String, incident: &Incident) {
        let mut from = 0;
        let mut number = 0;
        for (name, end) in ENDS {
            // Phases overlap: the plan is made while devices go.
            let Some(to) = when(incident, end).filter(|&to| to > from) else {
                continue;
            };
            self.bar(svg, (from, to), PHASES, FILLS[number % 2]);
            let (left, right) = (self.x(from), self.x(to));
            if right - left > name.len() as f64 * CHARACTER {
                let middle = (left + right) / 2.0;
                text(svg, middle, PHASES + 12.0, " text-anchor=\"middle\"", name);
            }
            (from, number) = (to, number + 1);
        }
    }

    fn bar(&self, svg: &mut String, (from, to): (u64, u64), y: f64, fill: &str) {
        let (x, width) = (self.x(from), self.x(to) - self.x(from));
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{ROW}\" fill=\"{fill}\"/>"
        );
    }

    fn recovery(&self, svg: &mut String, incident: &Incident) {
        if let Some(from) = incident.recovery.unpaused_ms {
            self.bar(svg, (from, self.end_ms as u64), RUNS, RECOVERY);
        }
    }
}

#[cfg(test)]
mod tests;
