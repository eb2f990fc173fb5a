# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long a database is away when its guest crashes, by what xl does then."""

from .pieces import HostError
from .recovery_scenarios import STANDBY_MIB
from .scenarios import crash, is_told, recovered, scenario, settled, start, told

ON_DISK = "postgres"
DUMP_DEADLINE_S = 5400  # xl's own dump of a PVH guest takes that long here


def used(host) -> float:
    """The share of the guest's memory that is in use, as its kernel says."""
    last = host.events[-1]
    host.step("request 30 memory", 60)
    answer = host.wait("answer", 5, "the guest does not tell its memory", after=last)
    _, total, free = answer.data["line"].split()
    return 1 - int(free) / int(total)


def story(host, run, deadline_s: float, dumps: bool, ready: str = "", ends: tuple = ()) -> None:
    """From the database's first transaction to a host that is at rest again.

    What libvicover tells: `ready` before the crash, `ends` when all is done.
    """
    quarter = run.options.memory // 4
    start(host, run, client="database_client", load=(quarter, 0, quarter))
    if dumps:
        host.step("make_dump_directory")
    if ready:
        told(host, ready, 300)
    share = run.result["guest_memory_used"] = round(used(host), 3)
    if share < 0.5:
        raise HostError(f"only {share:.0%} of the guest's memory is in use")
    crashed = crash(host, run)
    try:
        recovered(host, run, crashed, deadline_s)
        for text in ends:
            told(host, text, 900, crashed)
        settled(host, run, crashed, DUMP_DEADLINE_S)
    finally:
        # What was said by then explains a run that failed, too.
        run.result["log"] = [
            [round(event.at_s - crashed.at_s, 3), event.data["line"]]
            for event in host.events if event.name in ("log", "xl")
        ]
        run.result["dump_done_s"] = next(
            (round(event.at_s - crashed.at_s, 3) for event in host.events
             if event.at_s > crashed.at_s and dump_is_done(event)), None)
    if dumps and not run.result["dumps"]:
        raise HostError("there is no dump")


def dump_is_done(event) -> bool:
    """Whether libvicover, or xl of its own dump, tells that a dump is written."""
    return is_told(event, "dump complete") or (
        event.name == "xl" and "needs to be cleaned up" in event.data["line"])


@scenario('on_crash="restart"', disk=ON_DISK)
def downtime_restart(host, run):
    """A database's downtime with xl's own restart."""
    story(host, run, 300, dumps=False)


@scenario('on_crash="coredump-restart"', disk=ON_DISK)
def downtime_coredump_restart(host, run):
    """A database's downtime with xl's own dump, then its restart."""
    story(host, run, DUMP_DEADLINE_S, dumps=True)


@scenario('on_crash="vicover"', disk=ON_DISK)
def downtime_vicover(host, run):
    """A database's downtime with the dump and the recovery at once."""
    story(host, run, 600, dumps=True, ends=("recovery settled", "dump complete"))


@scenario('on_crash="vicover"', 'vicover="standby=booted"', disk=ON_DISK, slack_mib=STANDBY_MIB)
def downtime_vicover_standby(host, run):
    """The same with a standby that waits for its disk."""
    story(host, run, 600, dumps=True, ready="standby ready",
          ends=("recovery settled", "dump complete", "standby ready"))
