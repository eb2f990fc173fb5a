# SPDX-License-Identifier: LGPL-2.1-or-later
"""The disk through which dom0 hands its files out: ext4, made and read here
without mounting, so without privileges and without copying in emulation."""

import os
import pathlib
import subprocess

from .pieces import HostError

SIZE_GIB = 16
ENVIRONMENT = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")


def create(image: pathlib.Path) -> None:
    """A sparse, empty file system."""
    options = ["-q", "-t", "ext4", "-m", "0", "-L", "out", "-E", "lazy_itable_init=1"]
    _run(["mke2fs", *options, str(image), f"{SIZE_GIB}G"])


def extract(image: pathlib.Path, into: pathlib.Path) -> None:
    """All files on it to the directory `into`, then the image is deleted."""
    # A host that was ended in the middle leaves a journal to replay; status 1
    # says that something was repaired.
    _run(["e2fsck", "-f", "-y", str(image)], accepted=(0, 1))
    _run(["debugfs", "-R", f"rdump / {into}", str(image)])
    (into / "lost+found").rmdir()
    image.unlink()


def _run(command: list, accepted: tuple = (0,)) -> None:
    done = subprocess.run(
        command, env=ENVIRONMENT, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    if done.returncode not in accepted:
        raise HostError(f"{command[0]} failed on {command[-1]}:\n{done.stdout}")
