# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes that are on their way to the disk when the guest crashes: IN-FLIGHT-DISK. None of
them may come to the disk once the recovery domain has read from it."""

from .fault_scenarios import BACK_S, over
from .pieces import HostError
from .recovery_scenarios import complete_dumps, handed_over
from .scenarios import crash, recovered, scenario, settled, start

WRITERS = 64
# How much longer each write takes: longer than a recovery domain takes to read.
SLOWER_MS = 10000
# How many writes are waited for. A backend has 32 requests of a disk at most; those of a
# file go through dom0's page cache, which has the rest.
LEAST = {"block": 16, "loop": 1, "qdisk": 1}
FIRST = '"phy:/dev/vhost-guest,xvda,w"'
# The guest's third disk.
DISKS = {
    "block": '"/dev/mapper/images,raw,xvdc,w"',
    "loop": '"/out/disks/third,raw,xvdc,w"',
    "qdisk": '"/out/disks/third,raw,xvdc,w,backendtype=qdisk"',
}


def overwritten(host) -> str:
    """What the disk has where the dead guest was writing."""
    last = host.events[-1]
    host.step("request 60 overwritten", 90)
    return host.wait("answer", 5, "the guest does not read its disk", after=last).data["line"]


def in_flight(host, run, disk: str) -> None:
    """A crash with writes on their way to a slow disk."""
    host.wait("dom0_ready", 180, "dom0 did not come up")
    host.step(f"third_disk {disk}", 60)
    start(host, run)
    # Before: writers of a fast disk would leave the guest's service no processor.
    host.step(f"slow_writes {SLOWER_MS}")
    host.step(f"request 60 overwrite {WRITERS}", 90)
    host.step(f"writes_on_their_way images {LEAST[disk]} 60", 90)
    crashed = crash(host, run)
    recovered(host, run, crashed, BACK_S)
    read = [overwritten(host)]
    handed_over(host, crashed)
    read.append(overwritten(host))
    over(host, crashed)
    read.append(overwritten(host))
    run.result["read"] = read
    if not read[0].startswith("ok ") or len(set(read)) != 1:
        raise HostError(f"the disk changed after recovery had read it: {read}")
    settled(host, run, crashed, 60)
    complete_dumps(run)


def story_of(disk: str):
    def story(host, run):
        in_flight(host, run, disk)

    story.__name__ = f"in_flight_{disk}"
    story.__doc__ = f"A crash with writes on their way to a slow disk of kind {disk}."
    return story


for _kind, _disk in DISKS.items():
    scenario('on_crash="vicover"', f"disk=[{FIRST}, {_disk}]")(story_of(_kind))
