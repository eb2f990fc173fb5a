# SPDX-License-Identifier: LGPL-2.1-or-later
"""What may befall a recovery domain: too little memory while the dump is slow,
a crash of its own, and the ordinary life of a guest afterwards."""

from .pieces import HostError
from .scenarios import (crash, full_memory, is_told, keep_told, may_lack, of_calls, recorded,
                        recovered, scenario, settled, start, told)

# Everything is dumped, and slowly once recovery runs: memory stays short.
SLOW = 'vicover="dump_level=0,io=fixed:256K"'
PAGES_PER_MIB = 256
# What libxl says when it ends a hotplug script that takes 40 s (libxl_aoutils.c).
SCRIPT_ENDED = "vif-bridge online because of timeout"
# After a crash's first note, and long before the end of its dump.
KILLED_AFTER_MS = 3000
# What the host has free beside the guest, so that a standby has room.
STANDBY_MIB = 400


def xl_said(host, text: str, deadline_s: float, after):
    """Waits for a line of xl's own with `text` in it."""
    return host.wait("log", deadline_s, f"xl's log does not say '{text}'", after=after,
                     where=lambda data: text in data["line"])


def no_error(host) -> None:
    """Nothing that the library told is an error."""
    errors = [event.data["line"] for event in host.events
              if event.name == "vicover" and event.data["level"] == "error"]
    if errors:
        raise HostError("libvicover tells of errors:\n" + "\n".join(errors))


def handed_over(host, crashed, deadline_s: float = 900) -> None:
    """Waits until recovery has its memory and the dump is complete."""
    for what in ("recovery settled", "dump complete"):
        told(host, what, deadline_s, crashed)


def complete_dumps(run, count: int = 1) -> None:
    """There are so many dumps, and they are complete."""
    dumps = [name.split()[0] for name in run.result["dumps"]]
    kept = [name for name in dumps if not name.endswith(".sums")]
    if len(kept) != count or not all(name.endswith(".kdump") for name in kept):
        raise HostError(f"expected {count} complete dump(s), found {dumps}")


def ends_well(host, run, first, last, deadline_s: float = 60, dumps: int = 1) -> None:
    """What remains is what should remain after crashes from `first` to `last`: no
    error in the log, and so many dumps, all complete."""
    settled(host, run, last, deadline_s)
    keep_told(host, run, first)
    no_error(host)
    complete_dumps(run, dumps)


def figures_of(host, domid: int) -> dict:
    """What the hypervisor says of a domain now."""
    last = host.events[-1]
    host.step("report")
    return host.wait("domain_info", 5, f"no figures of domain {domid}", after=last,
                     where=lambda data: data["domid"] == domid).data


def no_more_memory(host, run, crashed, recovery: int) -> None:
    """The crash took no memory of others', and recovery has as much as the guest had. Of an
    HVM guest that is not all: Linux gives back as much as the graphics adapter has."""
    has = figures_of(host, recovery)["tot_pages"]
    least = [event for event in host.events if event.name == "free_min"][-1]
    least = least.data["free_pages_min"]
    before, had = crashed.data["free_pages_before"], crashed.data["tot_pages"]
    if least + of_calls(run) < before:
        raise HostError(f"{least} pages were free at least, {before} before the crash")
    if has + may_lack(run) < had:
        raise HostError(f"recovery has {has} pages, the guest had {had}")


@scenario('on_crash="vicover"', SLOW)
def memory_guard(host, run):
    """Recovery wants nearly all its memory at once while the dump is slow."""
    start(host, run)
    crashed = crash(host, run)
    recovered(host, run, crashed, 600)
    domid = run.result["recovery_domid"]
    before = figures_of(host, domid)
    memory = run.options.memory * PAGES_PER_MIB
    if before["tot_pages"] * 2 > memory:
        raise HostError(f"memory is not short when the service is back: {before}")
    host.step(f"request 240 load {run.options.memory * 11 // 16} 0 0", 260)
    loaded = host.events[-1]
    host.wait("acked", 60, "the service acknowledges no writes", after=loaded)
    guarded = told(host, "control guarded", 900, crashed).data
    if guarded["lowest_cache_bytes"] is None:
        raise HostError(f"the guard saw no memory missing: {guarded}")
    run.result.update(
        guard_pauses=guarded["pauses"], guard_paused_ms=guarded["paused_ms"],
        guard_lowest_cache_pages=guarded["lowest_cache_bytes"] // 4096,
    )
    run.result["load_done_s"] = loaded.at_s - crashed.at_s
    told(host, "dump complete", 900, crashed)
    ends_well(host, run, crashed, crashed)
    if run.result["guard_pauses"] < 1:
        raise HostError("the guard had nothing to do: memory was not short")
    full_memory(run)


def script_was_ended(host, after) -> bool:
    """Whether libxl has ended an interface's hotplug script since."""
    later = list(host.events)[host.events.index(after):]
    return any(event.name == "xl" and SCRIPT_ENDED in event.data["line"] for event in later)


def runs_without_interface(host, crashed) -> None:
    """Recovery of this crash runs although its interface's script does not end."""
    host.wait("domain_unpaused", 300, "recovery does not run", after=crashed)
    if script_was_ended(host, crashed):
        raise HostError("recovery waited until libxl ended the script of its interface")


@scenario('on_crash="vicover"')
def interface_scripts(host, run):
    """The script of recovery's interface takes long; that of the next recovery hangs,
    so libxl ends it, and this guest has no program that would set up the interface
    that it then gets instead."""
    start(host, run)
    host.step("hold_interface")
    crashed = crash(host, run)
    runs_without_interface(host, crashed)
    told(host, "dump started", 60, crashed)
    host.step("release_interface")
    recovered(host, run, crashed, 300)
    handed_over(host, crashed)

    host.step("hold_interface")
    again = crash_again(host, run)
    runs_without_interface(host, again)
    handed_over(host, again)
    if not script_was_ended(host, again):
        raise HostError("libxl did not have to end the script")
    # The guest has no program that would set up the interface: its service is not asked.
    domid = host.wait("domain_unpaused", 1, "recovery does not run", after=again).data["domid"]
    host.step(f"hotplugged vif/{domid}/0", 5)
    run.result["recovery"] = figures_of(host, domid)
    host.step("list")
    run.result["dumps"] = host.wait("domains", 1, "no list of domains").data["dumps"]
    keep_told(host, run, crashed)
    no_error(host)
    complete_dumps(run, 2)
    full_memory(run)


def crash_twice(host, run):
    """Crashes the guest, and recovery while the first dump is still being written;
    both crashes' events."""
    start(host, run)
    crashed = crash(host, run)
    recovered(host, run, crashed, 600)
    if any(is_told(event, "dump complete") for event in host.events):
        raise HostError("the first dump was complete before the second crash")
    return crashed, crash_again(host, run)


def crash_again(host, run):
    """Crashes the recovery domain; the event that tells it."""
    run.result.setdefault("first_down_s", run.result.pop("service_down_s"))
    domid, last = run.result["recovery_domid"], host.events[-1]
    host.step("crash 0", 10)
    return host.wait("domain_crashed", 60, "the recovery domain did not crash",
                     after=last, where=lambda data: data["domid"] == domid)


@scenario('on_crash="vicover"', SLOW[:-1] + ',max_dumps=1/1h,max_crashes=3/1h"')
def crash_loop(host, run):
    """A guest keeps crashing: it is dumped; restarted, as that dump is still being
    written; recovered without another dump; and at last left as it crashed."""
    crashed, again = crash_twice(host, run)
    restarted_without_dump(host, run, crashed, again)
    third = crash_again(host, run)
    told(host, "dump not_wanted", 60, third)
    recovered(host, run, third, 300)
    told(host, "recovery settled", 60, third)
    run.result["host_free_pages_before"] = crashed.data["free_pages_before"]
    ends_well(host, run, crashed, third)
    full_memory(run)

    last = crash_again(host, run)
    told(host, "job given_up", 60, last)
    xl_said(host, "keeps crashing and is not replaced", 60, last)
    host.step("list")
    listed = host.wait("domains", 1, "no list of domains", after=last).data["list"]
    if not any(line.startswith("guest ") for line in listed):
        raise HostError(f"the crashed guest was not left: {listed}")


def restarted_without_dump(host, run, crashed, again) -> None:
    """Recovery crashes `again` while the dump of the first crash is still being written:
    xl restarts it, and the dump is written to its end."""
    first, domid = crashed.data["domid"], again.data["domid"]
    without = xl_said(host, "is restarted without a dump", 60, again)
    run.result["second_handled_s"] = without.at_s - again.at_s
    gone = host.wait("domain_gone", 300, f"domain {domid} was not destroyed",
                     after=again, where=lambda data: data["domid"] == domid)
    run.result["second_gone_s"] = gone.at_s - again.at_s
    host.wait("domain_gone", 900, f"the crashed domain {first} did not go away",
              after=crashed, where=lambda data: data["domid"] == first)
    told(host, "dump complete", 60, crashed)
    recovered(host, run, again, 300)


@scenario('on_crash="vicover"', SLOW[:-1] + ',on_recrash=queue"')
def queued_crash(host, run):
    """Recovery crashes while the first dump is still being written, and is dumped and
    recovered in its turn."""
    crashed, again = crash_twice(host, run)
    told(host, "job queued", 60, again)
    first_done = told(host, "dump complete", 900, again)
    second_done = told(host, "dump complete", 900, first_done)
    keep_told(host, run, crashed)
    recovered(host, run, again, 300)
    told(host, "recovery settled", 60, again)
    told(host, "recovery times", 60, second_done)
    run.result["host_free_pages_before"] = crashed.data["free_pages_before"]
    ends_well(host, run, crashed, again, dumps=2)
    full_memory(run, "the second recovery domain")


def standby_takes_over(host, run, crashed):
    """The standby is used, and another one is built; the event that tells it."""
    told(host, "standby adopted", 60, crashed)
    recovered(host, run, crashed, 300)
    handed_over(host, crashed)
    gone = host.wait("domain_gone", 60, "the crashed domain did not go away", after=crashed,
                     where=lambda data: data["domid"] == crashed.data["domid"])
    created = host.wait("domain_created", 60, "no other standby was created", after=gone)
    told(host, "standby ready", 300, created)
    return created


def standby_story(host, run, crashes: int):
    """Standbys take over, one from the other; the last one goes with its guest. Of
    several dumps the host's options let the last one stay."""
    start(host, run)
    # They are read at each crash.
    host.step("host_options keep=1")
    told(host, "standby ready", 300)
    first = crashed = crash(host, run)
    last_one = standby_takes_over(host, run, crashed)
    for _ in range(crashes - 1):
        crashed = crash_again(host, run)
        last_one = standby_takes_over(host, run, crashed)
        told(host, "dump removed", 60, crashed)
    run.result["host_free_pages_before"] = first.data["free_pages_before"]
    ends_well(host, run, first, crashed, 10)
    full_memory(run)
    last = host.events[-1]
    host.step("destroy", 60)
    host.wait("domain_gone", 60, "the standby outlived its guest", after=last,
              where=lambda data: data["domid"] == last_one.data["domid"])


@scenario('on_crash="vicover"', 'vicover="standby=1"', slack_mib=STANDBY_MIB)
def standby(host, run):
    """A standby whose first instruction is still to come."""
    standby_story(host, run, 1)


@scenario('on_crash="vicover"', 'vicover="standby=booted"', slack_mib=STANDBY_MIB)
def standby_booted(host, run):
    """Standbys that have booted until they wait for their disk; the second one takes
    over from a domain that was a standby itself."""
    standby_story(host, run, 2)


def reaches(host, domid: int, mib: int, what: str) -> None:
    """Waits for a change of memory; the guest's balloon moves page by page."""
    host.step(f"mem_set {mib}", 30)
    host.step(f"wait_memory {domid} {mib} 90", 100, check=False)
    pages = figures_of(host, domid)["tot_pages"]
    if abs(pages - mib * PAGES_PER_MIB) > 2 * PAGES_PER_MIB:
        raise HostError(f"{what}: {pages} pages instead of {mib} MiB after 90 s")


def bad_option_refused(host) -> None:
    """xl creates no guest with a wrong vicover option, and names it."""
    host.wait("dom0_ready", 180, "dom0 did not come up")
    host.step("create_with no_such_key=1", 180)
    created = host.wait("create", 1, "no result of xl create", after=host.events[0]).data
    if created["status"] == 0:
        raise HostError("xl created a guest with a wrong vicover option")
    if "no_such_key" not in created["output"]:
        raise HostError(f"xl's refusal does not name the option: {created['output']}")


@scenario('on_crash="vicover"', 'vicover="dump_level=1,io=fixed:8M"')
def bookkeeping(host, run):
    """A recovered guest is as any other for xl, also when the xl that recovered it was
    killed meanwhile: memory, save and restore. Before it is there, xl refuses one whose
    options are wrong."""
    has_xl = run.options.toolstack == "xl"
    if has_xl:
        bad_option_refused(host)
    start(host, run)
    if has_xl:
        host.step("resumer")
        host.step(f"kill_handler {KILLED_AFTER_MS}")
    crashed = crash(host, run)
    recovered(host, run, crashed, 300)
    handed_over(host, crashed)
    if has_xl:
        host.wait("handler_killed", 1, "xl was not killed", after=crashed)
        told(host, "job resumed", 1, crashed)
    recorded(host, run)
    memory, domid = run.options.memory, run.result["recovery_domid"]
    host.step("list")
    listed = host.wait("domains", 1, "no list of domains", after=crashed).data["list"]
    row = next(line.split() for line in listed if line.startswith("guest "))
    if int(row[2]) != memory:
        raise HostError(f"xl list says {row[2]} MiB, the configuration {memory}")
    info = figures_of(host, domid)
    run.result["pod"] = [info["pod_entries"], info["pod_cache_pages"]]
    if info["pod_entries"] != info["pod_cache_pages"]:
        raise HostError(f"entries without a page behind them: {info}")
    reaches(host, domid, memory * 3 // 4, "xl mem-set down")
    reaches(host, domid, memory, "xl mem-set up")
    host.step("save", 300)
    host.step("restore", 300)
    restored = host.wait("restored", 1, "no domid of the restored guest")
    run.result["recovery_domid"] = restored.data["domid"]
    host.wait("acked", 60, "the restored guest's service does not answer", after=restored)
    ends_well(host, run, crashed, crashed)


@scenario('on_crash="vicover"', SLOW)
def destroyed_meanwhile(host, run):
    """An operator destroys the crashed domain, once while recovery is built and once
    while it runs and most of the dump is still to be written."""
    start(host, run)
    crashed = crash(host, run)
    told(host, "recovery seeded", 120, crashed)
    destroy_crashed(host, crashed)
    recovered(host, run, crashed, 300)
    told(host, "recovery times", 300, crashed)
    nothing_claimed(host)

    again = crash_again(host, run)
    recovered(host, run, again, 300)
    destroy_crashed(host, again)
    told(host, "recovery times", 300, again)
    nothing_claimed(host)
    settled(host, run, again, 60)
    keep_told(host, run, crashed)
    dumps = [line.split()[0] for line in run.result["dumps"]]
    if any(not name.endswith(".incomplete") for name in dumps):
        raise HostError(f"a dump without most of its pages counts as complete: {dumps}")
    full_memory(run)


def destroy_crashed(host, crashed) -> None:
    """xl destroy of the domain that crashed, by the name it has by then."""
    domid = crashed.data["domid"]
    host.step(f"destroy_crashed {domid}", 60)
    host.wait("domain_gone", 60, f"domain {domid} was not destroyed", after=crashed,
              where=lambda data: data["domid"] == domid)


def nothing_claimed(host) -> None:
    """No free memory of the host is kept for a domain that will never come."""
    last = host.events[-1]
    host.step("report")
    claimed = host.wait("free_min", 5, "no memory report", after=last).data["claimed_pages"]
    if claimed:
        raise HostError(f"{claimed} pages are claimed for nobody")
