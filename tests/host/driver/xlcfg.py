"""The guest's xl.cfg."""

import re

DISK = "/dev/vhost-guest"


def guest_config(options, network) -> str:
    """The configuration's text.

    `options.xlcfg` holds KEY=VALUE pairs that replace or add to the base; a
    value that is no number, list or quoted text gets quotes.
    """
    arguments = f"console=hvc0 quiet vhost.address={network.guest}/24"
    keys = {
        "name": '"guest"',
        "type": '"pvh"',
        "memory": str(options.memory),
        "vcpus": str(options.vcpus),
        "kernel": '"/guest/vmlinux"',
        "ramdisk": '"/guest/initrd"',
        "cmdline": f'"{arguments}"',
        "disk": f'["phy:{DISK},xvda,w"]',
        "vif": f'["mac={network.guest_mac},bridge=xenbr0"]',
        # Without it the emulated processor's RDTSCP exits end the guest.
        "tsc_mode": '"native"',
    }
    for pair in options.xlcfg:
        key, value = pair.split("=", 1)
        if not re.fullmatch(r"""\d+|\[.*\]|".*"|'.*'""", value.strip(), re.DOTALL):
            value = f'"{value}"'
        keys[key.strip()] = value.strip()
    return "".join(f"{key} = {value}\n" for key, value in keys.items())
