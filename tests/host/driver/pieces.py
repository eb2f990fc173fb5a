# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the built pieces are (built first when they are not in the cache)."""

import dataclasses
import os
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent.parent
# lib/xen.sh knows which there are.
XEN = os.environ.get("XEN") or "4.17"


class HostError(Exception):
    """Something in the emulated host's story failed; the text says what."""


class EmulatorFault(HostError):
    """A fault of QEMU's ended the host, one whose cause is known: the run says nothing."""


@dataclasses.dataclass(frozen=True)
class Pieces:
    """Directories of the built pieces."""

    dom0: pathlib.Path
    guest: pathlib.Path
    tools: pathlib.Path
    # Whose disk.ext4 the guest gets, with files for dom0 that belong to it.
    disk: pathlib.Path


def build(disk: str = "guest") -> Pieces:
    """Build what is missing; `disk` names the piece that the guest's disk is from.

    Progress goes to standard error.
    """
    command = [HERE / "build", *dict.fromkeys(["dom0", "guest", "tools", disk])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise HostError("building the emulated host failed (see above)")
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    return Pieces(
        **{name: pathlib.Path(found[name]) for name in ("dom0", "guest", "tools")},
        disk=pathlib.Path(found[disk]),
    )
