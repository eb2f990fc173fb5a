# SPDX-License-Identifier: LGPL-2.1-or-later
"""What may fail under a crash that is being handled: the disk that the dump goes to, the
guest's own, the guest's kernel, dom0 itself. Several crashes share a host."""

from .pieces import HostError
from .recovery_scenarios import (crash_again, destroy_crashed, handed_over,
                                 nothing_claimed)
from .scenarios import (crash, create, full_memory, is_told, keep_told, recovered, scenario,
                        settled, start, told)

# A service that waits for what fails comes back later.
BACK_S = 120
DUMP_DISK_MIB = 600
# The whole guest goes to the dump, so that there is time to meddle with it.
SLOW_DUMP = 'vicover="dump_level=0,reserve=1M,io=fixed:16M"'
# Of which hardly half must be given back before there is a recovery domain.
SMALL_MIB = 384
# Of a dump: it is over, one way or the other.
ENDS = ("dump complete", "dump incomplete", "dump not_made")
# How long libvicover waits for a backend, and a bit (host/xen/detach.rs).
DETACH_S = 60 + 30


def fill_memory(host, run) -> None:
    """The guest's memory has something in it, as before its first crash."""
    memory = run.options.memory
    host.step(f"request 240 load {memory // 4} {memory // 16} 16", 270)


def next_crash(host, run):
    """The guest crashes, or whatever has taken its place; the event that tells it."""
    if "recovery_domid" not in run.result:
        return crash(host, run)
    fill_memory(host, run)
    return crash_again(host, run)


def told_percent(host, percent: int, after) -> None:
    """Waits until so much of the dump is written."""
    host.wait("vicover", 300, f"the dump does not come to {percent} %", after=after,
              where=lambda data: data.get("percent", 0) >= percent)


def dump_ended(host, crashed, deadline_s: float = 300):
    """Waits until the crash's dump is over; libvicover's event that tells how."""
    return host.wait("vicover", deadline_s, "the dump does not end", after=crashed,
                     where=lambda data: f"{data['about']} {data['event']}" in ENDS)


def over(host, crashed) -> None:
    """The crash is over: its domain has gone, and nothing is claimed or written down."""
    domid = crashed.data["domid"]
    host.wait("domain_gone", 300, f"the crashed domain {domid} did not go away", after=crashed,
              where=lambda data: data["domid"] == domid)
    host.step("no_journal 300", 310)
    nothing_claimed(host)


def keep_dumps(host, name: str, after) -> list:
    """The dumps that are on their disk go where they are looked at later; their names."""
    host.step(f"keep_dumps {name}", 120)
    return host.wait("kept", 1, "no list of dumps", after=after).data["list"]


def kinds_of(dumps: list) -> list:
    """Whether each dump says that it is complete; what is beside one is no dump."""
    kinds = {"incomplete": "incomplete", "kdump": "complete", "elf": "complete"}
    ends = (name.rpartition(".")[2] for name in dumps)
    return sorted(kinds[end] for end in ends if end in kinds)


def row_of(host, run, name: str, crashed, ended) -> dict:
    """What a crash has come to, for the result; the dump's name must say what was told."""
    is_complete = is_told(ended, "dump complete")
    dumps = keep_dumps(host, name, crashed)
    row = {"case": name, "dump": ended.data["event"], "dumps": dumps,
           "down_s": run.result["service_down_s"]}
    if kinds_of(dumps) not in ([["complete"]] if is_complete else [[], ["incomplete"]]):
        raise HostError(f"{name}: the dump is {ended.data['event']}, its files are {dumps}")
    run.timeline.say(f"{name}: dump {ended.data['event']}, service back after "
                     f"{row['down_s']:.1f} s")
    return row


def full_at_the_start(host, crashed) -> None:
    """There is no room before the dump begins."""


def full_in_the_middle(host, crashed) -> None:
    """Somebody takes the room when half of the dump is written."""
    told_percent(host, 50, crashed)
    host.step("fill_dump_disk 0")


def full_at_the_end(host, crashed) -> None:
    """Somebody takes the room when the dump is nearly written."""
    told_percent(host, 90, crashed)
    host.step("fill_dump_disk 0")


def writes_fail(host, crashed) -> None:
    """Every write fails from the middle of the dump on."""
    told_percent(host, 40, crashed)
    host.step("fail_writes dumps")


def stalls(host, crashed) -> None:
    """Nothing that is written ends, from when the recovery domain runs until its service
    is back."""
    told(host, "recovery unpaused", BACK_S, crashed)
    host.step("stall dumps")
    host.step("writer_waits 60", 70)
    host.wait("up", BACK_S, "the service waits for the disk of dumps", after=crashed)
    host.step("go_on dumps")


def nothing_fails(host, crashed) -> None:
    """As ever: what failed before has left nothing behind."""


# How the dump's disk fails, what is done before the crash, and what the dump comes to.
DISK_CASES = (
    (full_at_the_start, "fill_dump_disk 200", ("not_made", "incomplete")),
    (full_in_the_middle, None, ("incomplete",)),
    (full_at_the_end, None, ("incomplete",)),
    (writes_fail, None, ("incomplete",)),
    (stalls, None, ("complete",)),
    (nothing_fails, None, ("complete",)),
)


@scenario('on_crash="vicover"', SLOW_DUMP, memory_mib=SMALL_MIB)
def dump_disk(host, run):
    """The disk of dumps is full at the start, in the middle, at the end; it fails; it
    stalls: the service is back each time."""
    host.wait("dom0_ready", 180, "dom0 did not come up")
    host.step(f"dump_disk {DUMP_DISK_MIB}", 60)
    start(host, run, load=(SMALL_MIB // 4, SMALL_MIB // 16, 16))
    rows, first = run.result.setdefault("rows", []), None
    for meddle, before, expected in DISK_CASES:
        if before:
            host.step(before)
        crashed = next_crash(host, run)
        first = first or crashed
        meddle(host, crashed)
        recovered(host, run, crashed, BACK_S)
        ended = dump_ended(host, crashed)
        over(host, crashed)
        rows.append(row_of(host, run, meddle.__name__, crashed, ended))
        if ended.data["event"] not in expected:
            raise HostError(f"{rows[-1]}: expected a dump that is {expected}")
    settled(host, run, crashed, 60)
    keep_told(host, run, first)
    full_memory(run)


@scenario('on_crash="vicover"', SLOW_DUMP, memory_mib=SMALL_MIB)
def no_recovery(host, run):
    """The guest's kernel has gone, so that there is no recovery domain; the disk of dumps
    stalls before there is memory for one; the guest's own disk does not let go."""
    host.wait("dom0_ready", 180, "dom0 did not come up")
    host.step(f"dump_disk {DUMP_DISK_MIB}", 60)
    host.step("map_guest_disk")
    start(host, run, load=(SMALL_MIB // 4, SMALL_MIB // 16, 16))
    rows, first = run.result.setdefault("rows", []), None
    for meddle in (create_refused, no_memory, backend_stalls):
        crashed, row = meddle(host, run)
        first = first or crashed
        recovered(host, run, crashed, BACK_S)
        ended = dump_ended(host, crashed)
        over(host, crashed)
        rows.append({**row_of(host, run, meddle.__name__, crashed, ended), **row})
    settled(host, run, crashed, 60)
    keep_told(host, run, first)
    full_memory(run)


def domain_created(host, after) -> bool:
    """Whether there is another domain since."""
    return any(event.name == "domain_created"
               for event in host.events[host.events.index(after):])


def create_refused(host, run):
    """libxl cannot build the recovery domain: the dump, then xl's restart."""
    host.step("hide_kernel")
    crashed = next_crash(host, run)
    told(host, "recovery creating_again", 120, crashed)
    failed = told(host, "recovery failed", 120, crashed)
    host.step("show_kernel")
    return crashed, {"why": failed.data["why"]["text"]}


def no_memory(host, run):
    """Too few pages can be given back, since no more can be saved: there is no recovery
    domain until they are."""
    host.step("stall dumps")
    crashed = next_crash(host, run)
    host.step("writer_waits 60", 70)
    if domain_created(host, crashed):
        raise HostError("there is a recovery domain, and no memory was given back for it")
    host.step("go_on dumps")
    told(host, "recovery unpaused", BACK_S, crashed)
    return crashed, {}


def crash_stalled(host, run, disk: str):
    """The guest crashes while what it has asked of a disk does not end: there is no
    recovery domain. The event that tells the crash, and why recovery failed."""
    domid, last = run.result["recovery_domid"], host.events[-1]
    host.step(f"stall {disk}")
    # Its service waits for the disk, so it cannot be asked to crash.
    host.wait("down", 60, "the service does not wait for its disk", after=last)
    host.step("sysrq c", 10)
    crashed = host.wait("domain_crashed", 60, "the guest did not crash", after=last,
                        where=lambda data: data["domid"] == domid)
    failed = told(host, "recovery failed", DETACH_S, crashed)
    if domain_created(host, crashed):
        raise HostError("another domain has the disk, to which the dead one may still write")
    host.step(f"go_on {disk}")
    return crashed, failed.data["why"]["text"]


def backend_stalls(host, run):
    """Requests of the dead guest do not end, so nobody may have its disk: the dump, then
    xl's restart."""
    fill_memory(host, run)
    crashed, why = crash_stalled(host, run, "guest")
    return crashed, {"why": why}


# Little is in use, so that much is given back, and claimed, before there is a recovery
# domain; the rest is slow.
CLAIMING = 'vicover="dump_level=31,io=fixed:1M"'


@scenario('on_crash="vicover"', CLAIMING)
def destroyed(host, run):
    """An operator destroys the crashed domain while memory is claimed for its successor,
    the successor while it is built, and the successor while it runs."""
    start(host, run, load=(32, 8, 16))
    rows = run.result["rows"] = []
    first = None
    for meddle in (crashed_one_claimed, successor_being_built, successor_running):
        claimed, crashed = meddle(host, run)
        first = first or crashed
        ended = dump_ended(host, crashed)
        over(host, crashed)
        rows.append({"case": meddle.__name__, "claimed_pages_before": claimed,
                     "claimed_pages": 0, "dump": ended.data["event"],
                     "down_s": run.result["service_down_s"]})
        run.timeline.say(f"{meddle.__name__}: {claimed} pages were claimed, dump "
                         f"{ended.data['event']}")
    settled(host, run, crashed, 60)
    keep_told(host, run, first)
    full_memory(run)


def claimed_now(host) -> int:
    """Pages of the host that are kept for a domain."""
    last = host.events[-1]
    host.step("report")
    return host.wait("free_min", 5, "no memory report", after=last).data["claimed_pages"]


def crash_of(host, run):
    """As next_crash, of a guest that has much memory left."""
    return crash_again(host, run) if "recovery_domid" in run.result else crash(host, run)


def crashed_one_claimed(host, run):
    """The crashed domain goes while the recovery domain is built."""
    crashed = crash_of(host, run)
    told(host, "recovery seeded", 120, crashed)
    claimed = claimed_now(host)
    destroy_crashed(host, crashed)
    if not claimed:
        raise HostError("nothing was claimed when the crashed domain was destroyed")
    recovered(host, run, crashed, BACK_S)
    return claimed, crashed


def successor_being_built(host, run):
    """The recovery domain goes before it runs: it is built once more, or xl restarts the
    guest."""
    crashed = crash_of(host, run)
    created = host.wait("domain_created", 120, "no recovery domain", after=crashed)
    claimed = claimed_now(host)
    host.step(f"destroy_domain {created.data['domid']}", 60)
    host.wait("domain_gone", 60, "the recovery domain is left", after=created,
              where=lambda data: data["domid"] == created.data["domid"])
    recovered(host, run, crashed, BACK_S)
    return claimed, crashed


def successor_running(host, run):
    """The recovery domain goes while most of the dump is to be written: the operator wants
    no guest any more, until he creates it."""
    crashed = crash_of(host, run)
    recovered(host, run, crashed, BACK_S)
    claimed, last = claimed_now(host), host.events[-1]
    host.step("destroy", 60)
    told(host, "recovery gone", 600, last)
    over(host, crashed)
    create(host, run)
    host.wait("up", BACK_S, "the guest that was created anew does not serve", after=last)
    domain = host.wait("domain_unpaused", 1, "no domain runs", after=last)
    run.result["recovery_domid"] = domain.data["domid"]
    return claimed, crashed


@scenario('on_crash="vicover"', 'vicover="dump_level=0,io=fixed:4M"', memory_mib=SMALL_MIB)
def power_cut(host, run):
    """The host loses its power while the dump is written: no guest is left, the dump says
    that it is incomplete, and all is as ever once the guest is created again."""
    start(host, run, load=(SMALL_MIB // 4, SMALL_MIB // 16, 16))
    crashed = crash(host, run)
    recovered(host, run, crashed, BACK_S)
    told_percent(host, 20, crashed)
    acked = [event.data["number"] for event in host.events if event.name == "acked"][-1]
    last = host.events[-1]
    if any(is_told(event, end) for event in host.events for end in ENDS):
        raise HostError("the dump was over before the power was cut")
    host.power_cut()

    host.wait("dom0_ready", 180, "dom0 did not come up again", after=last)
    for step in ("watch", "follow_log", "leftovers", "list"):
        host.step(step)
    left = host.wait("leftovers", 1, "no list of leftovers", after=last).data
    dumps = host.wait("domains", 1, "no list of dumps", after=last).data["dumps"]
    names = [line.split()[0] for line in dumps]
    if left["xenstore"] or left["backends"] or kinds_of(names) != ["incomplete"]:
        raise HostError(f"after the power cut there are {names}, and {left}")
    create(host, run)
    host.step("request 180 uptime", 200)
    host.step(f"check {acked}", 60, check=False)
    verified = host.wait("verified", 1, "no answer of what is stored", after=last).data
    run.result["rows"] = [{"case": "power_cut", "dumps": names, "acked": acked,
                           "lost": verified["lost"]}]
    if verified["lost"] or not verified["list_complete"]:
        raise HostError(f"acknowledged writes were lost with the power: {verified}")
    crash_after_power_cut(host, run, host.events[-1])


def crash_after_power_cut(host, run, last) -> None:
    """The guest that was created anew crashes, and its dump is complete."""
    host.step("client")
    host.wait("acked", 60, "the service does not acknowledge writes", after=last)
    host.step("crash 0", 10)
    again = host.wait("domain_crashed", 60, "the guest did not crash", after=last)
    recovered(host, run, again, BACK_S)
    handed_over(host, again, 300)
    settled(host, run, again, 60)
    keep_told(host, run, again)
    names = [line.split()[0] for line in run.result["dumps"]]
    if kinds_of(names) != ["complete", "incomplete"]:
        raise HostError(f"not the dumps that should be there: {names}")
    full_memory(run)
