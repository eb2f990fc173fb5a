# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dumps of a guest that goes on running afterwards: by xl vicover-dump, and by xl's
own dump-core, to compare with."""

import re

from .matrix_scenarios import KINDS
from .pieces import HostError
from .scenarios import crash, nothing_lost, scenario, start, told, verify
from .xlcfg import EVENTS

DIRECTORY = "/var/lib/xen/dump"
# Everything, uncompressed and slowly, so that there is time to look at it.
SLOW = f"{EVENTS},dump_level=0,compress=none,io=fixed:8M"


def uptime_s(host) -> int:
    """How long ago the guest's kernel booted, as it says itself."""
    last = host.events[-1]
    host.step("request 60 uptime", 90)
    answer = host.wait("answer", 5, "the guest does not tell its uptime", after=last)
    return int(answer.data["line"].split()[1])


def state_of(host) -> dict:
    """The guest's number and state in xl's list."""
    last = host.events[-1]
    host.step("state")
    return host.wait("state", 1, "xl list does not show the guest", after=last).data


def begin(host, arguments: str):
    """xl vicover-dump begins; the event before it."""
    last = host.events[-1]
    host.step(f"vicover_dump {arguments}")
    return last


def end(host, began, deadline_s: float) -> int:
    """xl vicover-dump's exit status."""
    host.step("wait_dump", deadline_s)
    return host.wait("dump_over", 1, "xl vicover-dump does not end", after=began).data["status"]


def says(host, pattern: str, deadline_s: float, after):
    """Waits for a line of xl vicover-dump; the match."""
    event = host.wait("dump", deadline_s, f"xl vicover-dump does not say '{pattern}'",
                      where=lambda data: re.search(pattern, data["line"]), after=after)
    return re.search(pattern, event.data["line"])


def runs_on(host, domid: int, uptime: int) -> int:
    """The guest is the same, is not paused and serves; its uptime."""
    state = state_of(host)
    if state["domid"] != domid or "p" in state["state"]:
        raise HostError(f"domain {domid} is not running any more: {state}")
    host.wait("acked", 60, "the service acknowledges no more writes", after=host.events[-1])
    now = uptime_s(host)
    if now < uptime:
        raise HostError(f"the guest was up for {uptime} s and is now for {now} s: it rebooted")
    return now


@scenario()
def live_dump(host, run):
    """A running guest is dumped, twice, the second time half; it never notices."""
    start(host, run)
    host.step("make_dump_directory")
    domid, uptime = state_of(host)["domid"], uptime_s(host)

    began = begin(host, f"-o {EVENTS} guest {DIRECTORY}/live.kdump")
    if status := end(host, began, 300):
        raise HostError(f"xl vicover-dump ended with status {status}")
    run.result["stood_ms"] = told(host, "job runs_again", 5, began).data["paused_ms"]
    dumped, total = says(host, r"live.kdump: (\d+) of (\d+) pages", 5, began).groups()
    run.result["pages_dumped"], run.result["pages_total"] = int(dumped), int(total)
    uptime = runs_on(host, domid, uptime)

    began = begin(host, f"-o {SLOW} guest {DIRECTORY}/half.kdump")
    host.wait("vicover", 300, "libvicover tells no progress", after=began,
              where=lambda data: 20 <= data.get("percent", 0) <= 70)
    if "p" not in state_of(host)["state"]:
        raise HostError("the guest runs while it is dumped")
    host.step("interrupt_dump")
    if not end(host, began, 60):
        raise HostError("xl vicover-dump was interrupted and says that all went well")
    says(host, "Interrupt: ending the dump", 5, began)
    incomplete = told(host, "dump incomplete", 5, began).data
    if incomplete["why"]["kind"] != "cancelled":
        raise HostError(f"the dump is incomplete for another reason: {incomplete}")
    says(host, r"half.kdump.incomplete is not complete", 5, began)
    uptime = runs_on(host, domid, uptime)

    began = begin(host, f"guest {DIRECTORY}/live.kdump")
    if not end(host, began, 60):
        raise HostError("xl vicover-dump replaced a file")
    says(host, r"live.kdump: File exists", 5, began)
    run.result["uptime_s"] = runs_on(host, domid, uptime)

    verified = verify(host, run)
    host.step("list")
    dumps = host.wait("domains", 1, "no list of dumps").data["dumps"]
    run.result["dumps"] = dumps
    nothing_lost(verified)
    if sorted(line.split()[0] for line in dumps) != [
            "half.kdump.incomplete", "live.kdump", "live.kdump.sums"]:
        raise HostError(f"not the dumps that should be there: {dumps}")


# Dump levels that are compared with makedumpfile's.
LEVELS = (1, 16, 17, 31)


def levels_of(host, run):
    """A dead guest is dumped again and again: all of it, and at each level."""
    start(host, run)
    host.step("make_dump_directory")
    crashed = crash(host, run)
    wanted = {"all.elf": "dump_level=0,format=elf",
              **{f"{level}.kdump": f"dump_level={level}" for level in LEVELS}}
    for name, options in wanted.items():
        began = begin(host, f"-o {EVENTS},{options} guest {DIRECTORY}/{name}")
        if status := end(host, began, 300):
            raise HostError(f"{name}: xl vicover-dump ended with status {status}")
    run.result["crashed_domid"] = crashed.data["domid"]


for _kind, _keys in KINDS.items():
    def _story(host, run):
        levels_of(host, run)
    _story.__name__ = f"levels_{_kind}"
    _story.__doc__ = f"A dead guest of kind {_kind} is dumped at every level."
    scenario('on_crash="preserve"', *_keys)(_story)


def timed(host, run, command: str) -> None:
    """The figures of one dump on a fresh host."""
    start(host, run)
    host.step("make_dump_directory")
    domid, uptime = state_of(host)["domid"], uptime_s(host)
    host.step(f"timed {command}", 7200)
    done = host.wait("timed", 1, "no figures of xl").data
    run.result["dump_seconds"], run.result["said"] = done["seconds"], done["output"]
    runs_on(host, domid, uptime)
    host.step("list")
    run.result["dumps"] = host.wait("domains", 1, "no list of dumps").data["dumps"]


@scenario()
def dump_core(host, run):
    """The time that xl dump-core takes."""
    timed(host, run, f"dump-core guest {DIRECTORY}/guest.core")


@scenario()
def dump_vicover_all(host, run):
    """The time that xl vicover-dump takes for the same pages, uncompressed."""
    timed(host, run, f"-v vicover-dump -o dump_level=0,compress=none guest {DIRECTORY}/guest.kdump")


@scenario()
def dump_vicover(host, run):
    """The time that xl vicover-dump takes as it is."""
    timed(host, run, f"-v vicover-dump guest {DIRECTORY}/guest.kdump")
