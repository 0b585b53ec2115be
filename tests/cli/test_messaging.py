"""The verbs for messages, topics, shared state and locks, over the real HTTP API and doubles of what is behind it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agentmesh.cli.main import main
from agentmesh.sdk.sync import SyncMesh
from agentmesh.wire.message_views import DeadLetter, MessageView, SentView
from tests.api.messaging_doubles import FakeLocks, FakeMail, FakeState, FakeTopics
from tests.api.node_double import FakeBackend
from tests.api.serving import TOKEN, serving_in_thread


class Said(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The doubles of a node that answers every command of this process."""
    one: Any = FakeBackend()
    one.mail, one.topics, one.state, one.locks = FakeMail(), FakeTopics(), FakeState(), FakeLocks()
    with serving_in_thread(backend=one) as served:
        monkeypatch.setattr("agentmesh.cli.connect.connect", lambda _out: SyncMesh(url=served.url, token=TOKEN))
        yield one


@pytest.fixture
def say(node: Any, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command line."""

    def run(*args: str) -> Said:
        capfd.readouterr()
        code = main(list(args))
        return Said(code, *capfd.readouterr())

    return run


def test_a_message_is_sent_with_its_options_and_read_once(say: Callable[..., Said], node: Any) -> None:
    sent = say(
        "send", "bob", "hello there", "--from", "amy", "--priority", "high", "--delivery", "effectively-once",
        "--ttl", "90s", "--conversation", "c", "--wait", "5",
    )  # fmt: skip
    assert (sent.code, sent.out.split()[:3]) == (0, ["✓", "delivered", "bob"])
    request = node.mail.asked[0][1]
    assert (request.sender, request.priority, request.ttl_s, request.conversation) == ("amy", "high", 90.0, "c")
    peeked = say("inbox", "bob", "--peek")
    assert "hello there" in peeked.out
    assert not node.mail.done
    read = say("inbox", "bob", "--json")
    assert [json.loads(line)["data"] for line in read.out.splitlines()] == ["hello there"]
    assert len(node.mail.done) == 1
    empty = say("inbox", "bob")
    assert (empty.code, empty.out, empty.err) == (0, "", "nothing waits\n")


def test_what_is_shown_without_acknowledgement_stays(say: Callable[..., Said], node: Any) -> None:
    say("send", "bob", "--data", '{"n": 1}')
    assert '{"n":1}' in say("inbox", "bob", "--no-ack").out
    assert not node.mail.done


def test_following_ends_after_as_many_as_were_wanted_and_gives_the_rest_back(
    say: Callable[..., Said], node: Any
) -> None:
    for n in range(3):
        say("send", "bob", f"m{n}")
    said = say("inbox", "bob", "--follow", "-n", "2", "--json")
    assert [json.loads(line)["data"] for line in said.out.splitlines()] == ["m0", "m1"]
    assert len(node.mail.done) == 2
    assert "m2" in say("inbox", "bob", "--peek").out


def test_escape_sequences_of_a_message_lose_their_teeth(say: Callable[..., Said]) -> None:
    say("send", "bob", "\x1b[31mred")
    assert "\x1b" not in say("inbox", "bob").out


def test_what_was_sent_and_what_was_given_up_is_shown(say: Callable[..., Said], node: Any) -> None:
    view = MessageView(message_id="6f1f3c1d", sender="amy", recipient="bob", data="x")
    node.mail.letters.append(DeadLetter(message=view, reason="mail.expired", why="its time was over", ended_ts=1))
    dead = say("inbox", "--dead")
    assert "mail.expired" in dead.out
    assert "next: agentmesh inbox --retry 6f1f3c1d" in dead.err
    node.mail.sent_views["6f1f3c1d"] = SentView(message_id="6f1f3c1d", to="bob", state="queued")
    assert "queued" in say("inbox", "--retry", "6f1f3c1d").out
    assert "bob" in say("inbox", "--sent").out
    assert json.loads(say("inbox", "--sent", "--json").out)["sent"] == 1


def test_a_message_that_is_not_delivered_in_time_ends_with_7(say: Callable[..., Said], node: Any) -> None:
    message_id = "6f1f3c1d-7a11-4d6e-9c6a-5b0c5b626f0e"

    async def queued(_request: Any) -> SentView:
        return node.mail.sent_views.setdefault(
            message_id, SentView(message_id=message_id, to="bob", reason="mail.away")
        )

    node.mail.send = queued
    said = say("send", "bob", "x", "--wait", "0.05")
    assert (said.code, "error[mail.waiting]" in said.err, "why: mail.away" in said.err) == (7, True, True)


def test_groups_are_made_listed_and_ended(say: Callable[..., Said]) -> None:
    assert "amy, bob" in say("group", "set", "team", "amy", "bob").out
    assert "team" in say("group", "list").out
    assert say("group", "remove", "team").code == 0
    assert say("group", "remove", "team").code == 6


def test_what_is_published_is_followed(say: Callable[..., Said], node: Any) -> None:
    assert say("pub", "build.linux", "ok", "--retain").code == 0
    assert node.topics.asked[0][2].retain
    say("pub", "build.mac", "--data", "[1]")
    said = say("sub", "build.*", "--durable", "builds", "--all", "-n", "2")
    assert [line.split() for line in said.out.splitlines()] == [["build.linux", "ok", "1"], ["build.mac", "[1]", "2"]]
    said = say("sub", ">", "--durable", "builds", "--from", "2", "-n", "1", "--json")
    assert json.loads(said.out)["subject"] == "build.mac"
    since = say("sub", "a", "--durable", "missing", "--since", "5m")
    assert (since.code, node.topics.asked[-1][1].since > 0) == (6, True)


def test_durable_topics_and_rules(say: Callable[..., Said], tmp_path: Path) -> None:
    assert say("topic", "create", "jobs", "jobs.>", "--age", "2d").code == 0
    assert "jobs.>" in say("topic", "list").out
    rules = tmp_path / "rules.json"
    rules.write_text('[{"pattern": "jobs.>", "publish": ["amy"]}]')
    assert "amy" in say("topic", "rules", "--set", str(rules)).out
    assert json.loads(say("topic", "rules", "--json").out)["rules"][0]["subscribe"] == ["*"]
    assert say("topic", "remove", "jobs").code == 0
    assert say("topic", "remove", "jobs").code == 6
    rules.write_text("nonsense")
    assert say("topic", "rules", "--set", str(rules)).code == 2


def test_state_is_set_read_and_counted(say: Callable[..., Said], node: Any) -> None:
    assert say("state", "set", "team", "motto", "ship it").out == "ship it\n"
    assert say("state", "get", "team", "motto").out == "ship it\n"
    assert say("state", "resolve", "team", "motto", "ship it now").out == "ship it now\n"
    assert node.state.asked[-1][3].op == "resolve"
    assert say("state", "increment", "team", "votes", "3").out == "3\n"
    assert say("state", "increment", "team", "votes", "--", "-1").out == "2\n"
    assert say("state", "add", "team", "members", "amy").out == '["amy"]\n'
    assert say("state", "discard", "team", "members", "amy").out == "[]\n"
    assert "votes" in say("state", "list", "team").out
    assert "team" in say("state", "list").out
    assert "increment" in say("state", "history", "team", "votes").out
    watched = say("state", "watch", "team", "-n", "3", "--json")
    assert [json.loads(line)["key"] for line in watched.out.splitlines()] == ["members", "motto", "votes"]
    assert say("state", "delete", "team", "motto").code == 0
    assert say("state", "get", "team", "none").code == 6
    assert json.loads(say("state", "get", "team", "none", "--json").out)["exists"] is False
    say("state", "set", "team", "leader", '{"name": "amy"}', "--level", "linearizable", "--expect", "0")
    change = node.state.asked[-1][3]
    assert (change.level, change.expect, change.value) == ("linearizable", 0, {"name": "amy"})


@pytest.mark.parametrize(
    "args",
    [
        ["send", "bob"],
        ["send", "bob", "x", "--data", "1"],
        ["send", "bob", "x", "--priority", "urgent"],
        ["send", "bob", "x", "--ttl", "soon"],
        ["inbox", "--peek", "--follow"],
        ["sub", "a", "--all"],
        ["state", "get", "team", "a", "--level", "utmost"],
        ["state", "set", "team", "a", "1", "--type", "blob"],
        ["lock", "nightly"],
        ["lock", "nightly", "--", "/nonexistent/program"],
    ],
)
def test_wrong_usage_ends_with_2(say: Callable[..., Said], args: list[str]) -> None:
    said = say(*args)
    assert (said.code, said.out) == (2, ""), said


# -- lock -------------------------------------------------------------------------------------------------------------


def test_a_command_runs_under_a_lock_knows_its_token_and_gives_its_exit_code(
    say: Callable[..., Said], node: Any
) -> None:
    said = say(
        "lock", "nightly", "--", sys.executable, "-c", "import os; print(os.environ['AGENTMESH_LOCK_TOKEN']); exit(9)"
    )
    assert (said.code, said.out) == (9, "1\n")
    assert node.locks.held == {}


def test_a_lock_that_another_has_is_not_taken(say: Callable[..., Said], node: Any, tmp_path: Path) -> None:
    from agentmesh.wire.state_views import LockView

    node.locks.held["nightly"] = LockView(name="nightly", holder="amy", held=True, token=1)
    said = say("lock", "nightly", "--", "touch", str(tmp_path / "ran"))
    assert (said.code, "lock.held" in said.err, (tmp_path / "ran").exists()) == (8, True, False)
    assert "amy" in say("lock", "show", "nightly").out
    assert "nightly" in say("lock", "list").out
    assert say("lock", "release", "nightly", "--holder", "bob").code == 2
    assert say("lock", "release", "nightly", "--holder", "amy").code == 0


def test_a_command_whose_lock_is_lost_is_ended_and_that_is_said(
    say: Callable[..., Said], node: Any, tmp_path: Path
) -> None:
    code = (
        "import signal, sys, pathlib, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(tmp_path / 'told')!r}).touch(), sys.exit(0)))\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\n"
        "time.sleep(60)\n"
    )
    renew = node.locks.acquire

    async def acquire(name: str, request: Any) -> Any:
        if request.renew and (tmp_path / "ready").exists():
            node.locks.held.clear()
        return await renew(name, request)

    node.locks.acquire = acquire
    said = say("lock", "nightly", "--ttl", "1", "--", sys.executable, "-c", code)
    assert (said.code, "error[lock.lost]" in said.err) == (2, True)
    assert (tmp_path / "told").exists()
    assert "AGENTMESH_LOCK_TOKEN" not in os.environ
