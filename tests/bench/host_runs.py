# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the benchmarks on the emulated host share: where results go, what is laid
over dom0, and one run of a scenario with its story in a file."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent.parent / "target"))
OUT = TARGET / "bench"


class Broken(Exception):
    """A benchmark cannot go on; the text says why."""


def script(name: str, main) -> None:
    """Runs a benchmark's `main` and exits with what it returns; whoever ends it
    early, or a benchmark that cannot go on, leaves no trace of Python."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except Broken as broken:
        sys.exit(f"{name}: {broken}")
    except KeyboardInterrupt:
        sys.exit(130)


def listed(name: str, default) -> list:
    """The environment's NAME, separated by commas."""
    given = os.environ.get(name)
    return given.split(",") if given else list(default)


def earlier(result: pathlib.Path, runs: pathlib.Path) -> tuple:
    """The runs and load averages that `result` has, to which ADD=1 adds; else none,
    and `runs`, where their files are, is emptied."""
    adds = os.environ.get("ADD") == "1"
    if not adds:
        shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir(parents=True, exist_ok=True)
    if not adds or not result.exists():
        return [], []
    found = json.loads(result.read_text())
    return found["runs"], found["load_average"]


def fetch_overlay() -> str:
    """The patched xl and the library: OVERLAY's, else built."""
    if given := os.environ.get("OVERLAY"):
        if not os.path.isdir(given):
            raise Broken(f"OVERLAY={given} is no directory; tests/overlay makes one")
        return given
    done = subprocess.run([HERE.parent / "overlay"], stdout=subprocess.PIPE, text=True,
                          check=False)
    if done.returncode != 0:
        raise Broken("tests/overlay failed (see above)")
    return done.stdout.splitlines()[-1]


def run(directory: pathlib.Path, scenario: str, *arguments) -> dict:
    """Runs a scenario on a fresh host; what its run.json says.

    The story goes to a file beside `directory`; the dump is not kept. Raises
    Broken when there is no run.json.
    """
    command = [HERE.parent / "host" / "vhost", "run", "--scenario", scenario,
               "--out", directory, *arguments]
    with directory.with_name(f"{directory.name}.log").open("wb") as log:
        with subprocess.Popen(command, stdout=log, stderr=log) as vhost:
            try:
                vhost.wait()
            except BaseException:
                # It ends its emulator itself, which SIGKILL would leave behind.
                vhost.terminate()
                raise
    try:
        return json.loads((directory / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise Broken(f"no result: {error}") from error
    finally:
        shutil.rmtree(directory / "dump", ignore_errors=True)
