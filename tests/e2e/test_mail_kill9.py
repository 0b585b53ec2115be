"""Daemons that are killed while messages go through them: nothing taken is lost, nothing comes twice (mail.md §4–6)."""

from __future__ import annotations

import contextlib
import random
import threading
import uuid
from collections import defaultdict
from http.client import HTTPException
from typing import Any

import pytest

from tests.support.daemons import Daemon, Mesh, sees_agent, wait_until

pytestmark = pytest.mark.e2e


class Writer:
    """Sends numbered messages to bob, each under one id until the node says that it has it."""

    def __init__(self, node: Daemon) -> None:
        self.node = node
        self.taken: list[str] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        number = 0
        while not self.stop.is_set():
            body = {
                "to": "bob",
                "sender": "alice",
                "text": f"{number}",
                "delivery": "effectively-once",
                "message_id": str(uuid.uuid4()),
            }
            while not self.stop.is_set():  # what was not answered is asked again under the same id
                with contextlib.suppress(OSError, AssertionError, ValueError, HTTPException):
                    self.node.post("/api/v1/messages", body)
                    self.taken.append(f"{number}")
                    number += 1
                    break
                self.stop.wait(0.05)


class Reader:
    """Reads bob's inbox: text → the places in the inbox where it was seen."""

    def __init__(self, node: Daemon) -> None:
        self.node = node
        self.seen: dict[str, set[int]] = defaultdict(set)
        self.order: list[str] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(OSError, AssertionError, ValueError, HTTPException):
                page = self.node.get("/api/v1/inbox/bob?limit=50&wait_s=1&lease_s=1")
                for one in page["messages"]:
                    if one["data"] not in self.seen:
                        self.order.append(one["data"])
                    self.seen[one["data"]].add(one["cursor"])
                if page["messages"]:
                    ids = [one["message_id"] for one in page["messages"]]
                    self.node.post("/api/v1/inbox/bob/ack", {"message_ids": ids})
                continue
            self.stop.wait(0.05)


def test_killing_either_node_at_any_moment_loses_nothing_and_doubles_nothing(mesh: Mesh) -> None:
    rng = random.Random(7)
    a, b = mesh.pair()
    a.stay()
    b.stay()
    a.post("/api/v1/agents", {"url": "mailbox:", "name": "alice"})
    b.post("/api/v1/agents", {"url": "mailbox:", "name": "bob"})
    wait_until(lambda: sees_agent(a, "bob") and sees_agent(b, "alice"), "the agents to be known")
    writer, reader = Writer(a), Reader(b)
    writer.thread.start()
    reader.thread.start()
    try:
        for victim in (a, b, a, b):
            goal = len(reader.seen) + rng.randrange(20, 120)
            wait_until(lambda goal=goal: len(reader.seen) >= goal, "messages to come through", 60)
            victim.kill()
            victim.open()
        goal = len(reader.seen) + 50
        wait_until(lambda: len(reader.seen) >= goal, "messages to come through at last", 60)
    finally:
        writer.stop.set()
        writer.thread.join(60)
    try:
        wait_until(lambda: set(writer.taken) <= set(reader.seen), "all that was taken to arrive", 60)
    finally:
        reader.stop.set()
        reader.thread.join(60)
    doubled = {text: places for text, places in reader.seen.items() if len(places) > 1}
    assert not doubled
    assert reader.order == sorted(reader.order, key=int)
    figures: dict[str, Any] = wait_until(
        lambda: (found := a.get("/api/v1/messages"))["queued"] == 0 and found, "the acknowledgements", 60
    )
    assert figures["sent"] == figures["delivered"] + figures["expired"] + figures["dead"]
    assert figures["expired"] == figures["dead"] == 0
