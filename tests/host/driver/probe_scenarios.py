# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests that run a kernel of our own (probe/probe.c): some search their memory for what
another guest left in it, some crash with memory that lies."""

from .fault_scenarios import BACK_S, dump_ended, over
from .pieces import HostError
from .recovery_scenarios import figures_of, nothing_claimed
from .scenarios import (crash, full_memory, keep_told, scenario, settled, start, told)

CANARY_MIB = 384
# What others may have while the guest's memory is given back, and what of the guest is
# full of the canary.
SPARE_MIB, FILLED_MIB = 120, 272
# Slowly, so that others come and go meanwhile.
CANARY = 'vicover="dump_level=0,io=fixed:4M"'
# Of a guest that poses; hostile_guests.rs has its memory, and libvicover says of each
# what it makes of it: else the lie was not heard at all.
POSING_MIB = 256
LIES = {
    "forged": "page descriptors are not understood",
    "circular": "page tables have no end",
    "all-free": " to dump, level 31",
    "too-many": "the guest counts 16777216",
    "over-budget": "then the search was ended",
    "endless": "kallsyms_names is missing or out of range",
}
KEPT_MIB = 64
# xl with libvicover in it, whatever the guest says: the dump's buffer, which is as large
# as the guest may fill it, and a bit.
MOST_RSS_BYTES = 128 << 20


def searches(host, run):
    """The guest crashes while others look at all of the memory that they get; how many
    pages of these had what it had filled its own with, and the crash."""
    start(host, run, load=(FILLED_MIB, 8, 16))
    host.step("search")
    crashed = crash(host, run)
    up = host.wait("up", BACK_S, "the service did not come back", after=crashed)
    unpaused = told(host, "recovery unpaused", 1, crashed)
    dumped = told(host, "dump complete", 300, crashed)
    host.step("search_no_more", 60)
    over(host, crashed)
    # All that is free in the end, with what nobody got meanwhile.
    host.step("search_once", 60)
    found = [event for event in host.events if event.name == "searched"]
    meanwhile = [event for event in found if crashed.at_s < event.at_s < dumped.at_s]
    run.result.update(
        service_down_s=up.data["down_s"], recovery_domid=unpaused.data["domid"],
        searches=len(meanwhile), searched_pages=sum(event.data["pages"] for event in found),
        searched_pages_meanwhile=sum(event.data["pages"] for event in meanwhile),
        canaries=sum(event.data["canaries"] for event in found),
        filled=sum(event.data["filled"] for event in found),
    )
    run.timeline.say(f"{len(meanwhile)} guests looked at "
                     f"{run.result['searched_pages_meanwhile']} pages while memory was given "
                     f"back: {run.result['canaries']} pages with the canary")
    if run.result["searched_pages_meanwhile"] < run.options.memory * 256:
        raise HostError(f"less was searched than the guest had: {run.result}")
    settled(host, run, crashed, 60)
    keep_told(host, run, crashed)
    full_memory(run)


@scenario('on_crash="vicover"', CANARY, memory_mib=CANARY_MIB, slack_mib=SPARE_MIB)
def canary(host, run):
    """Guests that start while a crashed one's memory is given back look at every page they
    get: nothing of it is there."""
    searches(host, run)
    if run.result["canaries"]:
        raise HostError(f"{run.result['canaries']} pages of the crashed guest were seen")


@scenario('on_crash="vicover"', CANARY, memory_mib=CANARY_MIB, slack_mib=SPARE_MIB)
def canary_unscrubbed(host, run):
    """The same with a library that gives memory back as it is (tests/overlay unscrubbed):
    it is seen."""
    searches(host, run)
    if not run.result["canaries"]:
        raise HostError("nothing of the crashed guest was seen: the search sees nothing")


@scenario('on_crash="vicover"', 'vicover="dump_level=31,buffer=16M"', memory_mib=POSING_MIB,
          slack_mib=KEPT_MIB + 32)
def hostile(host, run):
    """Guests crash whose memory lies: the service is back, xl lives and is not large, and
    no other guest has lost a page."""
    host.wait("dom0_ready", 180, "dom0 did not come up")
    for step in ("watch", "follow_log", "follow_console", f"keep {KEPT_MIB}"):
        host.step(step, 60)
    kept = host.wait("keep", 60, "the bystander does not run")
    keeper = host.wait("domain_unpaused", 1, "the bystander has no number",
                       where=lambda data: data["domid"] != 0).data["domid"]
    pages = figures_of(host, keeper)["tot_pages"]
    rows = run.result["rows"] = []
    for name, heard in LIES.items():
        rows.append(pose(host, run, name, heard))
    if figures_of(host, keeper)["tot_pages"] != pages:
        raise HostError("the bystander has lost memory")
    host.step("press_key keep")
    looked = host.wait("keep", 60, "the bystander does not answer", after=kept)
    if ", 0 have changed" not in looked.data["line"]:
        raise HostError(f"a bystander's memory has changed: {looked.data['line']}")
    host.step("leftovers")
    left = host.wait("leftovers", 1, "no list of leftovers").data
    run.result["leftovers"] = left
    if left["xenstore"] or left["backends"]:
        raise HostError(f"left behind: {left}")


def pose(host, run, name: str, heard: str) -> dict:
    """A guest crashes as one of those that lie, of which libvicover has `heard`; what came
    of it."""
    last = host.events[-1]
    host.step(f"create_posing {name} {POSING_MIB}", 120)
    ready = says(host, "ready to pose", last)
    host.step("press_key guest")
    crashed = host.wait("domain_crashed", 60, "the guest does not crash", after=ready)
    back = says(host, "ready to pose", crashed)
    ended = dump_ended(host, crashed)
    over(host, crashed)
    host.step("xl_lives")
    host.step("report")
    report = host.wait("free_min", 5, "no memory report", after=ended).data
    told_of = [event.data for event in host.events[host.events.index(crashed):]
               if event.name == "vicover" and event.data["about"] == "guest"]
    plan = next(data for data in told_of if data["event"] == "planned")
    row = {"case": name, "down_s": round(back.at_s - crashed.at_s, 3),
           "dump": ended.data["event"], "wanted_pages": plan["wanted_pages"],
           "heard": [data["line"] for data in told_of if heard in data["line"]],
           "xl_peak_rss_bytes": report["xl_peak_rss_bytes"]}
    run.timeline.say(f"{name}: back after {row['down_s']:.1f} s, dump {row['dump']}, "
                     f"{row['heard']}")
    if not row["heard"]:
        raise HostError(f"{name}: libvicover does not say '{heard}' but {told_of}")
    if name == "all-free" and plan["wanted_pages"] * 8 > plan["pages"]:
        raise HostError(f"pages that are said to be free are dumped: {plan}")
    if row["xl_peak_rss_bytes"] > MOST_RSS_BYTES:
        raise HostError(f"xl had {row['xl_peak_rss_bytes']} bytes: {row}")
    host.step("destroy", 60)
    host.step("no_domain guest 60", 70)
    nothing_claimed(host)
    return row


def says(host, text: str, after):
    """Waits for a line on the guest's console."""
    return host.wait("console", BACK_S, f"the guest does not say '{text}'", after=after,
                     where=lambda data: text in data["line"])
