"""Trust as people meet it: shown with its reasons, lowered by a report, still there when the daemon starts again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import ECHO, Daemon, Mesh, script, sees_agent, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("trust")
    mesh = Mesh(root)
    file = root / "echo_agent.py"
    file.write_text(ECHO, "utf-8")
    try:
        far = mesh.node("far")
        near = mesh.node("near", seeds=(far.seed(),), trust_weights=("abuse_report=-30",))
        with script([sys.executable, str(file)], far.env):
            wait_until(lambda: sees_agent(near, "echo"), "the far agent to be known")
            yield near
    finally:
        mesh.aclose()


def test_trust_is_shown_with_what_it_rests_on_and_stays_over_a_restart(caller: Daemon) -> None:
    fresh = caller.cli("trust", "echo")
    assert fresh.code == 0, fresh.err
    assert "unknown" in fresh.out
    assert "nothing has happened with it yet" in fresh.err
    assert caller.cli("run", "--to", "echo", "hello").code == 0
    shown = caller.cli("trust", "echo").out
    assert "completed" in shown
    assert "+1.00" in shown
    before = caller.cli("trust", "show", "echo", "--json").json()
    assert before["score"] == caller.get("/api/v1/trust/echo")["score"] > before["base"]
    caller.aclose()
    caller.open()
    wait_until(lambda: sees_agent(caller, "echo"), "the far agent to be known again")
    after = caller.get(f"/api/v1/trust/{before['subject']}")
    assert after["score"] == pytest.approx(before["score"], abs=1e-3)
    assert [event["kind"] for event in after["events"]] == ["completed"]


def test_list_of_trust_and_log_of_calls_are_the_same_in_api_and_cli(caller: Daemon) -> None:
    listed, told = caller.cli("trust", "--json").json(), caller.get("/api/v1/trust")
    assert [one["name"] for one in told["agents"]] == ["echo"]
    assert (listed["count"], listed["digest"]) == (told["count"], told["digest"])
    assert "1 agents" in caller.cli("trust", "list").err
    wanted = "action=call&result=completed"
    rows = wait_until(
        lambda: (found := caller.get(f"/api/v1/audit/rows?{wanted}"))["matching"] and found, "the call to be recorded"
    )
    shown = caller.cli("audit", "show", "--action", "call", "--result", "completed", "--json").json()
    assert (shown["matching"], shown["digest"]) == (rows["matching"], rows["digest"])
    exported = caller.cli("audit", "export", "--action", "call", "--result", "completed").out.splitlines()
    assert len(exported) == rows["matching"]
    (row, *_) = rows["rows"]
    assert (row["callee_name"], row["token"], row["kept"]) == ("echo", "own", True)
    (checked,) = caller.get(f"/api/v1/receipts/{row['task']}/check")["receipts"]
    assert checked["verified"]
    assert checked["hash"] == row["receipt"]


def test_settings_are_told_with_their_origin_and_what_a_restart_would_change(caller: Daemon) -> None:
    view = caller.get("/api/v1/config")
    shown = {one["key"]: one for one in view["settings"]}
    assert (shown["trust_weights"]["value"], shown["trust_weights"]["source"]) == (
        ["abuse_report=-30"], "flag --trust-weight",
    )  # fmt: skip
    assert caller.token not in str(view)
    assert caller.cli("config", "set", "site", "berlin").code == 0
    assert caller.get("/api/v1/config")["changed"] == ["site"]
    explained = caller.cli("config", "explain", "--json").json()
    assert [one["key"] for one in explained["settings"]] == list(shown)


def test_a_report_lowers_the_tier_that_discover_and_show_tell(caller: Daemon, tmp_path: Path) -> None:
    done = caller.cli("trust", "report", "echo", "--reason", "sent me advertising")
    assert done.code == 0, done.err
    assert "abuse_report" in done.out
    assert "-30.00" in done.out, "the setting trust_weights counts"
    assert "sent me advertising" in done.out
    assert "signed low" in caller.cli("discover").out
    assert "low" in caller.cli("show", "echo").out
    agent = next(a for a in caller.get("/api/v1/agents")["agents"] if a["name"] == "echo")
    assert (agent["trust"], agent["trust_tier"]) == ("signed", "low")


def test_what_is_no_agent_no_reason_or_no_weight_is_refused(caller: Daemon) -> None:
    assert caller.cli("trust", "nobody").code == 6
    assert caller.cli("trust", "report", "echo").code == 2
    for reason in ("", "two\nlines", "x" * 201):
        done = caller.cli("trust", "report", "echo", "--reason", reason)
        assert done.code == 2, reason
        assert "reason" in done.err
    wrong = caller.cli("config", "set", "trust_weights", "failed=2")
    assert wrong.code == 2
    assert "trust_weights" in wrong.err
    assert caller.cli("config", "set", "trust_roots", "somebody").code == 2
