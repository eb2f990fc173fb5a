# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests beside which libxl starts a QEMU."""

from .fault_scenarios import BACK_S, crash_stalled, dump_ended, over
from .pieces import HostError
from .recovery_scenarios import complete_dumps, handed_over, no_more_memory
from .scenarios import (crash, full_memory, keep_told, recovered, scenario, settled, start,
                        told)
from .shape_scenarios import disk_modes

# Files that dom0's step qemu_disks makes. QEMU 7.2 gives no guest a disk that can only be
# read: "realization of device xen-disk failed: Block node is read-only".
QEMU_DISKS = ('disk=["/out/disks/guest.qcow2,qcow2,xvda,w", '
              '"/out/disks/second.img,raw,xvdb,w,backendtype=qdisk"]')


@scenario('on_crash="vicover"', QEMU_DISKS)
def qemu_disks(host, run):
    """Disks that QEMU serves, one in a format that only QEMU knows. The dead guest's QEMU
    ends, and recovery gets them; when it cannot end, because what it has to write does
    not, nobody gets them: the dump, then xl's restart."""
    host.wait("dom0_ready", 180, "dom0 did not come up")
    host.step("qemu_disks", 120)
    start(host, run)
    modes = disk_modes(host, 1)
    if modes != {"xvda": "w", "xvdb": "w"}:
        raise HostError(f"the guest's disks are not as configured: {modes}")
    first = crash(host, run)
    recovered(host, run, first, BACK_S)
    handed_over(host, first)
    over(host, first)
    again = disk_modes(host, run.result["recovery_domid"])
    if again != modes:
        raise HostError(f"recovery's disks are not the guest's: {again}")
    crashed, run.result["why"] = crash_stalled(host, run, "images")
    recovered(host, run, crashed, BACK_S)
    dump_ended(host, crashed)
    over(host, crashed)
    settled(host, run, crashed, 60)
    keep_told(host, run, first)
    complete_dumps(run, 2)
    full_memory(run)


# A device model with a screen at an address of its own.
DEVICE_MODEL = ('type="hvm"', "vnc=1", "vncunused=0", "vncdisplay=7")


# Without xen_legacy_crash on its command line Linux resets the machine when it panics, so
# that Xen knows of a restart only.
@scenario('on_crash="vicover"', 'on_reboot="vicover"', *DEVICE_MODEL)
def hvm(host, run):
    """A guest with a device model. A panic comes as a restart: the dump and the recovery at
    once, after the dead guest's QEMU has ended. A restart that is one is only that."""
    start(host, run)
    crashed = crash(host, run)
    recovered(host, run, crashed, 300)
    handed_over(host, crashed)
    told(host, "guest panicked", 1, crashed)
    over(host, crashed)
    no_more_memory(host, run, crashed, run.result["recovery_domid"])
    host.step("sysrq b")
    restarted = host.wait("domain_crashed", 20, "the guest did not restart", after=crashed)
    recovered(host, run, restarted, 300)
    settled(host, run, restarted, 60)
    keep_told(host, run, crashed)
    complete_dumps(run)
