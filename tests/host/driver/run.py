# SPDX-License-Identifier: LGPL-2.1-or-later
"""One run of a scenario, from a fresh host to its result on disk."""

import dataclasses
import json
import pathlib

from . import machine, pieces, scenarios
from .timeline import Timeline

# One more where a fault of QEMU's, that is known, ended the host.
ATTEMPTS = 2


class Run:
    """Options, figures so far, and the directory everything goes to."""

    def __init__(self, options):
        self.options = options
        self.directory = pathlib.Path(options.out).resolve()
        self.result = {}
        self.timeline = Timeline()

    def go(self) -> bool:
        """Runs the scenario; True when its story was right.

        A run that a known fault of QEMU's ended is repeated once, on a fresh host.
        """
        scenario = scenarios.SCENARIOS[self.options.scenario]
        self.options.xlcfg = [*scenario.xlcfg, *self.options.xlcfg]
        self.options.slack = max(self.options.slack, scenario.slack_mib)
        self.options.toolstack = self.options.toolstack or self._toolstack()
        self.options.vcpus = scenario.vcpus or self.options.vcpus
        self.options.memory = scenario.memory_mib or self.options.memory
        built = pieces.build(scenario.disk)
        self._check_directory()
        for attempt in range(1, ATTEMPTS + 1):
            self.result = {"scenario": self.options.scenario, "ok": False,
                           "attempts": attempt, "xen": pieces.XEN,
                           "toolstack": self.options.toolstack}
            try:
                self._attempt(built)
                break
            except pieces.EmulatorFault as fault:
                self.timeline.say(f"attempt {attempt} says nothing: {fault}")
                self.result["failure"] = str(fault)
                self._keep_console(attempt)
        return self.result["ok"]

    def _toolstack(self) -> str:
        overlay = self.options.overlay
        ours = overlay and (overlay / f"usr/lib/xen-{pieces.XEN}/bin/xl").exists()
        return "xl" if ours or not overlay else "example"

    def _attempt(self, built) -> None:
        story = scenarios.SCENARIOS[self.options.scenario].story
        self.timeline = Timeline()
        host = machine.Machine(built, self.options, self.directory)
        host.on_event(self.timeline.show)
        host.on_idle(self.timeline.waiting)
        toolstack = "xl" if self.options.toolstack == "xl" else "the example toolstack"
        self.timeline.say(f"{self.options.scenario}: Xen {pieces.XEN}, {toolstack}, "
                          f"{self.options.memory} MiB guest, {host.memory_mib} MiB machine")
        try:
            with host:
                try:
                    story(host, self)
                    self.result["ok"] = True
                except pieces.EmulatorFault:
                    raise
                except pieces.HostError as error:
                    self._failed(error)
                self._put_away(host)
        finally:
            self._write(host)

    def _keep_console(self, attempt: int) -> None:
        """Only the console of a spoiled attempt is worth keeping."""
        (self.directory / "out.ext4").unlink(missing_ok=True)
        console = self.directory / "console.log"
        console.rename(self.directory / f"console-attempt-{attempt}.log")

    def _put_away(self, host) -> None:
        self.result["triple_faults"] = host.triple_faults()
        if self.result["triple_faults"]:
            self._failed(pieces.HostError(
                f"{self.result['triple_faults']} guest(s) ended in a triple fault"))
        try:
            if host.qemu.poll() is None:
                host.finish()
        except pieces.HostError as error:
            self._failed(error)
        try:
            host.collect(self.directory)
        except pieces.HostError as error:
            self._failed(error)
        if not self.result["ok"]:
            self._show_words_of_xl()

    def _show_words_of_xl(self) -> None:
        """How the logs of xl's commands end: why one failed stands only there."""
        for log in sorted(self.directory.glob("xl-*.log")):
            last = log.read_text(errors="replace").splitlines()[-6:]
            if last:
                print(f"{log} ends:", *last, sep="\n    ", flush=True)

    def _failed(self, error) -> None:
        self.result["ok"] = False
        self.result.setdefault("failure", str(error))
        self.timeline.say("FAILED: " + str(error).splitlines()[0])
        for line in str(error).splitlines()[1:]:
            print(line, flush=True)

    def _check_directory(self) -> None:
        """A run's files never mix with an older run's."""
        if self.directory.exists() and any(self.directory.iterdir()):
            raise pieces.HostError(f"{self.directory} is not empty: "
                                   "give --out a directory of its own")
        self.directory.mkdir(parents=True, exist_ok=True)

    def _write(self, host) -> None:
        ready = [event for event in host.events if event.name == "dom0_ready"]
        if ready:
            self.result["dom0_ready_s"] = round(ready[0].arrived_s, 2)
        self.result["machine_memory_mib"] = host.memory_mib
        record = {
            "result": self.result,
            "events": [dataclasses.asdict(event) for event in list(host.events)],
        }
        (self.directory / "run.json").write_text(json.dumps(record, indent=1) + "\n")
