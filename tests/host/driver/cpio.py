# SPDX-License-Identifier: LGPL-2.1-or-later
"""A writer of cpio archives in the "newc" form, which Linux unpacks at boot.

Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import os
import pathlib
import stat

# dom0's root has a merged /usr; copying a directory over a link would fail.
MERGED = ("bin", "sbin", "lib", "lib64")


class Archive:
    """Collects files, directories and links, then gives the archive's bytes."""

    def __init__(self, prefix: str):
        self._prefix = prefix
        self._parts = []
        self._known = {}
        self._add_directory(pathlib.PurePosixPath(prefix))

    def add_file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """`name` is the path in dom0, without a leading slash."""
        self._add(self._place(name), stat.S_IFREG | mode, data)

    def add_tree(self, source: pathlib.Path) -> None:
        """All below `source`, which stands for dom0's root directory."""
        for path in sorted(source.rglob("*")):
            name = path.relative_to(source).as_posix()
            if path.is_symlink():
                target = os.readlink(path).encode()
                self._add(self._place(name), stat.S_IFLNK | 0o777, target)
            elif path.is_file():
                self.add_file(name, path.read_bytes(), path.stat().st_mode & 0o777)

    def finish(self) -> bytes:
        """The archive with its trailer."""
        self._record("TRAILER!!!", 0, b"")
        return b"".join(self._parts)

    def _place(self, name: str) -> pathlib.PurePosixPath:
        if name.split("/")[0] in MERGED:
            name = "usr/" + name
        return pathlib.PurePosixPath(self._prefix, name)

    def _add(self, path: pathlib.PurePosixPath, mode: int, data: bytes) -> None:
        for parent in reversed(path.parents):
            self._add_directory(parent)
        self._record(str(path), mode, data)

    def _add_directory(self, path: pathlib.PurePosixPath) -> None:
        if str(path) != "." and path not in self._known:
            self._known[path] = True
            self._record(str(path), stat.S_IFDIR | 0o755, b"")

    def _record(self, name: str, mode: int, data: bytes) -> None:
        encoded = name.encode() + b"\0"
        fields = [len(self._parts) + 1, mode, 0, 0, 1, 0, len(data)]
        fields += [0, 0, 0, 0, len(encoded), 0]
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        self._parts.append(_padded(header + encoded) + _padded(data))


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
