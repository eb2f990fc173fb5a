# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can be run. A scenario is a function (host, run): it makes dom0 do steps,
waits for events, and leaves figures in `run.result`; it raises HostError when
the story goes wrong. Add one with @scenario(xl.cfg keys...)."""

import typing

from . import xlcfg
from .pieces import HostError

SCENARIOS = {}


class Scenario(typing.NamedTuple):
    """A story, keys for the guest's xl.cfg, the piece its disk is from, the least
    memory that the host has free beside the guest, and where the story needs a guest
    of its own shape, that."""

    story: typing.Callable
    xlcfg: tuple
    disk: str
    slack_mib: int
    vcpus: int
    memory_mib: int


def scenario(*xlcfg: str, disk: str = "guest", slack_mib: int = 0, vcpus: int = 0,
             memory_mib: int = 0):
    """Registers a function under its name. 0 vCPUs or MiB: as the run's options say."""

    def register(function):
        name = function.__name__.replace("_", "-")
        SCENARIOS[name] = Scenario(function, xlcfg, disk, slack_mib, vcpus, memory_mib)
        return function

    return register


def start(host, run, client: str = "client", load: tuple = ()) -> None:
    """Brings the guest up, gives it work to do and a client that counts.

    `client` is the step that starts the client; `load` the MiB of anonymous
    memory, tmpfs and page cache to fill.
    """
    begin(host, run)
    host.step(client)
    host.wait("first_ack", 180, "the guest's service did not answer")
    memory = run.options.memory
    anonymous, tmpfs, cache = load or (memory // 4, memory // 16, 64)
    host.step(f"request 240 load {anonymous} {tmpfs} {cache}", 270)
    host.wait("acked", 60, "the service does not acknowledge writes",
              where=lambda data: data["number"] >= 100)


def is_told(event, what: str) -> bool:
    """Whether an event of the host's is one of libvicover's: `what` is its two names,
    such as "dump complete"."""
    return event.name == "vicover" and f"{event.data['about']} {event.data['event']}" == what


def told(host, what: str, deadline_s: float, after=None):
    """Waits until libvicover tells that something happened."""
    return host.wait("vicover", deadline_s, f"libvicover does not tell of '{what}'", after=after,
                     where=lambda data: f"{data['about']} {data['event']}" == what)


def cause_told(host, crashed) -> None:
    """What the guest died of was told: our guests ask for it."""
    died = told(host, "guest died", 60, crashed).data
    callers = [place["function"] for place in died["trace"]]
    if not died["title"].endswith("sysrq triggered crash") or "sysrq_handle_crash" not in callers:
        raise HostError(f"the guest is said to have died of something else: {died}")


def is_recorded(run) -> bool:
    """Whether the guest's options leave crashes their records."""
    return "record=0" not in xlcfg.spec(run.options)


def recorded(host, run) -> None:
    """The crash has one record, which says what was told of it, and is over."""
    if not is_recorded(run):
        return
    last = host.events[-1]
    host.step("records", 90)
    records = host.wait("records", 1, "no records of crashes", after=last).data["list"]
    if len(records) != 1:
        raise HostError(f"{len(records)} records of one crash")
    record = run.result["record"] = records[0]
    found = {name: record[name] for name in ("is_over", "outcome", "failure")}
    found |= {"recovery": record["recovery"]["state"], "dump": record["dump"]["state"],
              "domid": record["recovery"]["domid"]}
    expected = {"is_over": True, "outcome": "adopted", "failure": None, "recovery": "settled",
                "dump": "complete", "domid": run.result["recovery_domid"]}
    if found != expected:
        raise HostError(f"the crash's record says {found}, and it was {expected}")
    died = next(event.data for event in host.events if is_told(event, "guest died"))
    if record["died"]["signature"] != died["signature"] or not record["log"]:
        raise HostError(f"the record has another death than was told: {record['died']}")
    listed = tool(host, "list")
    if len(listed) != 2 or "recovered" not in listed[1] or "complete" not in listed[1]:
        raise HostError("vicover list says:\n" + "\n".join(listed))


def tool(host, words: str) -> list:
    """What the program vicover prints."""
    last = host.events[-1]
    host.step(f"tool {words}")
    return host.wait("tool", 1, f"vicover {words} prints nothing", after=last).data["lines"]


def looked_at(host) -> None:
    """A crash that is being handled is seen so, by whoever asks."""
    lines = tool(host, "status")
    words = ("ago", "died of", "recovery", "dump", "memory")
    if len(lines) != len(words) or not all(map(str.__contains__, lines, words)):
        raise HostError("vicover status says:\n" + "\n".join(lines))


def keep_told(host, run, crashed) -> None:
    """What libvicover told goes into the result, with its time since the crash."""
    run.result["told"] = [
        [round(event.at_s - crashed.at_s, 3), event.data]
        for event in host.events if event.name == "vicover"
    ]


def begin(host, run) -> None:
    """The guest is created on a host that is watched."""
    host.wait("dom0_ready", 180, "dom0 did not come up")
    host.step("watch")
    host.step("follow_log")
    create(host, run)


def create(host, run) -> None:
    """The toolstack creates the guest and watches it."""
    if run.options.toolstack == "xl":
        before = host.events[-1]
        host.step("create", 180)
        created = host.wait("create", 1, "no result of xl create", after=before)
        run.result["create_status"] = created.data["status"]
        if created.data["status"] != 0:
            raise HostError("xl create failed:\n" + created.data["output"])
        return
    host.step("toolstack", 60)
    begun = host.wait_any(
        ("xl", "toolstack_ended"), 180, "the toolstack does not watch a guest",
        where=lambda data: "status" in data or "Waiting for domain" in data["line"],
    )
    if begun.name == "toolstack_ended":
        raise HostError(f"the toolstack ended at once, status {begun.data['status']}")


def crash(host, run, processor: int = 0):
    """Crashes the guest on one of its processors; the event that tells it."""
    host.step("report")
    before = host.wait("free_min", 5, "no memory report")
    run.result["host_free_mib_running"] = before.data["free_pages"] // 256
    host.step(f"crash {processor}", 10)
    return host.wait("domain_crashed", 20, "the guest did not crash")


def recovered(host, run, crashed, deadline_s: float) -> None:
    """The service is back, in another domain, with all it had promised."""
    old = crashed.data["domid"]
    up = host.wait("up", deadline_s, "the service did not come back", after=crashed)
    unpaused = host.wait(
        "domain_unpaused", 1, "no other domain was started",
        where=lambda data: data["domid"] != old, after=crashed,
    )
    # A standby was created before the crash.
    created = host.wait(
        "domain_created", 1, "no other domain was created",
        where=lambda data: data["domid"] == unpaused.data["domid"],
    )
    run.result.update(
        service_down_s=up.data["down_s"],
        recovery_domid=unpaused.data["domid"],
        recovery_created_s=round(created.at_s - crashed.at_s, 3),
        recovery_unpaused_s=round(unpaused.at_s - crashed.at_s, 3),
        host_free_pages_before=crashed.data["free_pages_before"],
    )


def verify(host, run, deadline_s: float = 60) -> dict:
    """The client ends, and tells what was acknowledged and what is there."""
    last = host.events[-1]
    host.step("verify", deadline_s, check=False)
    verified = host.wait("verified", 1, "the client did not report", after=last).data
    run.result.update(durable_writes_acked=verified["acked"],
                      durable_writes_lost=verified["lost"])
    return verified


def nothing_lost(verified: dict) -> None:
    """Every write that was acknowledged is there, by `verify`'s answer."""
    if verified["lost"] or not verified["list_complete"]:
        raise HostError(f"acknowledged writes were lost: {verified}")


def may_lack(run) -> int:
    """Pages that a recovery domain may do without: Xen keeps a few, and a PV guest has
    nothing beside its RAM that they could be taken from (host/xen/settle.rs)."""
    return 64 if 'type="pv"' in run.options.xlcfg else 0


def of_calls(run) -> int:
    """Pages that Xen takes for the time of a call, to tell the registers of a processor that
    has stopped: relied_on.rs, `getcontext_takes_pages`."""
    return 2 if run.options.vcpus > 1 else 0


def full_memory(run, what: str = "the recovery domain") -> None:
    """The domain that is left has all the memory of its configuration."""
    if run.result["recovery"]["tot_pages"] + may_lack(run) < run.options.memory * 256:
        raise HostError(f"{what} lacks memory")


def settled(host, run, crashed, deadline_s: float) -> None:
    """The crashed domain is gone; what remains is what should remain."""
    old = crashed.data["domid"]
    gone = host.wait(
        "domain_gone", deadline_s, f"the crashed domain {old} did not go away",
        where=lambda data: data["domid"] == old, after=crashed,
    )
    last = [event for event in host.events if event.name == "acked"][-1]
    host.wait("acked", 60, "the service acknowledges no more writes", after=last)
    host.step("report")
    least = host.wait("free_min", 5, "no memory report", after=gone)
    verified = verify(host, run)
    last = host.events[-1]
    host.step("leftovers")
    left = host.wait("leftovers", 1, "no list of leftovers", after=last)
    host.step("list")
    listed = host.wait("domains", 1, "no list of domains", after=last)
    info = host.wait(
        "domain_info", 1, "no figures of the recovery domain", after=gone,
        where=lambda data: data["domid"] == run.result["recovery_domid"],
    )
    run.result.update(
        crashed_domain_gone_s=gone.at_s - crashed.at_s,
        host_free_pages_min=least.data["free_pages_min"],
        xl_peak_rss_bytes=least.data["xl_peak_rss_bytes"],
        claimed_pages=least.data["claimed_pages"],
        claimed_pages_most=least.data["claimed_pages_most"],
        leftovers=left.data,
        recovery=info.data,
        domains=listed.data["list"],
        dumps=listed.data["dumps"],
    )
    nothing_lost(verified)
    if left.data["xenstore"] or left.data["backends"]:
        raise HostError(f"left behind: {left.data}")


@scenario('on_crash="restart"')
def stock_restart(host, run):
    """xl's own restart, the time to compare with."""
    start(host, run)
    crashed = crash(host, run)
    recovered(host, run, crashed, 120)
    settled(host, run, crashed, 10)


def coredump_story(host, run):
    """From start to end, with a dump of xl's own in it.

    xl tries every gfn of a PVH guest up to its special pages below 4 GiB, a
    million of them however small the guest, so this takes minutes here.
    """
    start(host, run)
    host.step("make_dump_directory")
    crashed = crash(host, run)
    recovered(host, run, crashed, 1800)
    settled(host, run, crashed, 10)
    if not run.result["dumps"]:
        raise HostError("xl left no dump")


@scenario('on_crash="coredump-restart"')
def stock_coredump_restart(host, run):
    """xl's own dump, then its restart."""
    coredump_story(host, run)


# xl's own dump of a small PV guest takes a minute here, of a PVH guest many: it tries
# every frame up to 4 GiB.
@scenario('on_crash="vicover"', 'type="pv"', memory_mib=192)
def vicover_no_library(host, run):
    """Patched xl without the library: its own dump, then its restart."""
    host.wait("dom0_ready", 180, "dom0 did not come up")
    host.step("remove_library")
    coredump_story(host, run)


@scenario('on_crash="vicover"')
def vicover(host, run):
    """The dump and the recovery at once, on the dead guest's memory."""
    start(host, run)
    crashed = crash(host, run)
    if is_recorded(run):
        told(host, "dump started", 300, crashed)
        looked_at(host)
    recovered(host, run, crashed, 300)
    for what in ("recovery settled", "dump complete"):
        told(host, what, 900, crashed)
    settled(host, run, crashed, 10)
    cause_told(host, crashed)
    recorded(host, run)
    keep_told(host, run, crashed)
    if not run.result["dumps"]:
        raise HostError("there is no dump")
    result = run.result
    if result["host_free_pages_min"] + of_calls(run) < result["host_free_pages_before"]:
        raise HostError("the host's free memory fell below what it was before")
    full_memory(run)
    if not result["claimed_pages_most"] or result["claimed_pages"]:
        raise HostError("released memory was not claimed until recovery had it: "
                        f"{result['claimed_pages_most']} pages at most, "
                        f"{result['claimed_pages']} in the end")
