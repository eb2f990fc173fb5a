# SPDX-License-Identifier: LGPL-2.1-or-later
"""xl is killed while it handles a crash, at moments spread over the story."""

from .pieces import HostError
from .recovery_scenarios import complete_dumps, no_error
from .scenarios import (crash, full_memory, keep_told, recovered, scenario, settled, start, told)

# From a crash's first note to its end, here, or less on a busy machine: moments are
# spread over this.
STORY_MS = 11_000
# What a recovery domain leaves of its paging pool (host/xen/settle.rs), and a bit.
A_FEW_PAGES = 16 + 8
# So long a service may take that is started anew, by a machine that is busy.
BACK_S = 120


@scenario('on_crash="vicover"', 'vicover="dump_level=1,io=fixed:24M,max_dumps=0,max_crashes=0"')
def killed(host, run):
    """xl is killed as often as asked, each time at another moment of a crash, and the
    shipped service goes on: the guest is back without a person, every time."""
    start(host, run)
    host.step("resumer")
    count = run.options.count
    rows = run.result["rows"] = []
    first, number = None, 0
    while sum(row["killed"] for row in rows) < count:
        moment = STORY_MS * (2 * number + 1) // (2 * count) % STORY_MS
        crashed, row = kill_once(host, run, moment, first)
        first, number = first or crashed, number + 1
        rows.append(row)
        run.timeline.say(f"kill {number} of {count}: at {moment} ms, {row['entry']}: "
                         f"back after {row['down_s']:.1f} s")
        if number >= 2 * count:
            raise HostError(f"stories end before they should be killed: {rows}")
    no_page_is_lost(host)
    settled(host, run, crashed, 60)
    no_page_is_others(run)
    keep_told(host, run, first)
    no_error(host)
    full_memory(run)
    complete_dumps(run, number)


def no_page_is_lost(host) -> None:
    """A recovery domain may have a few pages less for paging than the guest had, and so
    leave more free. Its successor has them again: they do not add up."""
    free = [event.data["free_pages"] for event in host.events if event.name == "domain_crashed"]
    if max(free) > free[0] + A_FEW_PAGES:
        raise HostError(f"free pages when the guest crashed, crash by crash: {free}")


def no_page_is_others(run) -> None:
    """No recovery domain has had memory of the host's beside what was given back."""
    before, least = run.result["host_free_pages_before"], run.result["host_free_pages_min"]
    if least < before - A_FEW_PAGES:
        raise HostError(f"{least} pages were free at the least, {before} before")


def kill_once(host, run, moment_ms: int, first):
    """One crash whose handler is killed; the event that tells it, and what came of it."""
    host.step(f"kill_handler {moment_ms}")
    if first is None:
        crashed = crash(host, run)
    else:
        domid, last = run.result["recovery_domid"], host.events[-1]
        host.step("crash 0", 10)
        crashed = host.wait("domain_crashed", 60, "the guest did not crash", after=last,
                            where=lambda data: data["domid"] == domid)
    end = host.wait_any(("handler_killed", "handler_done"), 60 + moment_ms / 1000,
                        "nobody was killed", after=crashed)
    recovered(host, run, crashed, BACK_S)
    host.step("no_journal 120", 130)
    host.wait("domain_gone", 60, "the crashed domain is left", after=crashed,
              where=lambda data: data["domid"] == crashed.data["domid"])
    row = {"moment_ms": moment_ms, "killed": end.name == "handler_killed",
           "entry": end.data.get("entry", "over"), "down_s": run.result["service_down_s"]}
    if row["killed"]:
        resumed = told(host, "job resumed", 1, crashed)
        row["resumed_after_s"] = round(resumed.at_s - end.at_s, 3)
    return crashed, row
