"""Where the built pieces are (built first when they are not in the cache)."""

import dataclasses
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent.parent


class HostError(Exception):
    """Something in the emulated host's story failed; the text says what."""


class EmulatorFault(HostError):
    """QEMU, not the host, went wrong: the run says nothing and is repeated."""


@dataclasses.dataclass(frozen=True)
class Pieces:
    """Directories of the built pieces."""

    dom0: pathlib.Path
    guest: pathlib.Path
    tools: pathlib.Path


def build() -> Pieces:
    """Build what is missing; progress goes to standard error."""
    command = [HERE / "build", "dom0", "guest", "tools"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise HostError("building the emulated host failed (see above)")
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    return Pieces(**{name: pathlib.Path(path) for name, path in found.items()})
