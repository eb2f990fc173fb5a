# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests of other shapes than the small one of most scenarios."""

from .pieces import HostError
from .recovery_scenarios import (complete_dumps, ends_well, figures_of, handed_over,
                                 no_more_memory)
from .scenarios import begin, crash, full_memory, recovered, scenario, start
from .xlcfg import FIRST_MAC, SECOND_MAC

# Files that dom0's step file_disks makes.
LOOP_DISKS = 'disk=["/out/disks/guest.img,raw,xvda,w", "/out/disks/second.img,raw,xvdb,r"]'
INTERFACES = f'vif=["mac={FIRST_MAC},bridge=xenbr0", "mac={SECOND_MAC},bridge=xenbr0"]'


@scenario('on_crash="vicover"', 'vicover="dump_level=16"', LOOP_DISKS, INTERFACES,
          vcpus=2, memory_mib=5120)
def two_of_each(host, run):
    """Two processors, of which the second panics, 5 GiB around the hole below 4 GiB,
    two disks of files, one of them read-only, and two interfaces."""
    host.wait("dom0_ready", 180, "dom0 did not come up")
    host.step("file_disks", 120)
    start(host, run, load=(64, 16, 64))
    crashed = crash(host, run, processor=1)
    recovered(host, run, crashed, 300)
    handed_over(host, crashed)
    domid = run.result["recovery_domid"]
    for number in range(2):
        host.step(f"hotplugged vif/{domid}/{number}", 5)
    modes = disk_modes(host, domid)
    if modes != {"xvda": "w", "xvdb": "r"}:
        raise HostError(f"recovery's disks are not the guest's: {modes}")
    if (online := figures_of(host, domid)["vcpus_online"]) != 2:
        raise HostError(f"recovery has {online} processors instead of 2")
    ends_well(host, run, crashed, crashed)
    full_memory(run)


def disk_modes(host, domid: int) -> dict:
    """The disks of a domain, by name: "r" or "w"."""
    last = host.events[-1]
    host.step(f"disk_modes {domid}", 5)
    listed = host.wait("disk_modes", 5, "dom0 does not tell the disks", after=last)
    return dict(line.split() for line in listed.data["list"])


@scenario('on_crash="vicover"', memory_mib=512)
def given_back(host, run):
    """A guest that has given a quarter of its memory back: after its crash it has as much
    as before, and the rest is others' all the time."""
    start(host, run, load=(64, 16, 64))
    host.step("give_back 384", 60)
    crashed = crash(host, run)
    recovered(host, run, crashed, 300)
    handed_over(host, crashed)
    no_more_memory(host, run, crashed, run.result["recovery_domid"])
    ends_well(host, run, crashed, crashed)


@scenario('on_crash="vicover"', "vif=[]", memory_mib=256)
def no_interface(host, run):
    """A guest without any interface: its console tells that it came back."""
    begin(host, run)
    host.step("follow_console")
    booted(host, 1, host.events[0])
    host.step("sysrq c")
    crashed = host.wait("domain_crashed", 20, "the guest did not crash")
    booted(host, 2, crashed)
    handed_over(host, crashed, 120)
    host.wait("domain_gone", 60, "the crashed domain did not go away", after=crashed)
    host.step("list")
    run.result["dumps"] = host.wait("domains", 1, "no list of domains").data["dumps"]
    complete_dumps(run)


def booted(host, number: int, after) -> None:
    """Waits until the guest says that it has booted so often from its disk."""
    host.wait("console", 120, f"the guest does not say that it booted (boot {number})",
              after=after, where=lambda data: f"guest: boot {number} of" in data["line"])
