"""The scenarios of the package, small, on the real brain; and the command line (docs/spec/simulator.md §3, §9)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from agentmesh.sim.__main__ import main
from agentmesh.sim.runner import Report, Run
from agentmesh.sim.scenario import load

#: Per scenario: nodes, settings that make it short, and figures that it must yield.
SMALL: dict[str, tuple[int, list[str], set[str]]] = {
    "broadcast": (
        32,
        ["measures.0.count=6", "measures.0.warmup=4", "duration_s=15"],
        {"latency_p99_ms", "rmr", "missed"},
    ),
    "broadcast-lossy": (32, ["measures.0.count=4", "measures.0.warmup=2", "duration_s=35"], {"missed"}),
    "chaos": (20, [], {"missed", "find_p50_ms"}),
    "churn": (32, ["duration_s=45", "measures.0.count=3", "measures.1.count=10"], {"missed", "find_p99_ms"}),
    "crash-detect": (32, ["measures.0.count=3", "duration_s=40"], {"detect_p50_s", "detect_p99_s", "false_deaths"}),
    "crash-detect-lossy": (32, ["measures.0.count=3", "duration_s=40"], {"detect_p50_s", "false_deaths", "node_hours"}),
    "half-crash": (32, ["measures.0.count=3", "duration_s=12"], {"reach_all_p99_ms", "missed"}),
    "idle": (32, ["duration_s=20"], {"bytes_per_s_per_node", "cpu_us_per_node_s", "memory_kb_per_node"}),
    "join": (
        32,
        ["measures.0.count=4", "measures.1.count=10", "duration_s=15"],
        {"join_p50_ms", "first_find_p99_ms", "find_p99_ms"},
    ),
    "mail": (16, ["measures.0.count=200"], {"mail_delivered", "mail_p99_ms", "mail_lost"}),
    "mail-chaos": (
        16,
        ["measures.0.count=200", "duration_s=55"],
        {"mail_delivered", "mail_expired", "mail_known_again"},
    ),
    "mail-lossy": (16, ["measures.0.count=200"], {"mail_delivered", "mail_repeated_ratio"}),
    "mail-partition": (16, ["measures.0.count=200", "duration_s=60"], {"mail_delivered", "mail_waiting"}),
    "state": (16, ["measures.0.count=60"], {"state_quorum", "state_quorum_p99_ms", "state_lost", "state_versions"}),
    "state-partition": (16, ["measures.0.count=60"], {"state_heal_s", "state_refused", "state_lost"}),
    "orders": (32, [], {"order_max_ms", "order_healed_max_ms", "orders_missed"}),
    "lookup": (
        32,
        ["measures.0.count=40", "duration_s=10", "settle_s=20"],
        {"success_ratio", "hops_p99", "forged_accepted"},
    ),
    "lookup-byzantine": (
        32,
        ["measures.0.count=40", "duration_s=10", "settle_s=20"],
        {"success_ratio", "forged_accepted"},
    ),
    "partition": (16, ["measures.0.count=5", "duration_s=90"], {"heal_s", "lost_writes", "cut_off_known_max_ratio"}),
    "replicas": (24, ["duration_s=14", "settle_s=25"], {"lost_records", "lost_records_with_owner", "recover_s"}),
    "scale": (32, ["duration_s=20", "settle_s=30"], {"bytes_per_s_per_node", "missed", "success_ratio"}),
    "ten-thousand": (
        32,
        ["measures.2.count=4", "measures.3.count=10", "measures.4.count=30", "measures.5.count=2"],
        {"clustering", "join_p99_ms", "find_p99_ms", "hops_p99", "detect_p99_s", "bytes_per_s_per_node"},
    ),
    "topology": (64, ["settle_s=40"], {"clustering", "path_length", "tail_exponent", "connected_after_top20_ratio"}),
}


def still() -> float:
    return 0.0


def run_small(name: str, seed: int = 1, *more: str) -> Report:
    size, settings, _ = SMALL[name]
    return Run(load(name, [*settings, *more]), size, seed).execute(still)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_each_scenario_runs_small_yields_its_figures_and_violates_nothing(name: str) -> None:
    report = run_small(name)
    assert report.violations == []
    missing = SMALL[name][2] - {*report.figures, "cpu_us_per_node_s", "memory_kb_per_node"}
    assert not missing
    assert report.events > 1_000


def test_every_scenario_is_run_small() -> None:
    from agentmesh.sim.scenario import names

    assert sorted(SMALL) == names()


def command(*arguments: str, hashseed: str = "0") -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "agentmesh.sim", "run", *arguments, "--json", "--no-progress"],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": hashseed},
        timeout=100,
    )
    return json.loads(done.stdout)


def test_the_digest_is_the_same_under_any_hash_seed_and_another_for_another_seed() -> None:
    arguments = ("chaos", "--nodes", "16", "--set", "duration_s=30")
    first = command(*arguments, "--seed", "5", hashseed="1")
    again = command(*arguments, "--seed", "5", hashseed="4242")
    other = command(*arguments, "--seed", "6")
    assert first["digest"] == again["digest"]
    assert first["events"] == again["events"]
    drop = {"speed_x_real_time", "events_per_wall_s", "cpu_us_per_node_s", "memory_kb_per_node"}
    assert {k: v for k, v in first["figures"].items() if k not in drop} == {
        k: v for k, v in again["figures"].items() if k not in drop
    }
    assert first["digest"] != other["digest"]


def test_the_report_as_json_has_the_agreed_members_and_figures_carry_their_unit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "half-crash", "--nodes", "12", "--set", "duration_s=10", "--json", "--no-progress"]) == 0
    report = json.loads(capsys.readouterr().out)
    for member in ("scenario", "nodes", "seed", "digest", "wall_s", "simulated_s", "events", "violations", "figures"):
        assert member in report
    assert (report["scenario"], report["nodes"], report["seed"]) == ("half-crash", 12, 1)
    assert report["simulated_s"] == 50.0
    assert all(isinstance(value, int | float) for value in report["figures"].values())


def test_a_report_for_people_names_goals_and_whether_they_are_met(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "idle", "--nodes", "8", "--set", "duration_s=5", "--set", "settle_s=10", "--no-progress"]) == 0
    said = capsys.readouterr().out
    assert "bytes_per_s_per_node" in said
    assert "goal ≤ 5000: met" in said


def test_replay_tells_the_story_of_a_node_and_comes_to_the_same_digest(capsys: pytest.CaptureFixture[str]) -> None:
    short = ["half-crash", "--nodes", "8", "--seed", "3", "--set", "settle_s=6", "--set", "duration_s=9"]
    assert main(["run", *short, "--json", "--no-progress"]) == 0
    digest = json.loads(capsys.readouterr().out)["digest"]
    assert main(["replay", *short, "--node", "2"]) == 0
    said = capsys.readouterr().out
    assert f"digest {digest}" in said
    assert "node 2     WallClock" in said


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["run", "sunshine"], "there is no scenario"),
        (["run", "idle", "--nodes", "0"], "2 to"),
        (["run", "idle", "--seed", "-1"], "seed"),
        (["run", "idle", "--set", "links.loss=7"], "share"),
        (["replay", "idle", "--nodes", "4", "--node", "9"], "no node 9"),
    ],
)
def test_wrong_arguments_end_with_2_and_a_word_on_what_is_wrong(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert word in capsys.readouterr().err


def test_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in SMALL)
