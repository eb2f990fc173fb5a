# SPDX-License-Identifier: LGPL-2.1-or-later
"""How much of its limit a dump uses, as a picture.

  budget_picture.py RESULT.JSON OUT.SVG

A curve for each sweep of target/bench/budget.json: across, the limit as a part of a
dump without one; up, the part of the limit that was used. Where every page fitted, the
curve is grey."""

import json
import pathlib
import sys

from pacing_picture import page, text

LEFT, RIGHT, HEIGHT = 80, 860, 110
LOW = 0.9  # what is below is drawn there


def curve(sweep: dict, top: int, used_at_least: float) -> list:
    whole, bottom = sweep["whole_bytes"], top + HEIGHT
    across = lambda limit: LEFT + (RIGHT - LEFT) * limit / whole
    down = lambda used: bottom - HEIGHT * (max(used, LOW) - LOW) / (1 - LOW)
    dumps, missing = len(sweep["limits"]), len(sweep["missing"])
    parts = [text(LEFT, top - 26, f"{sweep['image']}, {sweep['options']}", font_weight="bold"),
             text(LEFT, top - 10, f"{whole / 2**20:.1f} MiB, {sweep['pages']} pages; {missing} "
                  f"of {dumps + missing} limits without a dump, {len(sweep['over'])} not kept "
                  f"to, {sweep['least_used']:.1%} used at least")]
    for used in (LOW, used_at_least, 1.0):
        colour = "#b8322a" if used == used_at_least else "#dddddd"
        y = down(used)
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                     f'stroke="{colour}"/>')
        parts.append(text(LEFT - 6, y + 4, f"{used:.0%}", text_anchor="end"))
    for tenth in range(0, 11, 2):
        parts.append(text(across(whole * tenth / 10), bottom + 15, f"{tenth / 10:.0%}",
                          text_anchor="middle"))
    for cut, colour in ((True, "#1a66a8"), (False, "#999999")):
        for one in sweep["limits"]:
            if (one["pages"] < sweep["pages"]) == cut:
                x = across(one["limit_bytes"])
                y = down(one["used"])
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.8" fill="{colour}"/>')
    for one in sweep["missing"]:
        x = across(one["limit_bytes"])
        parts.append(text(x, bottom - 2, "×", fill="#b8322a", text_anchor="middle"))
    return parts


def draw(result: dict) -> str:
    parts, top = [], 104
    for sweep in result["sweeps"]:
        parts += curve(sweep, top, result["used_at_least"])
        top += HEIGHT + 68
    return page(top, "How much of max_dump_size a dump uses",
                ["Across: the limit, as a part of a dump without one. Up: the part of it that "
                 "is used. Grey: nothing had to be left out."], parts)


if __name__ == "__main__":
    result = json.loads(pathlib.Path(sys.argv[1]).read_text())
    pathlib.Path(sys.argv[2]).write_text(draw(result))
