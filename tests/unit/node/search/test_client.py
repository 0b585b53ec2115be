"""The search process and its client: started on first use, kept in step, and never able to hurt the node."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec
import pytest

from agentmesh.core.search.model import Document, Filters, Passage
from agentmesh.errors import Busy, Closed, StateError, Timeout
from agentmesh.net.tasks import TaskScope
from agentmesh.node.search import client as client_module
from agentmesh.node.search.client import SearchClient

PATIENCE_S = 60.0


def document(agent_id: str, text: str, version: str = "1") -> Document:
    return Document(agent_id=agent_id, version=version, name=agent_id, passages=(Passage("agent", "", text),))


class Table:
    """A directory of documents."""

    def __init__(self, *documents: Document) -> None:
        self.documents = {one.agent_id: one for one in documents}
        self.read: list[str] = []

    def versions(self) -> Mapping[str, str]:
        return {agent_id: one.version for agent_id, one in self.documents.items()}

    def document(self, agent_id: str) -> Document | None:
        self.read.append(agent_id)
        return self.documents.get(agent_id)


@pytest.fixture
async def scope() -> AsyncIterator[TaskScope]:
    made = TaskScope("test")
    yield made
    await made.aclose()


@pytest.fixture
def table() -> Table:
    return Table(document("tax", "Prepares tax returns"), document("trip", "Books flights and hotels"))


@pytest.fixture
async def client(tmp_path: Path, table: Table, scope: TaskScope) -> AsyncIterator[SearchClient]:
    made = SearchClient(tmp_path / "search.sqlite", table, scope, home=tmp_path)
    yield made
    await made.aclose()


async def names(client: SearchClient, query: str) -> list[str]:
    """Return who answers well, when everything is indexed."""
    await client.settled()
    return [hit.agent_id for hit in (await client.search(query, timeout_s=PATIENCE_S)).hits if hit.text > 0.5]


async def test_nothing_runs_before_the_first_query(client: SearchClient) -> None:
    client.changed("tax")
    assert not client.is_running
    assert await client.state() is None
    assert await names(client, "tax return") == ["tax"]
    assert client.is_running


async def test_what_comes_changes_and_goes_is_found_so(client: SearchClient, table: Table) -> None:
    assert await names(client, "weather") == []
    table.documents["sky"] = document("sky", "Weather forecast")
    client.changed("sky")
    assert await names(client, "weather") == ["sky"]
    table.documents["sky"] = document("sky", "Cooking recipes", version="2")
    client.changed("sky")
    assert await names(client, "weather") == []
    assert await names(client, "recipe") == ["sky"]
    del table.documents["sky"]
    client.changed("sky")
    assert await names(client, "recipe") == []


async def test_a_new_process_reads_only_what_changed(
    tmp_path: Path, client: SearchClient, table: Table, scope: TaskScope
) -> None:
    await names(client, "tax")
    await client.aclose()
    table.documents["tax"] = document("tax", "Tax and customs", version="2")
    del table.documents["trip"]
    table.read.clear()
    later = SearchClient(tmp_path / "search.sqlite", table, scope, home=tmp_path)
    try:
        assert await names(later, "customs") == ["tax"]
        assert await names(later, "flight") == []
        assert table.read == ["tax"]
    finally:
        await later.aclose()


async def test_a_process_that_is_killed_is_started_again_for_the_next_query(client: SearchClient) -> None:
    assert await names(client, "tax return") == ["tax"]
    first = client.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert await names(client, "tax return") == ["tax"]
    assert client.pid != first


async def test_a_kill_in_the_middle_of_indexing_loses_nothing(client: SearchClient, table: Table) -> None:
    await names(client, "tax")
    for number in range(2_000):
        table.documents[f"n{number}"] = document(f"n{number}", f"Translates letters of kind {number}")
        client.changed(f"n{number}")
    await client.search("letters", timeout_s=PATIENCE_S)
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    await client.search("letters", timeout_s=PATIENCE_S)
    await client.settled()
    state = await client.state()
    assert state is not None
    assert state.agents == len(table.documents)


async def test_queries_are_answered_while_agents_are_indexed(client: SearchClient, table: Table) -> None:
    await names(client, "tax")
    for number in range(3_000):
        table.documents[f"n{number}"] = document(f"n{number}", f"Translates letters of kind {number}")
        client.changed(f"n{number}")
    syncing = asyncio.ensure_future(client.settled())  # noqa: TID251
    before = await client.search("tax return", timeout_s=PATIENCE_S)
    assert before.hits[0].agent_id == "tax"
    await syncing
    state = await client.state()
    assert state is not None
    assert state.agents == 3_002


async def test_a_process_that_dies_at_every_start_is_an_error_and_no_loop(
    tmp_path: Path, table: Table, scope: TaskScope
) -> None:
    command = (sys.executable, "-c", f"open({str(tmp_path / 'starts')!r}, 'a').write('x')")
    client = SearchClient(tmp_path / "s", table, scope, home=tmp_path, command=command)
    with pytest.raises(Closed) as caught:
        await client.search("tax", timeout_s=PATIENCE_S)
    assert caught.value.code == "search.died"
    assert (tmp_path / "starts").read_text() == "xx"
    await client.aclose()


@pytest.mark.parametrize(
    "output", ["print('hello', flush=True)", "import os; os.write(1, b'\\0\\0\\0\\5' + b'\\xc1' * 5)"]
)
async def test_a_process_that_talks_nonsense_is_ended(
    tmp_path: Path, table: Table, scope: TaskScope, output: str
) -> None:
    command = (sys.executable, "-c", f"import sys\n{output}\nsys.stdin.read()")
    client = SearchClient(tmp_path / "s", table, scope, home=tmp_path, command=command)
    with pytest.raises(Closed):
        await client.search("tax", timeout_s=PATIENCE_S)
    assert not client.is_running
    await client.aclose()


async def test_a_process_that_never_answers_costs_one_deadline(tmp_path: Path, table: Table, scope: TaskScope) -> None:
    command = (sys.executable, "-c", "import sys; sys.stdin.read()")
    client = SearchClient(tmp_path / "s", table, scope, home=tmp_path, command=command)
    with pytest.raises(Timeout) as caught:
        await client.search("tax", timeout_s=0.2)
    assert caught.value.code == "search.timeout"
    await client.aclose()
    assert not client.is_running


async def test_a_start_that_takes_longer_than_a_query_may_is_not_begun_again(
    tmp_path: Path, table: Table, scope: TaskScope
) -> None:
    gate = tmp_path / "gate"
    waits = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
    runs = "import runpy; runpy.run_module('agentmesh.node.search.worker', run_name='__main__')"
    client = SearchClient(tmp_path / "s", table, scope, home=tmp_path, command=(sys.executable, "-c", waits + runs))
    with pytest.raises(Timeout):
        await client.search("tax", timeout_s=0.2)
    first = client.pid
    gate.touch()
    assert await names(client, "tax return") == ["tax"]
    assert client.pid == first
    await client.aclose()


async def test_too_many_queries_at_once_are_refused(client: SearchClient, monkeypatch: pytest.MonkeyPatch) -> None:
    await names(client, "tax")
    monkeypatch.setattr(client_module, "REQUESTS_MAX", 2)
    answers = await asyncio.gather(*(client.search("tax") for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(one, Busy) for one in answers) == 3
    assert sum(not isinstance(one, BaseException) for one in answers) == 2


async def test_the_process_ends_with_the_client_and_a_closed_one_says_so(client: SearchClient) -> None:
    await names(client, "tax")
    pid = client.pid
    assert pid is not None
    await client.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(StateError):
        await client.search("tax")


async def test_filters_and_near_misses_cross_the_pipe(client: SearchClient) -> None:
    await client.settled()
    found = await client.search("tax", Filters(tag="law"), timeout_s=PATIENCE_S)
    assert found.hits == ()
    assert found.near[0].missed == ("tag",)
    assert msgspec.to_builtins(found)
