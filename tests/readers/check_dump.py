#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Opens a dump with an independent reader and compares it, page by page, with
what it should hold.

usage: check_dump.py {drgn|libkdumpfile} [--raw] DUMP EXPECTED

EXPECTED has, per page frame, one status byte and 4096 bytes of content:
'k' kept (the content must be read), 'x' excluded or lost (reading must fail),
'?' may be lost (reading may fail, but must not give other content),
'*' not judged.

With --raw it is the content only, and every page must be there.

Prints one line of JSON: how many pages were read, refused and wrong, and what
the reader says about the dump. Exit status 1 when any page is wrong.
"""

import ctypes
import json
import sys

PAGE = 4096


def open_drgn(path):
    import drgn

    program = drgn.Program()
    program.set_core_dump(path)

    def read(address):
        try:
            return program.read(address, PAGE, physical=True)
        except drgn.FaultError:
            return None

    # The first read also looks for the kernel's page tables, and fails when
    # those are lost, whatever it was to read.
    read(0)
    return read, {"platform": str(program.platform)}


class Value(ctypes.Union):
    """kdump_attr_value_t, as far as used here."""

    _fields_ = [("number", ctypes.c_ulonglong), ("string", ctypes.c_char_p)]


class Attribute(ctypes.Structure):
    """kdump_attr_t."""

    _fields_ = [("type", ctypes.c_int), ("value", Value)]


class Libkdumpfile:
    """The few functions of libkdumpfile 0.5 (kdumpfile.h) that are needed."""

    OK = 0
    MACHPHYSADDR = 1
    NUMBER = 2
    ADDRESS = 3
    STRING = 4

    def __init__(self, path):
        self.lib = ctypes.CDLL("libkdumpfile.so.10")
        self.lib.kdump_new.restype = ctypes.c_void_p
        self.lib.kdump_get_err.restype = ctypes.c_char_p
        self.context = ctypes.c_void_p(self.lib.kdump_new())
        self.file = open(path, "rb")
        descriptor = ctypes.c_int(self.file.fileno())
        self.check(
            self.lib.kdump_open_fdset(self.context, 1, ctypes.byref(descriptor))
        )

    def check(self, status):
        if status != self.OK:
            raise RuntimeError(self.lib.kdump_get_err(self.context).decode())

    def get(self, kind, key):
        attribute = Attribute(type=kind)
        self.check(
            self.lib.kdump_get_typed_attr(
                self.context, key.encode(), ctypes.byref(attribute)
            )
        )
        return attribute.value

    def string(self, key):
        return self.get(self.STRING, key).string.decode()

    def name(self, key):
        """One of uname's strings; an ELF dump does not have them."""
        try:
            return self.string(key)
        except RuntimeError:
            return None

    def number(self, key):
        return self.get(self.NUMBER, key).number

    def read(self, address):
        buffer = ctypes.create_string_buffer(PAGE)
        length = ctypes.c_size_t(PAGE)
        status = self.lib.kdump_read(
            self.context,
            ctypes.c_int(self.MACHPHYSADDR),
            ctypes.c_ulonglong(address),
            buffer,
            ctypes.byref(length),
        )
        return buffer.raw if status == self.OK else None


def open_libkdumpfile(path):
    dump = Libkdumpfile(path)
    facts = {
        "description": dump.string("file.description"),
        "release": dump.name("linux.uts.release"),
        "nodename": dump.name("linux.uts.nodename"),
        "osrelease": dump.string("linux.vmcoreinfo.lines.OSRELEASE"),
        "cpus": dump.number("cpu.number"),
        "rip": dump.number("cpu.0.reg.rip"),
        "max_pfn": dump.number("max_pfn"),
    }
    return dump.read, facts


def main():
    reader, *raw, path, expected = sys.argv[1:]
    readers = {"drgn": open_drgn, "libkdumpfile": open_libkdumpfile}
    read, facts = readers[reader](path)
    counts = {"read": 0, "refused": 0}
    wrong = []
    with open(expected, "rb") as records:
        pfn = 0
        while True:
            status = b"k" if raw else records.read(1)
            content = records.read(PAGE)
            if not content:
                break
            found = read(pfn * PAGE)
            counts["refused" if found is None else "read"] += 1
            if status == b"*":
                bad = False
            elif found is None:
                bad = status == b"k"
            else:
                bad = status == b"x" or found != content
            if bad:
                wrong.append(pfn)
            pfn += 1
    print(json.dumps({**counts, **facts, "wrong": wrong[:20], "wrong_count": len(wrong)}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
