"""Messages, topics, shared state and locks in the blocking client."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from agentmesh.errors import Busy, StateError
from agentmesh.sdk.sync import SyncMesh
from tests.api.messaging_doubles import FakeLocks, FakeMail, FakeState, FakeTopics
from tests.api.node_double import FakeBackend
from tests.api.serving import TOKEN, Served, serving_in_thread


@pytest.fixture
def served() -> Iterator[Served]:
    one = FakeBackend()
    one.mail, one.topics, one.state, one.locks = FakeMail(), FakeTopics(), FakeState(), FakeLocks()
    with serving_in_thread(backend=one) as running:
        yield running


@pytest.fixture
def mesh(served: Served) -> Iterator[SyncMesh]:
    with SyncMesh(url=served.url, token=TOKEN) as client:
        yield client


def test_a_message_is_read_answered_and_acknowledged(mesh: SyncMesh, served: Served) -> None:
    mesh.send("bob", "why?", sender="amy", conversation="c")
    for message in mesh.inbox("bob", wait_s=0):
        assert message.text == "why?"
        mesh.reply(message, data={"because": True})
    (answer,) = list(mesh.inbox("amy", wait_s=0))
    assert (answer.data, answer.conversation, answer.sender) == ({"because": True}, "c", "bob")
    assert len(served.backend.mail.done) == 2


def fail_at_first(mesh: SyncMesh) -> None:
    with mesh.inbox("bob") as inbox:
        for _ in inbox:
            raise ZeroDivisionError


def test_work_that_failed_is_given_back(mesh: SyncMesh, served: Served) -> None:
    mesh.send("bob", "one")
    with pytest.raises(ZeroDivisionError):
        fail_at_first(mesh)
    assert len(served.backend.mail.given_back) == 1
    with SyncMesh(url=served.url, token=TOKEN) as other:
        for message in other.inbox("bob"):
            assert message.text == "one"
            break
    assert len(served.backend.mail.done) == 1


def test_a_subscriber_hears_what_is_published_from_when_it_entered(mesh: SyncMesh) -> None:
    with mesh.subscribe("build.*") as events:
        mesh.publish("build.linux", "ok")
        mesh.publish("other", "no")
        mesh.publish("build.mac", data=[1])
        assert [(one.subject, one.data) for one in (next(events), next(events))] == [
            ("build.linux", "ok"),
            ("build.mac", [1]),
        ]


def test_work_of_a_group_is_acknowledged(mesh: SyncMesh, served: Served) -> None:
    mesh.publish("jobs.a", "1")
    mesh.publish("jobs.a", "2")
    with mesh.subscribe("jobs.*", topic="jobs", group="g", start="all") as events:
        assert [next(events).text, next(events).text] == ["1", "2"]
    assert served.backend.topics.acked == [
        ("jobs", "g", ("lease-1",), False),
        ("jobs", "g", ("lease-2",), False),
    ]


def test_state_is_changed_read_and_watched(mesh: SyncMesh) -> None:
    space = mesh.state("team")
    assert space.increment("votes", 2) == 2
    assert space.add("in", "amy") == ["amy"]
    assert space.discard("in", "amy") == []
    space.set("motto", "go")
    assert space.get("motto") == "go"
    space.delete("motto")
    assert space.get("motto", "none") == "none"
    assert [entry.op for entry in space.history("motto")] == ["delete", "set"]
    assert [view.key for view in space.keys().keys] == ["in", "motto", "votes"]
    watching = space.watch("votes")
    assert next(watching).value == 2
    assert [one.space for one in mesh.spaces().spaces] == ["team"]


def test_a_lock_is_held_renewed_and_given_back(mesh: SyncMesh, served: Served) -> None:
    with mesh.lock("nightly") as lock:
        assert lock.token == 1
        lock.renew()
        with pytest.raises(Busy):
            mesh.lock("nightly").acquire()
        assert mesh.show_lock("nightly").held
    assert mesh.locks().locks == []
    with pytest.raises(StateError) as caught, mesh.lock("nightly") as lock:
        mesh.release_lock("nightly", lock.view.holder)
    assert caught.value.code == "lock.lost"


def test_the_blocking_client_loads_no_event_loop() -> None:
    code = (
        "import sys, agentmesh.sdk.sync as s; "
        "print([m for m in ('asyncio', 'aiohttp', 'websockets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
