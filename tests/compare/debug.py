# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's debug information of its kernels, and what crash finds in a dump with it."""

import os
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "images"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vicover/images"
# What crash is asked, and what its answer must have in it to be one.
CRASH_ASKED = {"log": "sysrq triggered crash", "ps": "swapper/0", "mod": "ext4",
               "bt": "sysrq_handle_crash"}


def output_of(*command) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def host_packages(release: str, directory: str, package: str):
    """Fetches a package from where the emulated host has its own: updates included."""
    subprocess.run([HERE.parent / "host/private-apt", "only", directory, package], check=True,
                   env=os.environ | {"VICOVER_APT_RELEASE": release})


def image_packages(release: str, directory: str, package: str):
    """Fetches a package from where images of guests have theirs: releases without updates."""
    subprocess.run([IMAGES / "packages", release, directory, package], check=True)


def vmlinux_of(release: str, kernel: str, version: str, fetch=image_packages) -> Path:
    """The debug information of a kernel of a release of Debian's: 1 GB to download, of
    which only vmlinux is kept, in the cache."""
    vmlinux = CACHE / f"vmlinux-{kernel}-{version}"
    if not vmlinux.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="vmlinux-building.") as work:
            fetch(release, work, f"linux-image-{kernel}-dbg={version}")
            unpack(Path(work), kernel).rename(vmlinux)
    return vmlinux


def unpack(work: Path, kernel: str) -> Path:
    """Takes vmlinux out of the package: the paths to it are one file and links."""
    (deb,) = work.glob("*.deb")
    paths = [f"boot/vmlinux-{kernel}", f"lib/modules/{kernel}/vmlinux"]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as files:
        subprocess.run(["tar", "-x", "-C", work, *(f"./usr/lib/debug/{path}" for path in paths)],
                       stdin=files.stdout, check=True)
    return (work / "usr/lib/debug" / paths[0]).resolve(strict=True)


def crash_facts(crash: list, dump: str, vmlinux: Path, directory: Path) -> dict:
    """What crash answers, in lines, or a text that says that it does not. A crash that
    does not know how a kernel lists its modules ends before it answers anything
    (9.0.2 with Linux 7.2: kernel.c, module_init() wants module.num_gpl_syms, which
    that kernel does not have); then it is asked for all but the modules."""
    said = ask_crash(crash, dump, vmlinux, directory)
    asked = dict(CRASH_ASKED)
    if "FUNCTION: module_init()" in said:
        del asked["mod"]
        print("    crash does not know how this kernel lists its modules: without them")
        said = ask_crash([*crash, "--no_modules"], dump, vmlinux, directory)
    found = {}
    for name, needed in asked.items():
        answer = directory / name
        lines = answer.read_text(errors="replace").splitlines() if answer.exists() else []
        there = any(needed in line for line in lines)
        found[f"crash {name}"] = lines if there else f"no {needed} in it: {said[-200:]}"
    return found


def ask_crash(crash: list, dump: str, vmlinux: Path, directory: Path) -> str:
    """Runs crash with all that it is asked, into files of these names; what it prints."""
    commands = directory / "commands"
    commands.write_text("".join(f"{name} > {directory}/{name}\n" for name in CRASH_ASKED)
                        + "exit\n")
    done = subprocess.run([*crash, "-s", "-i", commands, vmlinux, dump], text=True, check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return done.stdout
