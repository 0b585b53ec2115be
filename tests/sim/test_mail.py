"""Couriers in small worlds: whatever goes wrong, the books of all outboxes and inboxes agree (docs/spec/simulator.md §8)."""

from __future__ import annotations

from typing import Any

import pytest

from agentmesh.core.courier.messages import Letter
from agentmesh.core.courier.receiving import Receiving
from agentmesh.sim.post import Desk, Post
from agentmesh.sim.runner import Report, Run
from agentmesh.sim.scenario import load


def _run(name: str, seed: int, *settings: str, nodes: int = 16) -> Report:
    return Run(load(name, ["measures.0.count=250", *settings]), nodes, seed).execute(lambda: 0.0)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", ["mail", "mail-lossy", "mail-partition", "mail-chaos"])
def test_every_message_is_delivered_once_and_in_order_or_accounted_for(name: str, seed: int) -> None:
    report = _run(name, seed)
    assert report.violations == [], report.notes
    figures = report.figures
    ends = ("mail_delivered", "mail_expired", "mail_returned", "mail_waiting")
    assert figures["mail_sent"] == sum(figures[end] for end in ends)
    assert figures["mail_sent"] >= 1_000
    assert figures["mail_arrived"] >= figures["mail_delivered"] > figures["mail_sent"] / 2
    assert figures["mail_lost"] == figures["mail_disordered"] == figures["mail_unended"] == 0


def test_nothing_is_repeated_over_links_that_lose_nothing_and_all_arrives() -> None:
    figures = _run("mail", 3).figures
    assert figures["mail_delivered"] == figures["mail_sent"]
    assert figures["mail_repeated_ratio"] == 0


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    first, again, other = _run("mail-chaos", 7), _run("mail-chaos", 7), _run("mail-chaos", 8)
    assert (first.digest, first.figures["mail_delivered"]) == (again.digest, again.figures["mail_delivered"])
    assert first.digest != other.digest


def test_a_courier_that_ignores_what_a_letter_comes_after_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    take_in = Receiving._take_in

    def careless(self: Receiving, seq: int, after: int, letter: Letter | None, ready: list[Letter]) -> None:
        take_in(self, seq, 0, letter, ready)

    monkeypatch.setattr(Receiving, "_take_in", careless)
    report = _run("mail-lossy", 1)
    assert report.figures["mail_disordered"] > 0
    assert any("mail" in str(violation["what"]) for violation in report.violations)


def test_a_node_that_acknowledges_before_it_has_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = Post._keep

    def forgetful(self: Post, desk: Desk, session: int, numbers: list[tuple[int, int]]) -> None:
        keep(self, desk, session, numbers)
        desk.inbox.pop(numbers[0][0], None)

    monkeypatch.setattr(Post, "_keep", forgetful)
    report = _run("mail", 1)
    assert report.figures["mail_lost"] > 0
    assert report.violations


def test_a_courier_whose_figures_are_wrong_is_found_while_the_world_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Receiving.take

    def hasty(self: Receiving, seqs: list[int]) -> None:
        take(self, seqs)
        self.untaken += 1

    monkeypatch.setattr(Receiving, "take", hasty)
    report: Any = _run("mail", 1)
    assert any("invariant of a courier" in violation["what"] for violation in report.violations)
