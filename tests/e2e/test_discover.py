"""Discovery with real daemons and the real search process: a need in other words finds an agent two hops away, and calls it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentmesh.core.search.common import weight_of
from agentmesh.core.search.text import folded, stem
from agentmesh.daemon.lock import process_start
from tests.support.daemons import Daemon, Mesh, script, sees_agent, wait_until
from tests.support.pages import ROOT
from tests.support.plain import plain_agent

pytestmark = pytest.mark.e2e

LAWYER = "Reviews tenancy agreements and points out clauses that are void under German law."
COOK = "Suggests recipes from what is in the fridge."
NEED = "check a rental contract"


@pytest.fixture
def agent() -> Iterator[str]:
    """The URL of a plain HTTP agent of this process."""
    with plain_agent() as url:
        yield url


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    made = Mesh(tmp_path)
    try:
        yield made
    finally:
        made.aclose()


def serve(node: Daemon, agent: str, name: str, description: str) -> None:
    node.post("/api/v1/agents", {"url": f"{agent}/{name}", "door": "http", "name": name, "description": description})


def discover(node: Daemon, *args: str) -> dict[str, Any]:
    return node.cli("discover", *args, "--json").json()


def searches(node: Daemon) -> list[int]:
    """Return the search processes of a daemon."""
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return [pid for pid, line in lines.items() if b"agentmesh.node.search.worker" in line]


def test_a_need_in_other_words_finds_an_agent_two_hops_away_and_calls_it(mesh: Mesh, agent: str) -> None:
    a = mesh.node("a")
    b = mesh.node("b", seeds=(a.seed(),))
    c = mesh.node("c", seeds=(b.seed(),))
    serve(a, agent, "cook", COOK)
    serve(c, agent, "lawyer", LAWYER)
    wait_until(lambda: sees_agent(a, "lawyer"), "a to hear of the lawyer")

    def asked() -> dict[str, Any] | None:
        # A machine that is busy may take long to start the process; until then words alone decide.
        found = discover(a, NEED)
        return found if found["embedder"] and found["asked"]["answered"] else None

    found = wait_until(asked, "an answer by meaning", 60)
    best = found["agents"][0]
    assert (best["name"], best["node_id"]) == ("lawyer", c.node_id)
    assert best["matched"] == LAWYER
    score, mix = best["score"], found["weights"]
    assert score["total"] == pytest.approx(sum(mix[part] * score[part] for part in mix), abs=1e-3)
    assert discover(a, NEED, "--node", "a")["near"][0]["why"] == "would be first, but it lives at c"
    assert a.cli("run", "--to", best["name"], "--json", "hello").json()["text"] == "hello"
    said = a.cli("discover", NEED, "--explain")
    assert "score = 0.70·text + 0.20·trust + 0.10·health" in said.out
    assert "lawyer" in said.out


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_a_daemon_that_nobody_asked_in_words_has_no_search_process_and_takes_it_along_when_it_stops(
    mesh: Mesh, agent: str
) -> None:
    node = mesh.node("alone")
    serve(node, agent, "lawyer", LAWYER)
    assert [one["name"] for one in discover(node)["agents"]] == ["lawyer"]
    assert [one["name"] for one in discover(node, "--protocol", "mesh")["agents"]] == ["lawyer"]
    assert searches(node) == []
    discover(node, NEED)
    (pid,) = wait_until(lambda: searches(node), "the search process")
    assert not (node.home.path / "search.sqlite").stat().st_mode & 0o077
    token = process_start(pid)
    node.aclose()
    wait_until(lambda: process_start(pid) != token or token is None, "the search process to end with its daemon")


def test_watching_shows_an_agent_that_comes(mesh: Mesh, agent: str) -> None:
    node = mesh.node("alone")
    serve(node, agent, "cook", COOK)
    command = [str(Path(sys.executable).parent / "agentmesh"), "discover", NEED, "--watch", "--json"]
    with subprocess.Popen(command, env=node.env, stdout=subprocess.PIPE, text=True) as watching:
        try:
            assert watching.stdout is not None
            first = json.loads(watching.stdout.readline())
            assert "lawyer" not in [one["name"] for one in first["agents"]]
            serve(node, agent, "lawyer", LAWYER)
            for line in watching.stdout:
                if "lawyer" in [one["name"] for one in json.loads(line)["agents"]]:
                    break
            else:
                raise AssertionError("the stream ended before the agent was seen")
        finally:
            watching.terminate()


GUIDE = ROOT / "docs" / "howto" / "find-agents.md"
TOYS = """
from agentmesh import run
from agentmesh.sdk.toys.calc import calc
from agentmesh.sdk.toys.echo import echo
from agentmesh.sdk.toys.reviewer import reviewer

run(calc, echo, reviewer)
"""


def words(text: str) -> set[str]:
    """Return the words that say anything, as their stems; of Chinese every two signs."""
    found = re.findall(r"[^\W\d_]+", folded(text))
    latin = {stem(word) for word in found if word.isascii()}
    chinese = {word[at : at + 2] for word in found if not word.isascii() for at in range(len(word) - 1)}
    return {word for word in latin if weight_of(word)} | chinese


def test_the_ten_needs_of_the_guide_find_who_it_says_though_they_share_no_word(mesh: Mesh, tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(.+?)` \| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|", GUIDE.read_text("utf-8"), re.MULTILINE)
    assert len(rows) == 10
    node = mesh.node("alone")
    file = tmp_path / "toys.py"
    file.write_text(TOYS)
    with script([sys.executable, str(file)], env=node.env):
        wait_until(lambda: all(sees_agent(node, name) for name in ("calc", "echo", "reviewer")), "the agents")
        wait_until(lambda: discover(node, "numbers")["embedder"], "an answer by meaning", 60)
        for need, name, total, text in rows:
            best = discover(node, need, "-k", "1")["agents"][0]
            assert best["name"] == name, (need, best)
            assert not words(need) & words(json.dumps(best["skills"]) + best["description"]), need
            assert best["score"]["text"] == pytest.approx(float(text), abs=0.2), need
            assert best["score"]["total"] == pytest.approx(float(total), abs=0.15), need
