# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs of scenarios, from a fresh host to their results on disk. Several share a host,
one after the other, each with a guest and a disk of its own."""

import argparse
import dataclasses
import json
import pathlib
import shutil
import time

from . import machine, pieces, scenarios
from .timeline import Timeline

# One more where a fault of QEMU's, that is known, ended the host.
ATTEMPTS = 2


def go(options) -> list:
    """Runs the scenarios of `options.scenario`; their runs.

    A run that a known fault of QEMU's ended is repeated once, on a fresh host; those
    that come after one that went wrong get a fresh host, too.
    """
    directory = pathlib.Path(options.out).resolve()
    check_empty(directory)
    names = options.scenario
    is_shared = len(names) > 1
    runs = [Run(options, name, directory / name if is_shared else directory)
            for name in names]
    left, hosts = runs, 0
    while left:
        hosts += 1
        left = on_one_host(left, directory / f"host-{hosts}" if is_shared else directory)
    return runs


def check_empty(directory: pathlib.Path) -> None:
    """A run's files never mix with an older run's."""
    if directory.exists() and any(directory.iterdir()):
        raise pieces.HostError(f"{directory} is not empty: "
                               "give --out a directory of its own")


def on_one_host(runs: list, directory: pathlib.Path) -> list:
    """Tells stories on a fresh host, until one goes wrong; the runs that are left."""
    directory.mkdir(parents=True, exist_ok=True)
    if len({run.scenario.disk for run in runs}) > 1:
        raise pieces.HostError("these scenarios need other disks: they share no host")
    built = pieces.build(runs[0].scenario.disk)
    host = machine.Machine(built, host_options(runs), {run.name: run.options for run in runs},
                           directory)
    run, told = runs[0], 0
    try:
        run.begin(host)
        with host:
            for run in runs:
                if told:
                    run.begin(host)
                told += 1
                run.tell(host, is_next=told > 1, is_shared=directory != run.directory)
                run.write(host)
                if not run.result["ok"]:
                    break
            run.end(host, directory)
    except pieces.EmulatorFault as fault:
        run.says_nothing(fault, host, directory)
        told -= run.attempts < ATTEMPTS
    finally:
        run.write(host)
    put_files(runs, directory)
    return runs[told:]


def host_options(runs: list) -> argparse.Namespace:
    """What a host must have for all of these."""
    options = argparse.Namespace(**vars(runs[0].options))
    for name in ("memory", "slack", "vcpus"):
        setattr(options, name, max(getattr(run.options, name) for run in runs))
    return options


def put_files(runs: list, directory: pathlib.Path) -> None:
    """The files of a story that shared its host get to its own directory; of one that
    went wrong they stay where the host's are."""
    for run in runs:
        kept = directory / "stories" / run.name
        if kept.is_dir():
            shutil.copytree(kept, run.directory, dirs_exist_ok=True)
    shutil.rmtree(directory / "stories", ignore_errors=True)


class Run:
    """A story: its options, figures so far, and the directory that its files go to."""

    def __init__(self, options, name: str, directory: pathlib.Path):
        self.name, self.directory = name, directory
        self.scenario = scenarios.SCENARIOS[name]
        self.options = argparse.Namespace(**vars(options))
        self.options.xlcfg = [*self.scenario.xlcfg, *options.xlcfg]
        self.options.slack = max(options.slack, self.scenario.slack_mib)
        self.options.toolstack = options.toolstack or self._toolstack()
        self.options.vcpus = self.scenario.vcpus or options.vcpus
        self.options.memory = self.scenario.memory_mib or options.memory
        self.attempts, self._begun_s = 0, 0.0
        self.result = {}
        self.timeline = Timeline()

    def _toolstack(self) -> str:
        overlay = self.options.overlay
        ours = overlay and (overlay / f"usr/lib/xen-{pieces.XEN}/bin/xl").exists()
        return "xl" if ours or not overlay else "example"

    def begin(self, host) -> None:
        """From here on it hears what happens on the host."""
        self.attempts += 1
        self._begun_s = time.monotonic()
        self.result = {"scenario": self.name, "ok": False, "attempts": self.attempts,
                       "xen": pieces.XEN, "toolstack": self.options.toolstack}
        self.timeline = Timeline()
        host.listen(self.timeline.show, self.timeline.waiting)
        toolstack = "xl" if self.options.toolstack == "xl" else "the example toolstack"
        self.timeline.say(f"{self.name}: Xen {pieces.XEN}, {toolstack}, "
                          f"{self.options.memory} MiB guest, {host.memory_mib} MiB machine")

    def tell(self, host, is_next: bool, is_shared: bool) -> None:
        """The story, on a host that others may have used before, or will."""
        try:
            if is_next:
                host.next_story(self.name)
            self.scenario.story(host, self)
            if is_shared:
                host.end_story(self.name)
            self.result["ok"] = True
        except pieces.EmulatorFault:
            raise
        except pieces.HostError as error:
            self.failed(error)
        self.result["triple_faults"] = host.triple_faults()
        if self.result["triple_faults"]:
            self.failed(pieces.HostError(
                f"{self.result['triple_faults']} guest(s) ended in a triple fault"))
        if is_shared:
            end = "ok" if self.result["ok"] else "FAILED"
            took_s = time.monotonic() - self._begun_s
            print(f"story: {self.name:20} {end:7} {took_s:5.0f} s", flush=True)

    def end(self, host, directory: pathlib.Path) -> None:
        """This was the host's last story; the host's files get to `directory`."""
        try:
            if host.qemu.poll() is None:
                host.finish()
        except pieces.HostError as error:
            self.failed(error)
        try:
            host.collect(directory)
        except pieces.HostError as error:
            self.failed(error)
        if not self.result["ok"]:
            show_words_of_xl(directory)

    def says_nothing(self, fault, host, directory: pathlib.Path) -> None:
        """A fault of QEMU's ended the host: of the story's files only the console is
        worth keeping, of those before it all."""
        self.timeline.say(f"attempt {self.attempts} says nothing: {fault}")
        self.result["failure"] = str(fault)
        if directory != self.directory:
            host.collect(directory)
        (directory / "out.ext4").unlink(missing_ok=True)
        console = directory / "console.log"
        console.rename(directory / f"console-attempt-{self.attempts}.log")

    def failed(self, error) -> None:
        """The story went wrong."""
        self.result["ok"] = False
        self.result.setdefault("failure", str(error))
        self.timeline.say("FAILED: " + str(error).splitlines()[0])
        for line in str(error).splitlines()[1:]:
            print(line, flush=True)

    def write(self, host) -> None:
        """What is known of the run, for programs."""
        ready = [event for event in host.events if event.name == "dom0_ready"]
        if ready:
            self.result["dom0_ready_s"] = round(ready[0].arrived_s, 2)
        self.result["machine_memory_mib"] = host.memory_mib
        record = {
            "result": self.result,
            "events": [dataclasses.asdict(event) for event in list(host.events)],
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "run.json").write_text(json.dumps(record, indent=1) + "\n")


def show_words_of_xl(directory: pathlib.Path) -> None:
    """How the logs of xl's commands end: why one failed stands only there."""
    for log in sorted(directory.glob("xl-*.log")):
        last = log.read_text(errors="replace").splitlines()[-6:]
        if last:
            print(f"{log} ends:", *last, sep="\n    ", flush=True)
