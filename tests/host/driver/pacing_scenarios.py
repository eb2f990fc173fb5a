# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dump and recovery on one disk: how soon a database is back, and how soon its
guest has done the work that it begins with, by the policy that paces the dump.

The policy is given as --xlcfg 'vicover="...,io=POLICY"'; the disk by --disk-rate
and --one-disk."""

from .downtime_scenarios import ON_DISK
from .recovery_scenarios import no_error
from .scenarios import (crash, keep_told, nothing_lost, recovered, scenario, start, told,
                        verify)

LOADED = (128, 0, 128)  # MiB of anonymous memory, of tmpfs, of page cache
WORK_DEADLINE_S = 900
DUMP_DEADLINE_S = 300
SECTOR, READ_SECTORS, READS, READ_MS = 512, 2, 0, 3


def disks(host, after) -> dict:
    """What the kernel of dom0 has counted of both disks by now."""
    host.step("disks")
    return host.wait("disks", 5, "no figures of the disks", after=after).data


def read_since(before: dict, now: dict) -> dict:
    """What the guest's disk did between two of these."""
    reads, sectors, ms = (now["guest"][field] - before["guest"][field]
                          for field in (READS, READ_SECTORS, READ_MS))
    return {"requests": reads, "bytes": sectors * SECTOR, "wait_ms": ms}


def story(host, run, anonymous: int, cache: int) -> None:
    """A crash, and the work that begins when the database is back: `anonymous`
    MiB of memory to be filled, `cache` MiB to be read."""
    start(host, run, client="database_client", load=LOADED)
    before = disks(host, host.events[-1])
    run.result["load_mib"] = {"anonymous": anonymous, "cache": cache}
    crashed = crash(host, run)
    try:
        recovered(host, run, crashed, 600)
        up = disks(host, crashed)
        run.result["backed_bytes"] = next(
            event.data["tot_pages"] << 12 for event in host.events
            if event.name == "domain_unpaused"
            and event.data["domid"] == run.result["recovery_domid"])
        host.step(f"request {WORK_DEADLINE_S} load {anonymous} 0 {cache}",
                  WORK_DEADLINE_S + 10)
        answers = [event for event in host.events
                   if event.name == "answer" and event.at_s > crashed.at_s]
        run.result["full_service_s"] = round(answers[-1].at_s - crashed.at_s, 3)
        done = disks(host, answers[-1])
        if "io=adaptive" in " ".join(run.options.xlcfg):
            control = told(host, "control looked", DUMP_DEADLINE_S, crashed).data
            run.result["control"] = {"looks": control["looks"],
                                     "processor_ms": control["used_ms"],
                                     "passed_ms": control["lasted_ms"]}
            dump = told(host, "dump complete", DUMP_DEADLINE_S, crashed).data
            run.result["dump"] = {"pages": dump["pages"], "bytes": dump["length_bytes"]}
    finally:
        keep_told(host, run, crashed)
    verified = verify(host, run, 120)
    run.result.update(boot_reads=read_since(before, up), work_reads=read_since(up, done))
    no_error(host)
    nothing_lost(verified)


@scenario('on_crash="vicover"', disk=ON_DISK)
def pacing_reads(host, run):
    """The recovered guest reads much, from the disk that the dump goes to."""
    story(host, run, 16, 256)


@scenario('on_crash="vicover"', disk=ON_DISK)
def pacing_memory(host, run):
    """The recovered guest fills most of its memory."""
    story(host, run, 288, 16)


@scenario('on_crash="vicover"', disk=ON_DISK)
def pacing_both(host, run):
    """The recovered guest reads much and fills much of its memory."""
    story(host, run, 160, 160)
