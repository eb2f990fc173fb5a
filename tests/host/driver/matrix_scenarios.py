# SPDX-License-Identifier: LGPL-2.1-or-later
"""A crash of every kind of guest on every kind of disk: KIND-DISK, as PVH-QCOW2."""

from .pieces import HostError
from .qemu_scenarios import DEVICE_MODEL
from .recovery_scenarios import ends_well, figures_of, handed_over, no_more_memory
from .scenarios import crash, recovered, scenario, start

KINDS = {
    "pvh": (),
    "pv": ('type="pv"',),
    # So that a panic is one for toolstacks, too, that do not look for one.
    "hvm": (*DEVICE_MODEL, 'cmdline="console=hvc0 quiet xen_legacy_crash"'),
}
# As the guest's configuration names them; of files, those that dom0's step disk_file makes.
DISKS = {
    "block": (),
    "loop": ('disk=["/out/disks/guest,raw,xvda,w"]',),
    "qdisk": ('disk=["/out/disks/guest,raw,xvda,w,backendtype=qdisk"]',),
    "qcow2": ('disk=["/out/disks/guest,qcow2,xvda,w"]',),
}


def crash_of(disk: str):
    """A crash on the last processor of a guest with such a disk."""

    def story(host, run):
        host.wait("dom0_ready", 180, "dom0 did not come up")
        if disk != "block":
            host.step(f"disk_file {'qcow2' if disk == 'qcow2' else 'raw'}", 120)
        start(host, run)
        crashed = crash(host, run, processor=run.options.vcpus - 1)
        recovered(host, run, crashed, 300)
        handed_over(host, crashed)
        domid = run.result["recovery_domid"]
        if (online := figures_of(host, domid)["vcpus_online"]) != run.options.vcpus:
            raise HostError(f"recovery has {online} processors, the guest {run.options.vcpus}")
        no_more_memory(host, run, crashed, domid)
        ends_well(host, run, crashed, crashed)
        run.result.update(vcpus=run.options.vcpus, memory_mib=run.options.memory)

    return story


for _kind, _keys in KINDS.items():
    for _disk, _more in DISKS.items():
        _story = crash_of(_disk)
        _story.__name__ = f"{_kind}_{_disk}"
        _story.__doc__ = f"A crash of a guest of kind {_kind} on a disk of kind {_disk}."
        scenario('on_crash="vicover"', *_keys, *_more)(_story)
