# SPDX-License-Identifier: LGPL-2.1-or-later
"""How sound the emulation itself is: guests that boot in a row, beside a program that
provokes the race that processors.py is about."""

import itertools
import typing

from .pieces import HostError
from .scenarios import scenario
from .xlcfg import DISK

GUEST_MIB = 192
# Populated on demand, as a recovery domain is: so much behind it at its start.
THIN_MIB, THIN_OF_MIB = 160, 512
BOOT_DEADLINE_S = 120


class Shape(typing.NamedTuple):
    """How a guest of the row is made."""

    thin: bool
    vcpus: int


ROW = (Shape(False, 1), Shape(True, 1), Shape(False, 2), Shape(True, 2), Shape(True, 1))


# Hotplug scripts of xl's own take as long as the boot.
DISK_AT_ONCE = (f'disk=["format=raw,vdev=xvda,access=w,script=/usr/lib/vhost/block-at-once,'
                f'target={DISK}"]')


@scenario("vif=[]", DISK_AT_ONCE, vcpus=2, memory_mib=THIN_OF_MIB)
def boots(host, run):
    """Guests boot one after the other, each until it has its disk and says so."""
    host.wait("dom0_ready", 180, "dom0 did not come up")
    host.step("watch")
    host.step("load_fpu")
    host.step("follow_console")
    rows = run.result["rows"] = []
    for number, shape in zip(range(run.options.count), itertools.cycle(ROW)):
        rows.append(boot(host, shape, number + 1))
        if (number + 1) % 10 == 0:
            run.timeline.say(f"{number + 1} of {run.options.count} guests booted, "
                             f"{host.triple_faults()} triple faults")
    failed = [row for row in rows if row["end"] != "booted"]
    if failed:
        raise HostError(f"{len(failed)} of {len(rows)} boots failed: {failed[:5]}")


def boot(host, shape: Shape, number: int) -> dict:
    """The guest that is the disk's `number`th, from its creation to its end; what came
    of it."""
    before = host.events[-1]
    memory, most = (THIN_MIB, THIN_OF_MIB) if shape.thin else (GUEST_MIB, GUEST_MIB)
    host.step(f"boot {memory} {most} {shape.vcpus}", 180)
    began = host.wait("domain_created", 1, "no domain was created", after=before,
                      where=lambda data: data["domid"] != 0)
    end = host.wait_any(
        ("console", "domain_shutdown", "domain_crashed"), BOOT_DEADLINE_S,
        "the guest neither booted nor died", after=began,
        where=lambda data: "line" not in data or f"guest: boot {number} of" in data["line"],
    )
    host.step("destroy", 60)
    host.wait("domain_gone", 60, "the guest did not go away", after=end,
              where=lambda data: data["domid"] == began.data["domid"])
    return {"thin": shape.thin, "vcpus": shape.vcpus,
            "seconds": round(end.at_s - began.at_s, 2),
            "end": "booted" if end.name == "console" else end.name}
