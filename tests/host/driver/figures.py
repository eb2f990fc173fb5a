# SPDX-License-Identifier: LGPL-2.1-or-later
"""Figures as the library writes them for people (src/units.rs), as numbers again."""

import re

UNITS = {"bytes": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
SECONDS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600}

# One of each, in a line.
SIZE = r"[\d.]+ (?:bytes|[KMGT]iB)"
SPAN = r"[\d.]+ (?:ms|s|min|h)(?: \d+ (?:s|min)\b)?"


def size(text: str) -> int:
    """Bytes, to the two digits that were written."""
    number, unit = text.split()
    return round(float(number) * (1 << UNITS[unit]))


def seconds(text: str) -> float:
    """Seconds of "40 ms", "2.35 s" or "3 min 5 s"."""
    pairs = re.findall(r"([\d.]+) (\w+)", text)
    return round(sum(float(number) * SECONDS[unit] for number, unit in pairs), 3)
