# SPDX-License-Identifier: LGPL-2.1-or-later
"""A dump through libkdumpfile: the program built from kdump-read.c, which the
environment's KDUMP_READ names, answers requests."""

import os
import subprocess


def opened(path: str):
    """A function that takes a request (see kdump-read.c) and returns its answer's
    bytes; it raises OSError for what the reader refuses."""
    child = subprocess.Popen([os.environ["KDUMP_READ"], path], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)

    def ask(request: str) -> bytes:
        child.stdin.write(request.encode() + b"\n")
        child.stdin.flush()
        answer = child.stdout.readline().decode().split(" ", 1)
        if answer[0] != "ok":
            raise OSError(f"{request}: {' '.join(answer) or 'no answer'}")
        return child.stdout.read(int(answer[1]))

    return ask
