# SPDX-License-Identifier: LGPL-2.1-or-later
"""One QEMU that runs Xen: its command line, its event port, its end."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

from . import cpio, outdisk, processors, xlcfg
from .pieces import HERE, XEN, EmulatorFault, HostError, Pieces

DOM0_MIB = 512
# Measured with Debian 12's Xen in this machine.
XEN_FIXED_MIB = 9
GUEST_EXTRA_MIB = 1
# dom0 boots so fast where every deadline is as it is written. Where it takes longer, all
# take longer by as much: a slow machine is no fault, and what must come before what is
# told by events.
DOM0_READY_S = 20

# Xen's word for a guest that could not even take an exception; Linux that panics ends
# in another way. See processors.py.
TRIPLE_FAULT = re.compile(r"Triple fault - invoking HVM shutdown action")
# QEMU 7.2 was seen to end at its start with hw/pci/msix.c's msix_table_mmio_write.
ASSERTION = re.compile(r"Assertion .* failed")
# dom0's kernel met a breakpoint that is not there any more. See processors.py.
OLD_CODE = re.compile(r"Oops: int3: .*")


@dataclasses.dataclass(frozen=True)
class Network:
    """Static addresses of dom0's bridge."""

    dom0: str = "10.77.0.1"
    guest: str = "10.77.0.2"
    guest_mac: str = xlcfg.FIRST_MAC
    port: int = 7000


@dataclasses.dataclass(frozen=True)
class Event:
    """A line of the event port."""

    at_s: float  # dom0's CLOCK_MONOTONIC
    name: str
    data: dict
    arrived_s: float  # this machine's, since QEMU was started


def machine_mib(guest_mib: int, vcpus: int, slack_mib: int) -> int:
    """QEMU's memory, such that about `slack_mib` stay free once the guest runs.

    Xen takes a fixed part, and 32 bytes for each page's descriptor. libxl gives
    a guest 4 KiB a MiB plus 1 MiB a vCPU for its p2m beside the memory itself
    (libxl_get_required_paging_memory), and Xen some for its own structures.
    """
    guest = guest_mib + guest_mib * 4 // 1024 + vcpus + GUEST_EXTRA_MIB
    total = DOM0_MIB + guest + slack_mib + XEN_FIXED_MIB
    return total + total // 128


# Without KVM, QEMU 7.2 loses the upper vector registers when Xen switches domains:
# programs in dom0 that use AVX then crash. So there is none, nor what saves it.
CPU = ("EPYC,+svm,+npt,-smap,-smep,-monitor,"
       "-avx,-avx2,-fma,-f16c,-xsave,-xsaveopt,-xsavec,-xsaves")


class Machine:
    """A fresh Xen host for one story or more. Use as a context manager: its QEMU always
    ends.

    `stories` are the names of all, with the options of each, which are about its guest;
    `options` are the host's.
    """

    def __init__(self, pieces: Pieces, options, stories: dict, directory: pathlib.Path):
        self._pieces, self._options, self._directory = pieces, options, directory
        self._stories = stories
        self._network = Network()
        self._patience = options.patience
        self._changed = threading.Condition()
        self._listeners, self._idle_listeners = [], []
        self._earlier_faults = 0
        self.events = []
        self.qemu = None
        self.memory_mib = options.machine_memory or machine_mib(
            options.memory, options.vcpus, options.slack
        )

    def __enter__(self):
        try:
            self._prepare()
            self._start()
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(self, *_):
        self._clean()

    def listen(self, on_event, on_idle) -> None:
        """Calls `on_event(event)` for each event, from the reading thread, and
        `on_idle(text)` about every second that something is waited for; nobody else."""
        self._listeners, self._idle_listeners = [on_event], [on_idle]

    def next_story(self, name: str) -> None:
        """The host is as after its start, for the guest of another story. Call after
        `end_story`."""
        with self._changed:
            self.events = [event for event in self.events if event.name == "dom0_ready"]
        self._earlier_faults = -len(TRIPLE_FAULT.findall(self._console_text()))
        self.step(f"next_story {name} {self._disk_of(name)}")

    def end_story(self, name: str) -> None:
        """Nothing of a story is left on the host, and its files are put away."""
        self.step(f"end_story {name}", 120)

    def _disk_of(self, story: str) -> str:
        """The serial number of the guest's disk: a story's own."""
        number = list(self._stories).index(story)
        return f"guest-{number}" if number else "guest"

    def wait(self, name: str, deadline_s: float, missing: str, where=None, after=None):
        """The first event `name` (after event `after`) for which `where(data)`.

        Raises HostError saying what was `missing` when the deadline passes or
        the machine ends.
        """
        return self.wait_any((name,), deadline_s, missing, where, after)

    def wait_any(self, names, deadline_s: float, missing: str, where=None, after=None):
        """As `wait`, for the first event whose name is one of `names`."""
        end = time.monotonic() + deadline_s * self._patience
        seen = self.events.index(after) + 1 if after else 0
        with self._changed:
            while True:
                for event in self.events[seen:]:
                    seen += 1
                    if event.name in names and (where is None or where(event.data)):
                        return event
                left = end - time.monotonic()
                self._check_emulator()
                if self.qemu.poll() is not None:
                    raise self._failure(f"{missing}: the emulated machine ended")
                if left <= 0:
                    limit = deadline_s * self._patience
                    raise self._failure(f"{missing} within {limit:.0f} s")
                self._changed.wait(min(left, 1))
                for listener in self._idle_listeners:
                    listener(f"so far {missing}")

    def step(self, line: str, deadline_s: float = 30, check: bool = True) -> int:
        """Has dom0 do a step (dom0/steps.sh); its exit status."""
        before = self.events[-1] if self.events else None
        self._port.sendall(line.encode() + b"\n")
        name = line.split()[0]
        done = self.wait(
            "step_done", deadline_s, f'dom0 did not finish the step "{line}"',
            where=lambda data: data.get("step") == name, after=before,
        )
        if check and done.data["status"] != 0:
            status = done.data["status"]
            raise self._failure(f'dom0\'s step "{line}" failed with status {status}')
        return done.data["status"]

    def finish(self, deadline_s: float = 60) -> None:
        """Has dom0 write out its files and waits for the machine's end."""
        self._port.sendall(b"finish\n")
        self.wait("finished", deadline_s, "dom0 did not write its files out")
        try:
            self.qemu.wait(10 * self._patience)
        except subprocess.TimeoutExpired:
            self._end_qemu()

    def power_cut(self) -> None:
        """The machine loses its power, and gets it back with the disks as they were."""
        self.qemu.kill()
        self.qemu.wait()
        self._earlier_faults = self.triple_faults()
        (self._directory / "console.log").rename(self._directory / "console-power-cut.log")
        for port in (self._port, self.monitor):
            port.close()
        self._start()

    def collect(self, into: pathlib.Path) -> None:
        """dom0's files; call after the machine ended."""
        self._end_qemu()
        outdisk.extract(self._directory / "out.ext4", into)

    def _prepare(self) -> None:
        outdisk.create(self._directory / "out.ext4")
        shutil.copyfile(self._pieces.disk / "disk.ext4", self._directory / "guest.ext4")
        archive = cpio.Archive("overlay")
        for script in ("init", "lib.sh", "steps.sh", "faults.sh", "probe.sh", "block-at-once"):
            data = (HERE / "dom0" / script).read_bytes()
            archive.add_file(f"usr/lib/vhost/{script}", data, 0o755)
        for tool in sorted((self._pieces.tools / "bin").iterdir()):
            archive.add_file(f"usr/lib/vhost/bin/{tool.name}", tool.read_bytes(), 0o755)
        net = self._network
        settings = {
            "DOM0_ADDRESS": net.dom0, "GUEST_ADDRESS": net.guest,
            "GUEST_MAC": net.guest_mac, "GUEST_PORT": net.port, "XEN": XEN,
            "VICOVER_OPTIONS": xlcfg.spec(next(iter(self._stories.values()))),
        }
        text = "".join(f"{key}='{value}'\n" for key, value in settings.items())
        archive.add_file("etc/vhost.conf", text.encode())
        for name, options in self._stories.items():
            config = xlcfg.guest_config(options, net)
            if self._disk_of(name) == "guest":
                archive.add_file("etc/xen/guest.cfg", config.encode())
                (self._directory / "guest.cfg").write_text(config)
            archive.add_file(f"etc/xen/guests/{name}.cfg", config.encode())
            archive.add_file(f"etc/xen/guests/{name}.options", xlcfg.spec(options).encode())
        if (self._pieces.disk / "dom0").is_dir():
            archive.add_tree(self._pieces.disk / "dom0")
        if self._options.overlay:
            archive.add_tree(self._options.overlay)
        base = (self._pieces.dom0 / "initrd.cpio").read_bytes()
        initrd = base + b"\0" * (-len(base) % 512) + archive.finish()
        (self._directory / "initrd").write_bytes(initrd)

    def _command(self, port: int, monitor: int) -> list:
        # Microcode of the emulated processor; 4.20 knows that there is none.
        microcode = "ucode=no " if XEN == "4.17" else ""
        xen = (
            f"console=com1 com1=115200,8n1 dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M "
            f"dom0_max_vcpus={self._options.dom0_vcpus} sched=credit {microcode}cpuidle=0 mwait-idle=0 "
            "max_cstate=0 noreboot=1 loglvl=warning guest_loglvl=warning "
            + self._options.xen_args
        )
        dom0 = (
            "console=hvc0 rdinit=/init quiet mitigations=off clocksource=tsc "
            "tsc=reliable random.trust_cpu=on"
        )
        modules = f"{self._pieces.dom0 / 'vmlinuz'} {dom0},{self._directory / 'initrd'}"
        command = [
            "qemu-system-x86_64", "-name", "vhost", "-nodefaults", "-no-reboot",
            "-display", "none", "-machine", "q35",
            "-accel", "tcg,thread=multi,tb-size=1024",
            "-cpu", CPU,
            "-smp", str(processors.count(self._options.vcpus)), "-m", f"{self.memory_mib}M",
            "-kernel", str(self._pieces.dom0 / "xen.elf"), "-append", xen,
            "-initrd", modules,
            "-chardev", f"file,id=console,path={self._directory / 'console.log'}",
            "-serial", "chardev:console",
            "-chardev", f"socket,id=events,fd={port}",
            "-device", "virtio-serial-pci",
            "-device", "virtserialport,chardev=events,name=events",
            "-chardev", f"socket,id=monitor,fd={monitor}",
            "-mon", "chardev=monitor,mode=control",
        ]
        rate = self._options.disk_rate
        throttle = f",throttling.bps-total={rate}" if rate else ""
        if rate and self._options.one_disk:
            # Disks of one group share the rate, request by request in turn.
            throttle += ",throttling.group=disk"
        # dom0's initrd takes the first as its root.
        for name, path, snapshot, more in (
            ("root", self._pieces.dom0 / "root.ext4", "on", ""),
            ("files", self._pieces.guest / "files.ext4", "on", ""),
            ("out", self._directory / "out.ext4", "off", throttle),
            ("guest", self._directory / "guest.ext4", "off", throttle),
            *((self._disk_of(name), self._pieces.disk / "disk.ext4", "on", "")
              for name in list(self._stories)[1:]),
        ):
            command += [
                "-drive",
                f"if=none,id={name},format=raw,cache=unsafe,discard=unmap,"
                f"snapshot={snapshot},file={path}{more}",
                "-device", f"virtio-blk-pci,drive={name},serial={name}",
            ]
        return command

    def _start(self) -> None:
        self._port, port = socket.socketpair()
        self.monitor, monitor = socket.socketpair()
        with port, monitor, open(self._directory / "qemu.log", "wb") as log:
            command = self._command(port.fileno(), monitor.fileno())
            self._started = time.monotonic()
            self.qemu = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=(port.fileno(), monitor.fileno()),
                # Snapshots go where there is room.
                env=dict(os.environ, TMPDIR=str(self._directory)),
                start_new_session=True,
            )
        self._go_first()
        threading.Thread(target=self._read_events, daemon=True).start()

    def _go_first(self) -> None:
        """Has the kernel give QEMU what processors it wants. Sessions share them in equal
        parts (sched(7), "The autogroup feature"), whatever niceness is within them: a
        build beside this would take half, at any."""
        try:
            pathlib.Path(f"/proc/{self.qemu.pid}/autogroup").write_text("-15")
        except OSError:
            pass  # a kernel without it, or a user who may not

    def _read_events(self) -> None:
        with self._port.makefile("r", encoding="utf-8", errors="replace") as lines:
            try:
                for line in lines:
                    self._take(line)
            except OSError:
                pass  # the machine ended
        with self._changed:
            self._changed.notify_all()

    def _take(self, line: str) -> None:
        words = line.rstrip("\n").split(" ", 3)
        try:
            at_s, data = float(words[1]), json.loads(words[3])
        except (IndexError, ValueError):
            words, at_s, data = ["EVT", "0", "garbled"], 0.0, {"line": line}
        event = Event(at_s, words[2], data, time.monotonic() - self._started)
        with self._changed:
            if event.name == "dom0_ready":
                self._patience *= max(1, event.arrived_s / DOM0_READY_S)
            self.events.append(event)
            self._changed.notify_all()
        for listener in self._listeners:
            listener(event)

    def triple_faults(self) -> int:
        """How many guests of the story ended in one so far."""
        return self._earlier_faults + len(TRIPLE_FAULT.findall(self._console_text()))

    def _console_text(self) -> str:
        return (self._directory / "console.log").read_text(errors="replace")

    def _check_emulator(self) -> None:
        if self.qemu.poll() is not None:
            log = (self._directory / "qemu.log").read_text(errors="replace")
            if failed := ASSERTION.search(log):
                raise EmulatorFault(f"QEMU ended: {failed[0]}")
        console = self._directory / "console.log"
        if console.exists() and not any(event.name == "dom0_ready" for event in self.events):
            if old := OLD_CODE.search(console.read_text(errors="replace")):
                raise EmulatorFault(f"QEMU kept old code of dom0's kernel: {old[0]}")

    def _keep_registers(self) -> None:
        """Where the emulated processors are, twice, a second apart, goes into a file: a
        machine that hangs has nothing else to say."""
        if self.qemu.poll() is not None:
            return
        try:
            self.monitor.settimeout(5)
            with self.monitor.makefile("rw") as lines, \
                    open(self._directory / "registers.txt", "w") as kept:
                self._asked(lines, {"execute": "qmp_capabilities"})
                for _ in range(2):
                    kept.write(self._asked(lines, {
                        "execute": "human-monitor-command",
                        "arguments": {"command-line": "info registers -a"}}) + "\n")
                    time.sleep(1)
        except OSError as error:
            print(f"QEMU's monitor does not answer: {error}", file=sys.stderr)

    @staticmethod
    def _asked(lines, command: dict):
        """The answer of QEMU's monitor to a command; what else it says is left out."""
        lines.write(json.dumps(command) + "\n")
        lines.flush()
        for line in lines:
            said = json.loads(line)
            if "return" in said:
                return said["return"]
        raise OSError("it has ended")

    def _failure(self, text: str) -> HostError:
        self._keep_registers()
        console = self._directory / "console.log"
        tail = ""
        if console.exists():
            lines = console.read_text(errors="replace").splitlines()[-12:]
            tail = "".join(f"\n    {line}" for line in lines)
        return HostError(f"{text}\nThe console ({console}) ends:{tail}")

    def _end_qemu(self) -> None:
        if self.qemu is None or self.qemu.poll() is not None:
            return
        self.qemu.terminate()
        try:
            self.qemu.wait(5)
        except subprocess.TimeoutExpired:
            self.qemu.kill()
            self.qemu.wait()

    def _clean(self) -> None:
        self._end_qemu()
        for name in ("initrd", "guest.ext4"):
            (self._directory / name).unlink(missing_ok=True)
