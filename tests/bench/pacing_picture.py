# SPDX-License-Identifier: LGPL-2.1-or-later
"""The comparisons of disk I/O policies as pictures.

  pacing_picture.py RESULT.JSON OUT.SVG      of the model's thousands of scenarios

Curves: for each policy, in what part of the scenarios the time is at most so many
times that under the best fixed rate. Maps: the worst such ratio of `adaptive` by
the guest's memory and the disk's speed, for each load."""

import json
import math
import pathlib
import sys

WIDTH = 900
COLOURS = {"adaptive": "#1a66a8", "recovery-first": "#3c8d54", "share:50": "#8a6bb0",
           "unlimited": "#c05a1a", "slow": "#999999", "fast": "#444444"}
NAMES = {"slow": "fixed: 1 % of the disk", "fast": "fixed: half of the disk"}
FIGURES = (("downtime_s", "best_fixed_downtime", "until the service answers"),
           ("full_service_s", "best_fixed", "until its first work is done"))
MOST = 3.0  # where the curves end
LOADS = (("reads", "reads much"), ("memory", "wants memory"), ("both", "both"))


def text(x, y, content, **more) -> str:
    style = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{style}>{content}</text>'


def page(height: int, title: str, notes: list, parts: list) -> str:
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" '
        'font-family="DejaVu Sans, Verdana, sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        text(40, 24, title, font_size=14, font_weight="bold"),
    ]
    head += [text(40, 42 + 15 * row, note, fill="#666666") for row, note in enumerate(notes)]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def figures_of(one: dict, policy: str) -> dict:
    """Of a policy by its name, or of a fixed rate by its part of the disk."""
    if policy in NAMES:
        part = 0.01 if policy == "slow" else 0.5
        policy = f"fixed:{int(part * one['parameters']['disk_bytes_per_s'])}"
    return one["policies"][policy]


def ratios(scenarios: list, policy: str, name: str, best: str) -> list:
    return sorted(figures_of(one, policy)[name] / one["policies"][one[best]][name]
                  for one in scenarios)


def curves(scenarios: list, left: int, name: str, best: str, title: str) -> list:
    top, bottom, right = 110, 350, left + 370
    across = lambda ratio: left + (right - left) * math.log(ratio / 0.9) / math.log(MOST / 0.9)
    # The best part of the axis is its end: parts that are not as good.
    down = lambda part: bottom - (bottom - top) * max(0.0, part - 0.5) / 0.5
    parts = [text(left, top - 14, title, font_weight="bold")]
    for ratio in (1.0, 1.1, 1.3, 2.0, 3.0):
        x = across(ratio)
        colour = "#b8322a" if ratio in (1.1, 1.3) else "#dddddd"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" '
                     f'stroke="{colour}" stroke-width="{0.8 if ratio in (1.1, 1.3) else 1}"/>')
        parts.append(text(x, bottom + 15, f"{ratio:g}", text_anchor="middle"))
    for part in (0.5, 0.75, 0.9, 0.95, 1.0):
        y = down(part)
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" '
                     'stroke="#eeeeee"/>')
        parts.append(text(left - 5, y + 4, f"{part:.0%}", text_anchor="end"))
    for policy, colour in reversed(COLOURS.items()):
        all_ratios = ratios(scenarios, policy, name, best)
        points, count = [], len(all_ratios)
        for step in range(241):
            ratio = 0.9 * (MOST / 0.9) ** (step / 240)
            part = sum(one <= ratio for one in all_ratios) / count
            points.append(f"{across(ratio):.1f},{down(part):.1f}")
        width = 2.4 if policy == "adaptive" else 1.3
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" '
                     f'stroke-width="{width}"/>')
    parts.append(text((left + right) / 2, bottom + 31, "times the best fixed rate's",
                      text_anchor="middle"))
    return parts


def legend(y: int) -> list:
    parts, x = [], 60
    for policy, colour in COLOURS.items():
        name = NAMES.get(policy, policy)
        parts.append(f'<rect x="{x}" y="{y - 9}" width="18" height="4" fill="{colour}"/>')
        parts.append(text(x + 23, y - 3, name))
        x += 45 + 6.6 * len(name)
    return parts


def shade(ratio: float) -> str:
    """White where it is as good as the best, darker up to 1.3."""
    part = min(1.0, max(0.0, (ratio - 1.0) / 0.3))
    low, high = (255, 255, 255), (184, 50, 42)
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(low, high))


def size(number: float, units: tuple, step: int) -> str:
    index = 0
    while number >= step and index < len(units) - 1:
        number, index = number / step, index + 1
    return f"{number:g} {units[index]}"


def maps(scenarios: list, top: int) -> list:
    parts, cell, height = [], 30, 17
    for column, (load, name) in enumerate(LOADS):
        left = 92 + column * 275
        worst = {}
        for one in scenarios:
            parameters = one["parameters"]
            if parameters["load"] != load:
                continue
            key = (parameters["memory_bytes"], parameters["disk_bytes_per_s"])
            ratio = max(one["policies"]["adaptive"][figure] / one["policies"][one[best]][figure]
                        for figure, best, _ in FIGURES)
            worst[key] = max(worst.get(key, 0.0), ratio)
        memories = sorted({memory for memory, _ in worst}, reverse=True)
        disks = sorted({disk for _, disk in worst})
        parts.append(text(left, top - 8, f"recovery {name}" if load != "both" else
                          "recovery does both", font_weight="bold"))
        for row, memory in enumerate(memories):
            y = top + row * height
            if column == 0:
                label = size(memory / 2**30, ("GiB", "TiB"), 1024)
                parts.append(text(left - 6, y + 13, label, text_anchor="end"))
            for place, disk in enumerate(disks):
                ratio = worst[memory, disk]
                x = left + place * cell
                parts.append(f'<rect x="{x}" y="{y}" width="{cell}" height="{height}" '
                             f'fill="{shade(ratio)}" stroke="#dddddd"/>')
                parts.append(text(x + cell / 2, y + 12.5, f"{ratio:.2f}", font_size=9,
                                  text_anchor="middle"))
        for place, disk in enumerate(disks):
            label = f"{disk / 1e6:g}" if disk < 1e9 else f"{disk / 1e9:g}G"
            parts.append(text(left + (place + 0.5) * cell, top + len(memories) * height + 14,
                              label, font_size=9, text_anchor="middle"))
        parts.append(text(left + len(disks) * cell / 2, top + len(memories) * height + 29,
                          "disk, MB/s", text_anchor="middle"))
    return parts


def draw(result: dict) -> str:
    """The picture of the model's scenarios."""
    scenarios = result["scenarios"]
    parts = []
    for left, (name, best, title) in zip((70, 500), FIGURES):
        parts += curves(scenarios, left, name, best, f"Time {title}")
    parts += legend(412)
    parts.append(text(40, 446, "The worst ratio of adaptive in each field, of both times",
                      font_size=12, font_weight="bold"))
    parts += maps(scenarios, 480)
    return page(716, "The dump's pace by policy, against the best fixed rate of each scenario",
                [f"{len(scenarios)} scenarios of a model of one disk. Part of the scenarios "
                 "(from half up) in which a policy takes at most",
                 "so many times as long. Red: 1.1 and 1.3, within which adaptive has to be "
                 "in 95 % of them, and in all."],
                parts)


def draw_host(result: dict) -> str:
    """Bars by load and policy: until the service answers, and until full service."""
    parts, y = [], 84
    scenarios = [one for one in result["scenarios"] if one["policies"]]
    longest = max((figures["full_service_s"] for one in scenarios
                   for figures in one["policies"].values()), default=1.0)
    left, right = 190, 820
    for one in scenarios:
        load = dict(LOADS)[one["parameters"]["load"]]
        parts.append(text(40, y + 4, f"recovery {load}" if load != "both" else
                          "recovery does both", font_weight="bold"))
        y += 14
        for policy, figures in one["policies"].items():
            colour = COLOURS.get(policy, "#999999")
            ends = [left + (right - left) * figures[name] / longest
                    for name in ("downtime_s", "full_service_s")]
            parts.append(text(left - 8, y + 12, policy, text_anchor="end"))
            parts.append(f'<rect x="{left}" y="{y}" width="{ends[1] - left:.1f}" height="15" '
                         f'fill="{colour}" fill-opacity="0.45"/>')
            parts.append(f'<rect x="{left}" y="{y}" width="{ends[0] - left:.1f}" height="15" '
                         f'fill="{colour}"/>')
            parts.append(text(ends[1] + 6, y + 12,
                              f"{figures['downtime_s']:.1f}, {figures['full_service_s']:.1f} s"))
            y += 20
        y += 16
    return page(y + 6, "The dump's pace by policy, on the emulated host",
                ["Seconds from the crash: dark, until the service answers; light, until the "
                 "guest has done its first work.",
                 "Dump and recovery share one disk. Medians."], parts)


def main() -> int:
    result = json.loads(pathlib.Path(sys.argv[1]).read_text())
    pathlib.Path(sys.argv[2]).write_text(draw(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
