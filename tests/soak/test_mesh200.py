"""Two hundred real nodes on one machine: joining, news, kills, a real partition. Figures go to stdout, one JSON per line."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import Fleet, fleet, same_directory, same_records
from tests.support.lan import cable, why_not

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

PROCESSES, PER_PROCESS = 10, 20
#: Pause between the starts of two nodes, seconds: each start costs the mesh some 60 handshakes, 0.3 s of CPU.
_PACE_S = 1.5
Facts = list[dict[str, Any]]


def tell(capsys: pytest.CaptureFixture[str], **figures: Any) -> None:
    """Print one line of figures, also while pytest captures."""
    with capsys.disabled():
        print("\n" + json.dumps(figures), flush=True)


def everyone(count: int) -> Callable[[Facts], bool]:
    """Return whether so many nodes run, each with enough links to lose some."""
    return lambda facts: len(facts) == count and all(one["links"] >= 3 for one in facts)


def test_two_hundred_real_nodes_converge_survive_kills_and_take_the_killed_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes, count = Fleet(tmp_path, PROCESSES, PER_PROCESS), PROCESSES * PER_PROCESS
    rng = random.Random(200)
    begin = time.monotonic()
    try:
        nodes.open(pace_s=_PACE_S)
        opened_s = time.monotonic() - begin
        joined_s = nodes.until(everyone(count), "all nodes to have links", 300)
        hosts = rng.sample(range(count), 40)
        begin = time.monotonic()
        for number in hosts:
            nodes.ask(f"n{number}", "register", agent=f"echo-{number}")
        nodes.until(lambda facts: same_directory(facts, 40), "one directory of 40 agents", 120)
        tell(capsys, what="join", nodes=count, opened_s=opened_s, linked_s=joined_s,
             directory_s=time.monotonic() - begin)  # fmt: skip
        tell(capsys, what="net", **nodes.ask("n0", "net"))

        killed = rng.sample(range(1, PROCESSES), 3)
        gone = {f"echo-{n}" for n in hosts if n // PER_PROCESS in killed}
        for index in killed:
            nodes.squads[index].kill()
        noticed_s = nodes.until(
            lambda facts: all(not gone & set(one["names"]) for one in facts),
            "the dead agents to be offered nowhere",
            300,
        )
        begin = time.monotonic()
        nodes.ask("n0", "register", agent="late")
        nodes.until(lambda facts: all("late" in one["names"] for one in facts), "news to reach all that live", 60)
        tell(capsys, what="kill 30 %", agents_noticed_s=noticed_s, news_s=time.monotonic() - begin)

        begin = time.monotonic()
        for place, index in enumerate(killed):
            nodes.squads[index].start()
            nodes.squads[index].say("open", seeds=[], wait_s=place * _PACE_S, pace_s=len(killed) * _PACE_S)
        for index in killed:
            nodes.squads[index].hear()
        nodes.until(
            lambda facts: all(one["healthy"] == 41 for one in facts), "all agents to be healthy everywhere", 300
        )
        nodes.until(lambda facts: same_directory(facts, 41), "one directory of 41 agents", 60)
        tell(capsys, what="return", directory_s=time.monotonic() - begin)
    finally:
        nodes.close()


@pytest.mark.multicast
def test_both_sides_of_a_real_partition_go_on_know_it_and_agree_within_ten_seconds_of_the_heal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := why_not():
        pytest.skip(reason)
    squads, per_squad = 4, 6
    with cable() as wire:
        nodes = Fleet(tmp_path, squads, per_squad)
        for i in range(squads):
            nodes.put(i, wire.sides[i % 2], wire.hosts[i % 2])
        try:
            nodes.open()
            nodes.until(everyone(squads * per_squad), "all nodes to have links", 60)
            for number in (0, 6, 12, 18):
                nodes.ask(f"n{number}", "register", agent=f"echo-{number}")
            nodes.until(lambda facts: same_directory(facts, 4), "one directory", 60)
            nodes.until(lambda facts: all(one["healthy"] == 4 for one in facts), "all agents to be healthy", 30)

            wire.cut()
            begin = time.monotonic()
            nodes.until(lambda facts: all(one["cut_off"] for one in facts), "every node to know that it is cut off", 90)
            known_s = time.monotonic() - begin
            left, right = nodes.squads[0].names, nodes.squads[1].names
            assert nodes.ask(left[1], "call", to=f"echo-{12}", text="hi")["text"] == "n12: hi"
            assert nodes.ask(right[1], "call", to=f"echo-{18}", text="hi")["text"] == "n18: hi"
            # Acknowledged on one side only; nothing of it may be lost.
            nodes.ask(left[0], "register", agent="made-left")
            nodes.ask(right[0], "register", agent="made-right")

            wire.join()
            begin = time.monotonic()
            nodes.until(lambda facts: same_records(facts, 6), "every agent to be known everywhere", 60)
            records_s = time.monotonic() - begin
            nodes.until(lambda facts: same_directory(facts, 6), "equal directories", 60)
            healed_s = time.monotonic() - begin
            nodes.until(lambda facts: not any(one["cut_off"] for one in facts), "nobody to be cut off", 60)
            tell(capsys, what="partition", nodes=squads * per_squad, noticed_s=known_s, records_s=records_s,
                 equal_s=healed_s, whole_s=time.monotonic() - begin)  # fmt: skip
            assert healed_s <= 10
        finally:
            nodes.close()


def test_nodes_over_iroh_meet_and_find_agents_as_over_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fleet(tmp_path, 4, 8, "--transport", "iroh") as nodes:
        joined_s = nodes.until(everyone(32), "all nodes to have links", 120)
        begin = time.monotonic()
        nodes.ask("n31", "register", agent="echo")
        nodes.until(lambda facts: same_directory(facts, 1), "one directory", 60)
        assert nodes.ask("n1", "call", to="echo", text="hi")["text"] == "n31: hi"
        tell(capsys, what="iroh", nodes=32, linked_s=joined_s, directory_s=time.monotonic() - begin)
