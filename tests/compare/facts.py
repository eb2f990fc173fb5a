"""What drgn finds in a dump: the log, the tasks, the panicking task's stack and
the slab caches' counters, one fact a line.

Usage: facts.py DUMP VMLINUX
"""

import hashlib
import sys

import drgn
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.printk import get_dmesg
from drgn.helpers.linux.slab import for_each_slab_cache


def main(dump, vmlinux):
    prog = drgn.Program()
    prog.set_core_dump(dump)
    prog.load_debug_info([vmlinux])

    log = get_dmesg(prog)
    print("log", len(log), hashlib.sha256(log).hexdigest())
    if b"sysrq triggered crash" not in log:
        sys.exit("the panic is not in the log")

    tasks = 0
    for task in for_each_task(prog):
        tasks += 1
        print("task", int(task.pid), task.comm.string_().decode(), int(task.mm or 0))
    if tasks < 10:
        sys.exit(f"only {tasks} tasks")

    crashed = prog.crashed_thread()
    print("panicked", crashed.tid)
    frames = [frame.name for frame in crashed.stack_trace()]
    for frame in frames:
        print("frame", frame)
    if "sysrq_handle_crash" not in frames:
        sys.exit(f"the panic is not on the stack: {frames}")

    caches = sorted(for_each_slab_cache(prog), key=lambda cache: cache.name.string_())
    if len(caches) < 50:
        sys.exit(f"only {len(caches)} slab caches")
    for cache in caches:
        node = cache.node[0]
        slabs, objects = int(node.nr_slabs.counter), int(node.total_objects.counter)
        print("cache", cache.name.string_().decode(), int(cache.size), slabs, objects)


main(*sys.argv[1:])
