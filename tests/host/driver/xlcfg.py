# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guest's xl.cfg."""

import re

from . import processors

DISK = "/dev/vhost-guest"
FIRST_MAC = "00:16:3e:77:00:02"
# Debian's, and the one that lib/quick-calibration makes of it.
KERNELS = {False: "vmlinux", True: "vmlinux-quick"}
SECOND_MAC = "00:16:3e:77:00:03"
# Where dom0's step follow_log listens.
EVENTS = "events=/run/vicover.events"


def spec(options) -> str:
    """The guest's vicover options: those of the last pair that has any."""
    given = [pair.partition("=")[2] for pair in options.xlcfg if pair.startswith("vicover=")]
    return ",".join([*(text.strip('"') for text in given[-1:]), EVENTS])


def guest_config(options, network) -> str:
    """The configuration's text; of another toolstack than our xl it has no word that
    only our xl knows.

    `options.xlcfg` holds KEY=VALUE pairs that replace or add to the base; a
    value that is no number, list or quoted text gets quotes.
    """
    keys = {
        "name": '"guest"',
        "type": '"pvh"',
        "memory": str(options.memory),
        "vcpus": str(options.vcpus),
        "cpus": f'"{processors.of_guests(options.vcpus)}"',
        "kernel": f'"/guest/{KERNELS[options.quick_kernel]}"',
        "ramdisk": '"/guest/initrd"',
        "cmdline": '"console=hvc0 quiet"',
        "disk": f'["phy:{DISK},xvda,w"]',
        "vif": f'["mac={network.guest_mac},bridge=xenbr0"]',
        # Without it the emulated processor's RDTSCP exits end the guest.
        "tsc_mode": '"native"',
    }
    if 'type="hvm"' in options.xlcfg:
        keys |= {"kernel": '"/guest/vmlinuz"', "ramdisk": '"/guest/initrd.gz"'}
    for pair in options.xlcfg:
        key, value = pair.split("=", 1)
        if "vicover" in pair and options.toolstack != "xl":
            continue
        if "vicover" in pair:
            keys["vicover"] = f'"{spec(options)}"'
        if key == "vicover":
            continue
        if not re.fullmatch(r"""\d+|\[.*\]|".*"|'.*'""", value.strip(), re.DOTALL):
            value = f'"{value}"'
        keys[key.strip()] = value.strip()
    if options.vcpus > 1 and 'type="pv"' not in options.xlcfg:
        keys["cmdline"] = f'{keys["cmdline"][:-1]} {processors.ONE_AT_FIRST}"'
    if keys["vif"] != "[]":
        keys["cmdline"] = f'{keys["cmdline"][:-1]} vhost.address={network.guest}/24"'
    return "".join(f"{key} = {value}\n" for key, value in keys.items())
