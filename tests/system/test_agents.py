"""Agents as processes in many worktrees, killed and disturbed, and a checker over what each wrote down.

With `--long` fifty of them, for `--seconds`. With `-s` it prints what was done.
"""

import itertools
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.conftest import Site
from tests.daemons import private_folder
from tests.system.agents import feeds, freshness, holding, ledger
from tests.system.agents.campaign import Campaign, state_of
from tests.system.agents.history import Call, Interval

DEADLINE_S = 60.0
"""No call may take longer, however busy the machine is."""


def test_agents_in_worktrees(site: Site, tmp_path: Path, request: pytest.FixtureRequest, long: bool,
                             monkeypatch: pytest.MonkeyPatch) -> None:
    """One holder at a time, no read older than what was known, no write lost or doubled, the feed whole, all done.

    While agents and daemons are killed, branches checked out, caches rebuilt and logs compacted.
    """
    agents, worktrees, followers, lease_ms = (50, 10, 8, 3000) if long else (10, 3, 3, 1000)
    with private_folder() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        site.environment["XDG_RUNTIME_DIR"] = runtime
        folder = tmp_path / "agents"
        folder.mkdir()
        campaign = Campaign(site, folder, agents=agents, worktrees=worktrees, followers=followers,
                            lease_ms=lease_ms)
        campaign.run(request.config.getoption("--seconds") if long else 20)
        calls, lines, streams = campaign.calls(), campaign.lines(), campaign.streams()
        undone = undone_specs(site)
    told, unknown = feeds.faults(streams, campaign.feed, state_of(lines))
    report(campaign, calls, streams, unknown)
    faults = [*campaign.failed, *holding.faults(calls, campaign.upsets), *freshness.faults(calls, campaign.upsets),
              *ledger.faults(calls, lines, campaign.upsets), *told, *feeds.untold(streams, calls)]
    assert not faults, "\n".join(faults)
    assert unknown < sum(len(part) for one in streams for part in one.parts)
    assert holding.holds_of(calls)
    assert {"daemon", "files"} <= {call.through for call in calls}
    assert campaign.counts["lines dropped"] >= campaign.counts["compactions"]
    assert not undone
    assert set(campaign.freed) <= orphans(calls, lines, campaign.upsets)
    assert max(map(seconds, calls)) < DEADLINE_S
    site.assert_sound([], write_first=True)


def undone_specs(site: Site) -> list[str]:
    with site.open() as store:
        return [line for line in store.find("task_spec")[0] if '"status":"complete"' not in line]


def orphans(calls: list[Call], lines: list[ledger.Line], upsets: list[Interval]) -> set[str]:
    """The task specs that run and nobody knows of it.

    A claim took them of which nobody was ever told, or somebody wrote to them on another branch: where they ran there
    yet, that is newer than their end here.
    """
    told = {call.arguments["op"] for call in calls if call.name == "task_spec.claim" and call.is_done}
    untold = {call.arguments["op"] for call in calls if call.name == "task_spec.claim"} - told
    return {line.key for line in lines if line.op in untold} | {
        call.arguments["id"] for call in calls if call.name == "record.update" and call.overlaps(upsets)}


def seconds(call: Call) -> float:
    """How long a call took; one that was cut off took no time."""
    return 0.0 if call.ended is None else (call.ended - call.began) / 1e9


def report(campaign: Campaign, calls: list[Call], streams: list[feeds.Stream], unknown: int) -> None:
    """Print what was done."""
    holds = sorted(holding.holds_of(calls).values(), key=lambda hold: (hold.spec, hold.start))
    again = sum(one.spec == two.spec and one.by != two.by and one.settled > two.start
                for one, two in itertools.pairwise(holds))
    slowest = max(calls, key=seconds)
    rows: dict[str, object] = {
        "calls": dict(sorted(Counter(call.name for call in calls).items())),
        "through": dict(Counter(call.through for call in calls if call.through)),
        "refused": dict(Counter(call.error for call in calls if call.error)),
        "cut off": sum(call.ended is None for call in calls),
        "claims": len(holds), "takeovers": again, "freed by hand": len(campaign.freed),
        "done to them": dict(campaign.counts),
        "with another branch checked out": f"{sum(end - begin for begin, end in campaign.upsets) / 1e9:.1f} s",
        "told by the feed": dict(feeds.heard(streams)),
        "begun anew": sum(len(stream.parts) - 1 for stream in streams),
        "batches not held to the feed": f"{unknown} of {sum(len(part) for one in streams for part in one.parts)}",
        "longest call": f"{slowest.name}, {seconds(slowest):.2f} s"}
    print(f"\nat {time.strftime('%H:%M:%S')}")  # noqa: T201 - what the campaign shows
    for name, value in rows.items():
        print(f"  {name}: {value}")  # noqa: T201
