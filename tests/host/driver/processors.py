# SPDX-License-Identifier: LGPL-2.1-or-later
"""The emulated machine's processors, and which of them guests run on.

No guest ever runs on processor 0. QEMU (7.2 to 10.0 at least) clears a bit of
processor 0's `hflags2` whenever any processor loads FPU state, from that processor's
own thread and without a lock (cpu_clear_ignne() in target/i386/tcg/*/fpu_helper.c,
called by cpu_set_fpus()). The same word says whether processor 0 is in a guest with
nested paging (HF2_NPT_MASK, set by VMRUN): a store that comes at the wrong moment
puts an old value back, the guest's next fetch goes to a machine address, and it ends
in a "triple fault" with registers that are sound. dom0 needs no VMRUN and may run
anywhere. The scenario `boots` counts triple faults beside a program that provokes the
race all the time.

The alternative, QEMU built with that store made conditional, takes longer to build
than all the tests take to run.

A second fault of QEMU's ends dom0 while it boots. Before 8.1, QEMU reads the bytes of a
page that it translates before it locks the page (tb_gen_code() and tb_link_page(),
accel/tcg; mended by deba78709ae8, "accel/tcg: Always lock pages before translation").
What another processor writes there meanwhile is in memory, but the old bytes stay
translated. Linux changes its own code while it boots, each time with a breakpoint in
between; a processor that keeps such a breakpoint ends the kernel with "Oops: int3",
where memory has none any more: seen in two of some seventy boots of Linux 6.12, both
in sched_clock_cpu(), beside a second host on this machine's two processors. A run that
ends so before dom0 is ready is repeated once, and counted. To boot dom0 on one processor
and start the others later is not possible: a PV Linux with maxcpus=1 has no others, nor
has Xen. PVH and HVM guests can: those with several processors boot on one, and init starts the
others. Before that two of four boots of Linux 6.12 on two processors ended so, each in
sched_clock_cpu(), beside builds on this machine.
"""

# For the kernel's command line.
ONE_AT_FIRST = "maxcpus=1"


def count(vcpus: int) -> int:
    """Processors of the machine: one for each of the guest's, and processor 0."""
    return 1 + max(vcpus, 1)


def of_guests(vcpus: int) -> str:
    """The guests' processors, as in xl.cfg's `cpus`."""
    return f"1-{count(vcpus) - 1}"
