"""How the search process itself ends: with its parent, and when nobody asks."""

from __future__ import annotations

import io
import queue
import subprocess
import sys
from pathlib import Path

from agentmesh.core.search.model import Document, Filters, Passage
from agentmesh.node.search.frames import (
    FRAME_BYTES_MAX,
    LENGTH,
    Answer,
    Asked,
    Failed,
    Look,
    Open,
    Search,
    State,
    Told,
    Update,
    framed,
    told_of,
)
from agentmesh.node.search.worker import Worker, read_requests

DOCUMENT = Document(agent_id="a", version="1", name="a", passages=(Passage("agent", "", "Prepares tax returns"),))


def replies(raw: bytes) -> list[Told]:
    found: list[Told] = []
    while raw:
        (length,) = LENGTH.unpack(raw[: LENGTH.size])
        found.append(told_of(raw[LENGTH.size : LENGTH.size + length]))
        raw = raw[LENGTH.size + length :]
    return found


def worked(*requests: Asked, idle_s: float = 60.0, ends: bool = True) -> list[Told]:
    inbox: queue.Queue[Asked | None] = queue.Queue()
    for one in requests:
        inbox.put(one)
    if ends:
        inbox.put(None)
    out = io.BytesIO()
    Worker(inbox, out, idle_s).run()
    return replies(out.getvalue())


def test_a_query_before_the_index_is_open_is_an_error_in_words() -> None:
    (told,) = worked(Asked(1, Look()))
    assert isinstance(told.body, Failed)
    assert told.body.raised().code == "search.closed"


def test_a_query_comes_before_the_updates_that_were_sent_earlier(tmp_path: Path) -> None:
    inbox: queue.Queue[Asked | None] = queue.Queue()
    for one in (
        Asked(1, Open(str(tmp_path / "s.sqlite"), str(tmp_path))),
        Asked(2, Update([DOCUMENT])),
        Asked(3, Search("tax", Filters())),
    ):
        inbox.put(one)
    out = io.BytesIO()
    Worker(inbox, out, 0.5).run()  # ends by itself: nobody asks any more
    told = replies(out.getvalue())
    assert [one.number for one in told] == [1, 3, 2]
    assert isinstance(told[1].body, Answer)
    assert isinstance(told[2].body, State)
    assert told[2].body.agents == 1


def test_input_that_is_no_request_ends_the_process() -> None:
    inbox: queue.Queue[Asked | None] = queue.Queue()
    read_requests(io.BytesIO(framed(Asked(1, Look())) + LENGTH.pack(FRAME_BYTES_MAX + 1) + b"x"), inbox)
    assert inbox.get() == Asked(1, Look())
    assert inbox.get() is None


def test_the_process_ends_when_its_parent_does() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "agentmesh.node.search.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0
    assert process.stdout is not None
    process.stdout.close()
