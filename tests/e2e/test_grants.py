"""Grants as people make and use them: one machine grants, an agent of another acts (docs/howto/grants.md)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.daemons import ECHO, Daemon, Mesh, script, sees_agent, wait_until

pytestmark = pytest.mark.e2e


class Two(NamedTuple):
    """The machine of the callee, and that of the agent that may act."""

    owner: Daemon
    other: Daemon


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    root = tmp_path_factory.mktemp("grants")
    mesh = Mesh(root)
    for name in ("echo", "planner"):
        (root / f"{name}.py").write_text(
            ECHO.replace("async def echo", f"async def {name}").replace("run(echo)", f"run({name})")
        )
    try:
        owner = mesh.node("owner")
        other = mesh.node("other", seeds=(owner.seed(),))
        with (
            script([sys.executable, str(root / "echo.py")], owner.env),
            script([sys.executable, str(root / "planner.py")], other.env),
        ):
            wait_until(lambda: sees_agent(other, "echo") and sees_agent(owner, "planner"), "the agents to be known")
            yield Two(owner, other)
    finally:
        mesh.aclose()


def test_a_grant_made_on_one_machine_lets_an_agent_of_another_call_in_its_name(two: Two, tmp_path: Path) -> None:
    made = two.owner.cli(
        "grant", "make", "--to", "planner", "--for", "echo", "--scope", "call.*", "--bound", "total:calls=2"
    )
    assert made.code == 0, made.err
    file = tmp_path / "grant.txt"
    file.write_text(made.out)
    assert "may call.*" in made.err
    shown = two.other.cli("grant", "show", str(file), "--json").json()
    assert shown["limits"] == {"calls.max_lifetime": 2}
    done = two.other.cli("run", "--from", "planner", "--to", "echo", "--grant", str(file), "hello", "--json").json()
    receipt = json.loads(two.other.cli("receipt", "show", done["task_id"], "--json").out)["receipts"][0]
    assert receipt["caller"] == shown["holder"]
    mine = two.other.cli("run", "--to", "echo", "--grant", str(file), "hello")
    assert mine.code == 3, "a grant is good in its holder's hands only"
    assert "grant.holder" in mine.err


def test_what_is_no_grant_or_no_bound_is_said_clearly(two: Two, tmp_path: Path) -> None:
    file = tmp_path / "no-grant.txt"
    file.write_text("x.y.z\n")
    assert two.owner.cli("grant", "show", str(file)).code != 0
    assert "grant.file" in two.owner.cli("grant", "show", str(tmp_path / "missing")).err
    for bound in ("max:calls=1.5", "max:calls=-1", "ever:calls=1", "calls=1", "max:hope=1"):
        done = two.owner.cli("grant", "make", "--to", "planner", "--for", "echo", "--scope", "call.*", "--bound", bound)
        assert done.code == 2, bound
        assert done.out == ""
