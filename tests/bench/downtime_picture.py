# SPDX-License-Identifier: LGPL-2.1-or-later
"""The downtime benchmark as a picture: bars by mode and size, and below them the
timeline of one crash (of vicover where there is one), as tests/picture.py draws it."""

import pathlib
import sys
from xml.sax.saxutils import escape

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import picture  # noqa: E402

WIDTH, LEFT, RIGHT, STEP = 900, 250, 800, 22
COLOURS = {"restart": "#777777", "coredump-restart": "#c05a1a", "vicover": "#1a66a8",
           "vicover-standby": "#2a9d5c"}


def bars(result: dict) -> tuple:
    """The bars' elements and where they end; dots are the single runs."""
    rows = [row for row in result["runs"] if row["ok"]]
    keys = sorted({(row["memory_mib"], list(COLOURS).index(row["mode"]), row["mode"])
                   for row in rows})
    longest = max((row["downtime_s"] for row in rows), default=1.0)
    parts, y = [], 64
    for size, _, mode in keys:
        median = result["median_s"][mode][str(size)]
        all_s = [row["downtime_s"] for row in rows
                 if (row["memory_mib"], row["mode"]) == (size, mode)]
        scale = (RIGHT - LEFT) / longest
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{size} MiB, {mode}</text>'
            f'<rect x="{LEFT}" y="{y}" width="{median * scale:.1f}" height="{STEP - 6}" '
            f'fill="{COLOURS[mode]}"/>'
            f'<text x="{LEFT + max(all_s) * scale + 8:.1f}" y="{y + 12}">{median:.1f} s</text>')
        parts += [f'<circle cx="{LEFT + one * scale:.1f}" cy="{y + 8}" r="2.2"/>'
                  for one in all_s]
        y += STEP
    return parts, y


def shown(rows: list):
    """The run whose timeline is drawn: the largest, of vicover if there is one."""
    good = [row for row in rows if row["ok"]]
    return max(good, key=lambda row: (row["mode"] == "vicover", row["memory_mib"]),
               default=None)


def draw(result: dict, runs: pathlib.Path) -> str:
    """The whole picture; `runs` holds the runs' directories."""
    parts, end = bars(result)
    height, timeline, one = end + 20, "", shown(result["runs"])
    if one:
        inner = picture.draw(runs / one["directory"] / "run.json")
        timeline = inner.replace("<svg ", f'<svg x="0" y="{end + 44}" ', 1)
        parts.append(f'<text x="62" y="{end + 34}" font-size="14" font-weight="bold">'
                     f'{escape(one["mode"])}, {one["memory_mib"]} MiB: one run</text>')
        height = end + 44 + picture.HEIGHT
    rate = result["disk_bytes_per_s"] >> 20
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" '
        'font-family="DejaVu Sans, Verdana, sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        '<text x="62" y="21" font-size="14" font-weight="bold">Downtime of a database '
        'whose guest crashes, in seconds</text>',
        f'<text x="62" y="38" fill="#666666">Median; dots: runs. Disks of {rate} MiB/s. '
        'Emulation exaggerates the cost of mapping pages one by one:</text>',
        '<text x="62" y="53" fill="#666666">the ratio to restart is what carries over '
        'to hardware.</text>',
        *parts, timeline, "</svg>"]) + "\n"
