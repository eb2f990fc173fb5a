#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Draws one crash as a timeline.

  picture.py RUN.JSON OUT.SVG

RUN.JSON is what `tests/host/vhost run` writes; watch.csv is expected beside it.
Shows, in seconds from the crash: the memory of the crashed and of the recovery
domain and the host's free memory (MiB), how much of the dump is written (%),
the phases, and when the service answered.
"""

import bisect
import csv
import json
import pathlib
import sys
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 900, 420
LEFT, RIGHT = 62, 846  # the plot's edges
TOP, BOTTOM = 118, 320
PHASE_ROW, SERVICE_ROW, ROW_HEIGHT = 346, 390, 16
FONT_SIZE, CHARACTER = 11, 6.2  # px; the width errs on the wide side
PAGES_PER_MIB = 256

CRASHED, RECOVERY, FREE, DUMP = "#c05a1a", "#1a66a8", "#777777", "#222222"
UP, DOWN = "#3c8d54", "#b8322a"
PHASE_FILLS = ("#dfe5ec", "#c3cdd9")

# Where a phase begins: what the library tells at its beginning, or at the end of the
# phase before. The first begins with the crash itself; the last, "close", with the
# last figure of the dump's progress.
PHASES = (
    ("notice", None),
    ("understand", "guest seen"),
    ("detach", "guest planned"),
    ("seed", "recovery detached"),
    ("recover", "recovery seeded"),
    ("drain", "recovery unpaused"),
)


class Story:
    """What one run tells; all times in seconds from the crash."""

    def __init__(self, record: dict, watched: list):
        events = record["events"]
        crash = next((e for e in events if e["name"] == "domain_crashed"), None)
        if crash is None:
            raise ValueError("nothing crashed in this run")
        self.zero = crash["at_s"]
        self.crashed = crash["data"]["domid"]
        after = events[events.index(crash):]
        # What libvicover told: (seconds, its two names, its members).
        self.told = [
            (e["at_s"] - self.zero, f"{e['data']['about']} {e['data']['event']}", e["data"])
            for e in after if e["name"] == "vicover"
        ]
        self.recovery, self.created = self._other(after, "domain_created")
        _, self.runs = self._other(after, "domain_unpaused")
        gone = [e["at_s"] - self.zero for e in after
                if e["name"] == "domain_gone" and e["data"]["domid"] == self.crashed]
        self.gone = gone[0] if gone else None
        self.outages = self._outages(events)
        self.free = self._series(watched, "free")
        self.memory = {
            domid: self._series(watched, f"dom{domid}")
            for domid in (self.crashed, self.recovery) if domid is not None
        }
        if self.gone is not None:
            self.memory[self.crashed].append((self.gone, 0.0))
        told = [at for at, _, _ in self.told]
        backs = [up for _, up in self.outages if up is not None]
        marks = [m for m in (self.gone, self.runs) if m is not None]
        self.end = max([10.0, *told, *backs, *marks]) * 1.03
        self.start = -0.06 * self.end

    def _other(self, events: list, name: str):
        """The first domain but the crashed one that an event names, and when."""
        for event in events:
            if event["name"] == name and event["data"]["domid"] != self.crashed:
                return event["data"]["domid"], event["at_s"] - self.zero
        return None, None

    def _outages(self, events: list) -> list:
        """(from, to) of the times without service; to is None if it stays."""
        outages = []
        for event in events:
            if event["name"] == "down":
                outages.append((event["data"]["last_ack_s"] - self.zero, None))
            elif event["name"] == "up" and outages:
                outages[-1] = (outages[-1][0], event["data"]["first_ack_s"] - self.zero)
        return outages

    def _series(self, watched: list, what: str) -> list:
        """(seconds, MiB) at each change."""
        return [(float(seconds) - self.zero, int(pages) / PAGES_PER_MIB)
                for seconds, name, pages in watched if name == what]

    def first(self, what: str):
        """When the library first told that something happened."""
        return next((at for at, name, _ in self.told if name == what), None)

    def dumped(self) -> list:
        """(seconds, percent of the pages to dump)."""
        points = []
        began = self.first("dump started")
        if began is not None:
            points.append((began, 0.0))
        for at, name, data in self.told:
            if name == "dump progress":
                points.append((at, 100 * data["dumped_pages"] / data["planned_pages"]))
        done = self.first("dump complete")
        if done is not None:
            points.append((done, 100.0))
        return points

    def phases(self) -> list:
        """(name, from, to) of each phase that was told."""
        if not self.told:
            return []
        begins = [(name, self.first(what) if what else 0.0) for name, what in PHASES]
        told = [at for at, name, _ in self.told if name == "dump progress"]
        begins.append(("close", told[-1] if told else None))
        begins = [(name, at) for name, at in begins if at is not None]
        ends = [at for _, at in begins[1:]]
        last = self.first("recovery settled")
        ends.append(last if last is not None else self.end)
        # Events reach the watcher in order, but close ones at one time.
        return [(name, at, end) for (name, at), end in zip(begins, ends) if end > at]

    def marks(self) -> list:
        """(seconds, text, colour) of what a reader looks for first."""
        back = next((up for down, up in self.outages
                     if up is not None and up > 0), None)
        wanted = [
            (0.0, "crash", CRASHED),
            (self.created, "recovery created", RECOVERY),
            (self.runs, "recovery runs", RECOVERY),
            (back, "service back", UP),
            (self.first("dump complete"), "dump complete", DUMP),
            (self.gone, "crashed domain gone", CRASHED),
        ]
        return sorted((at, f"{text} {at:.1f} s" if at else text, colour)
                      for at, text, colour in wanted if at is not None)


def step_of(span: float, ticks: int) -> float:
    """A round distance between ticks: at most `ticks` of them in `span`."""
    exact = span / ticks
    power = 1.0
    while power * 10 <= exact:
        power *= 10
    return next(power * f for f in (1, 2, 5, 10) if power * f >= exact)


class Drawing:
    """SVG elements, and the scales that place them."""

    def __init__(self, story: Story):
        self.story = story
        self.parts = []
        highest = max((v for series in (*story.memory.values(), story.free)
                       for at, v in series if story.start <= at <= story.end),
                      default=1.0)
        self.memory_step = step_of(max(highest, 1.0), 5)
        self.memory_top = self.memory_step * -(-highest * 1.02 // self.memory_step)

    def x(self, at: float) -> float:
        """A time's place, within the plot."""
        share = (at - self.story.start) / (self.story.end - self.story.start)
        return LEFT + (RIGHT - LEFT) * min(max(share, 0.0), 1.0)

    def y(self, share: float) -> float:
        """The place of a share of the plot's height."""
        return BOTTOM - (BOTTOM - TOP) * share

    def text(self, x, y, text, anchor="start", fill="#222222", more=""):
        """A line of text."""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
                          f'fill="{fill}" {more}>{escape(text)}</text>')

    def line(self, x1, y1, x2, y2, stroke, more=""):
        """A straight line."""
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" '
                          f'y2="{y2:.1f}" stroke="{stroke}" {more}/>')

    def box(self, x1, x2, y, height, fill):
        """A filled rectangle."""
        self.parts.append(f'<rect x="{x1:.1f}" y="{y:.1f}" width="{x2 - x1:.1f}" '
                          f'height="{height}" fill="{fill}"/>')

    def axes(self):
        """Grid, ticks and units: time below, MiB to the left, % to the right."""
        for count in range(round(self.memory_top / self.memory_step) + 1):
            y = self.y(count * self.memory_step / self.memory_top)
            self.line(LEFT, y, RIGHT, y, "#e6e6e6")
            self.text(LEFT - 6, y + 4, f"{count * self.memory_step:g}", "end")
        self.text(LEFT - 6, TOP - 12, "MiB", "end")
        if self.story.dumped():
            self.text(RIGHT + 6, TOP - 12, "dump")
            for percent in (0, 25, 50, 75, 100):
                self.text(RIGHT + 6, self.y(percent / 100) + 4, f"{percent} %")
        step = step_of(self.story.end, 10)
        for count in range(int(self.story.end / step) + 1):
            x = self.x(count * step)
            self.line(x, BOTTOM, x, BOTTOM + 4, "#888888")
            self.text(x, BOTTOM + 16, f"{count * step:g}", "middle")
        self.line(LEFT, BOTTOM, RIGHT, BOTTOM, "#888888")
        self.text(LEFT - 6, BOTTOM + 16, "seconds", "end")

    def memory(self, series: list, colour: str, filled: bool, until=None):
        """A curve of steps: a value holds until the next, the last until `until`."""
        until = self.story.end if until is None else until
        times = [at for at, _ in series]
        first = max(bisect.bisect_right(times, self.story.start) - 1, 0)
        shown = [point for point in series[first:] if point[0] <= until]
        if not shown:
            return
        path, start = "", self.x(shown[0][0])
        for at, value in shown:
            x, y = self.x(at), self.y(value / self.memory_top)
            path += f"H{x:.1f}V{y:.1f}" if path else f"M{x:.1f} {y:.1f}"
        path += f"H{self.x(until):.1f}"
        if filled:
            self.parts.append(f'<path d="{path}V{BOTTOM}H{start:.1f}Z" fill="{colour}" '
                              'fill-opacity="0.13"/>')
        dashes = "" if filled else ' stroke-dasharray="2 3"'
        self.parts.append(f'<path d="{path}" fill="none" stroke="{colour}" '
                          f'stroke-width="2"{dashes}/>')

    def dump(self):
        """Progress of the dump, a dot for each line of the log."""
        points = [(self.x(at), self.y(percent / 100))
                  for at, percent in self.story.dumped()]
        if not points:
            return
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{joined}" fill="none" stroke="{DUMP}" '
                          'stroke-width="1.5"/>')
        self.parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{DUMP}"/>'
                       for x, y in points]

    def marks(self):
        """Vertical lines, their labels in rows so that none touches another."""
        ends, labels = [], []
        for at, text, colour in self.story.marks():
            x, width = self.x(at), len(text) * CHARACTER
            left = x + 4 if x + 4 + width < WIDTH else x - 4 - width
            row = next((i for i, end in enumerate(ends) if end + 8 < left), len(ends))
            ends[row:row + 1] = [left + width]
            y = TOP - 56 + row * 14
            self.line(x, y - 8, x, BOTTOM, colour, 'stroke-dasharray="4 3"')
            if left > x:
                labels.append((left, y, text, "start", colour))
            else:
                labels.append((x - 4, y, text, "end", colour))
        for label in labels:  # over the lines, which would strike them through
            self.text(*label, 'stroke="#ffffff" stroke-width="4" paint-order="stroke"')

    def phases(self):
        """A strip of phases; a name that does not fit stands below its phase."""
        phases, end_below = self.story.phases(), 0.0
        if phases:
            self.text(LEFT - 6, PHASE_ROW + 12, "phase", "end")
        for index, (name, begin, end) in enumerate(phases):
            x1, x2 = self.x(begin), self.x(end)
            middle, width = (x1 + x2) / 2, len(name) * CHARACTER
            self.box(x1, x2, PHASE_ROW, ROW_HEIGHT, PHASE_FILLS[index % 2])
            if width + 4 <= x2 - x1:
                self.text(middle, PHASE_ROW + 12, name, "middle")
                continue
            left = min(max(middle - width / 2, end_below + 6), WIDTH - 4 - width)
            end_below = left + width
            below = PHASE_ROW + ROW_HEIGHT
            self.line(middle, below, left + width / 2, below + 4, "#888888")
            self.text(left + width / 2, below + 14, name, "middle")

    def service(self):
        """A strip that is green while the service answers."""
        story = self.story
        self.text(LEFT - 6, SERVICE_ROW + 12, "service", "end")
        self.box(LEFT, RIGHT, SERVICE_ROW, ROW_HEIGHT, UP)
        for down, up in story.outages:
            until = story.end if up is None else up
            if until <= story.start:
                continue
            x1, x2 = self.x(down), self.x(until)
            self.box(x1, x2, SERVICE_ROW, ROW_HEIGHT, DOWN)
            text = "no answer" if up is None else f"no answer for {up - down:.1f} s"
            if len(text) * CHARACTER < x2 - x1:
                self.text((x1 + x2) / 2, SERVICE_ROW + 12, text, "middle", "#ffffff")

    def legend(self):
        """What each curve is."""
        story, x = self.story, LEFT
        entries = [(CRASHED, f"memory of the crashed domain ({story.crashed})", "")]
        if story.recovery is not None:
            entries.append((RECOVERY, "memory behind the recovery domain "
                                      f"({story.recovery})", ""))
        entries.append((FREE, "free on the host", 'stroke-dasharray="2 3"'))
        if story.dumped():
            entries.append((DUMP, "dump written", ""))
        for colour, text, dashes in entries:
            self.line(x, 38, x + 18, 38, colour, f'stroke-width="2.5" {dashes}')
            self.text(x + 23, 42, text)
            x += 23 + len(text) * CHARACTER + 14

    def svg(self, title: str) -> str:
        """The whole picture."""
        story = self.story
        self.box(0, WIDTH, 0, HEIGHT, "#ffffff")
        self.text(LEFT, 21, title, more='font-size="14" font-weight="bold"')
        self.text(RIGHT, 21, "seconds from the crash; phases as libvicover tells of them",
                  "end", "#666666")
        self.legend()
        self.axes()
        self.memory(story.free, FREE, False)
        if story.recovery is not None:
            self.memory(story.memory[story.recovery], RECOVERY, True)
        self.memory(story.memory[story.crashed], CRASHED, True, story.gone)
        self.marks()
        self.dump()
        self.phases()
        self.service()
        body = "\n".join(self.parts)
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
                f'height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
                f'font-family="DejaVu Sans, Verdana, sans-serif" '
                f'font-size="{FONT_SIZE}">\n<title>{escape(title)}</title>\n'
                f"{body}\n</svg>\n")


def draw(run: pathlib.Path) -> str:
    """The picture of the run whose run.json is `run`."""
    record = json.loads(run.read_text())
    with open(run.with_name("watch.csv"), newline="") as file:
        watched = list(csv.reader(file))[1:]
    story = Story(record, watched)
    guest_mib = max((v for _, v in story.memory[story.crashed]), default=0.0)
    title = f"One crash of a guest with {guest_mib:.0f} MiB"
    return Drawing(story).svg(title)


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        picture = draw(pathlib.Path(sys.argv[1]))
    except (OSError, ValueError, KeyError) as error:
        print(f"picture: {sys.argv[1]}: {error!r}", file=sys.stderr)
        return 1
    pathlib.Path(sys.argv[2]).write_text(picture)
    print(sys.argv[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
