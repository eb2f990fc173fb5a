# SPDX-License-Identifier: LGPL-2.1-or-later
"""The story as it happens, one line an event, within 80 columns."""

import re
import textwrap
import threading
import time

PAGES_PER_MIB = 256
# After so long without a line, what is waited for is told.
QUIET_S = 8

# What to say for an event; {name} takes a field of its data.
TEXTS = {
    "dom0_ready": "dom0 is up, {free_mib} MiB free for guests",
    "create": "xl create ended with status {status}, {free_mib} MiB free",
    "domain_created": "domain {domid} created",
    "domain_unpaused": "domain {domid} runs, {tot_mib} of {max_mib} MiB behind it",
    "domain_shutdown": "domain {domid} shut down, reason {reason}",
    "domain_crashed": "domain {domid} crashed, {before_mib} MiB free before",
    "domain_gone": "domain {domid} gone, {free_mib} MiB free",
    "first_ack": "service acknowledges durable writes",
    "down": "service does not answer (write {number})",
    "up": "service is back after {down_s:.2f} s (write {number})",
    "verified": "{acked} writes acknowledged, {lost} lost",
    "free_min": "least free memory since the crash: {min_mib} MiB",
    "log": "vicover: {said}",
    "garbled": "unreadable event: {line}",
}

SAID_BEFORE = re.compile(r"^vicover: (\d{4}-\S+Z )?")

MIB_FIELDS = {
    "tot_pages": "tot_mib", "max_pages": "max_mib", "free_pages": "free_mib",
    "free_pages_before": "before_mib", "free_pages_min": "min_mib",
}


class Timeline:
    """Prints events relative to the crash, or to the start until there is one."""

    def __init__(self, write=print):
        self._write = write
        self._crash_s = None
        self._lock = threading.Lock()
        self._last_s = time.monotonic()

    def show(self, event) -> None:
        """A listener for Machine.on_event."""
        if event.name not in TEXTS or event.data.get("domid") == 0:
            return
        if event.name == "dom0_ready":
            # Of another boot: its clock begins anew.
            self._crash_s = None
        if event.name == "domain_crashed" and self._crash_s is None:
            self._crash_s = event.at_s
        data = dict(event.data)
        # The time beside it is the line's, too.
        data["said"] = SAID_BEFORE.sub("", data.get("line", ""))
        for pages, mib in MIB_FIELDS.items():
            if pages in data:
                data[mib] = data[pages] // PAGES_PER_MIB
        self.say(TEXTS[event.name].format(**data), event)

    def waiting(self, text: str) -> None:
        """A listener for Machine.on_idle."""
        if time.monotonic() - self._last_s >= QUIET_S:
            self.say(f"... {text}")

    def say(self, text: str, event=None) -> None:
        """A line of text, at an event's time or without a time."""
        if event is None:
            label = ""
        elif self._crash_s is None:
            label = f"start +{event.arrived_s:7.2f}"
        else:
            label = f"crash +{event.at_s - self._crash_s:7.2f}"
        lines = textwrap.wrap(text, 62) or [""]
        with self._lock:
            self._last_s = time.monotonic()
            for line in lines:
                self._write(f"{label:14}  {line}", flush=True)
                label = ""
