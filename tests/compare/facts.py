# SPDX-License-Identifier: LGPL-2.1-or-later
"""What drgn finds in a dump: the log, the tasks, everybody's stack and the slab
caches' counters. Prints one object of JSON: for each fact a list of lines, or
a text that says why it cannot be read.

Usage: facts.py DUMP VMLINUX
"""

import json
import sys

import drgn
from drgn.helpers.linux.nodemask import for_each_node_state
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.printk import get_dmesg
from drgn.helpers.linux.slab import for_each_slab_cache


class Wrong(Exception):
    """A fact was read that cannot be true."""


def text(string):
    return string.string_().decode()


def frames_of(trace):
    return [f"{frame.name} {frame.pc:#x}" for frame in trace]


def log(prog):
    lines = get_dmesg(prog).decode(errors="backslashreplace").splitlines()
    if not any("sysrq triggered crash" in line for line in lines):
        raise Wrong("no panic in the log")
    return lines


def tasks(prog):
    found = [
        f"{int(task.pid)} {text(task.comm)} mm {int(task.mm):#x} stack {int(task.stack):#x}"
        for task in for_each_task(prog)
    ]
    if len(found) < 10:
        raise Wrong(f"only {len(found)} tasks")
    return found


def panic_stack(prog):
    task = prog.crashed_thread()
    frames = frames_of(task.stack_trace())
    if not any(frame.startswith("sysrq_handle_crash ") for frame in frames):
        raise Wrong(f"the panic is not on the stack: {frames}")
    return [f"task {task.tid}", *frames]


def all_stacks(prog):
    return [
        f"{int(task.pid)} {frame}"
        for task in for_each_task(prog)
        for frame in frames_of(prog.stack_trace(task))
    ]


def node_counters(prog, cache):
    """Slabs and objects of a cache, on all nodes."""
    slabs = objects = 0
    for number in for_each_node_state(prog, prog["N_NORMAL_MEMORY"]):
        if prog.type("struct kmem_cache").has_member("per_node"):  # Linux 7
            node = cache.per_node[number].node
        else:
            node = cache.node[number]
        slabs += int(node.nr_slabs.counter)
        objects += int(node.total_objects.counter)
    return slabs, objects


def slab_counters(prog):
    found = []
    for cache in for_each_slab_cache(prog):
        slabs, objects = node_counters(prog, cache)
        found.append(f"{text(cache.name)} size {int(cache.size)} slabs {slabs} objects {objects}")
    if len(found) < 50:
        raise Wrong(f"only {len(found)} slab caches")
    return found


FACTS = [log, tasks, panic_stack, all_stacks, slab_counters]


def main(dump, vmlinux):
    prog = drgn.Program()
    prog.set_core_dump(dump)
    prog.load_debug_info([vmlinux])
    found = {}
    for fact in FACTS:
        try:
            found[fact.__name__] = fact(prog)
        except (Wrong, drgn.FaultError, LookupError, AttributeError, TypeError, ValueError) as error:
            found[fact.__name__] = f"{type(error).__name__}: {error}"
    json.dump(found, sys.stdout)


main(*sys.argv[1:])
