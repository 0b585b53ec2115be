"""Agents that serve get their messages handed in: answered, acknowledged after the work, again when it failed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentmesh import Message, agent
from agentmesh.errors import UsageError
from agentmesh.net.tasks import TaskScope
from agentmesh.sdk import hearing
from agentmesh.sdk.hearing import TRIES_MAX, Listener
from agentmesh.sdk.process import AgentProcess
from agentmesh.wire.message_views import MessageView
from tests.api.messaging_doubles import FakeMail
from tests.api.node_double import FakeBackend
from tests.api.serving import TOKEN, serving


def letter(number: str, **fields: Any) -> MessageView:
    return MessageView(message_id=number, sender="amy", recipient="bob", data=f"text {number}", **fields)


@contextlib.asynccontextmanager
async def listening(handler: Any, said: list[str]) -> AsyncIterator[FakeMail]:
    one: Any = FakeBackend()
    one.mail = FakeMail()
    scope = TaskScope("hearing")
    async with serving(one) as served:
        scope.spawn(Listener("bob", handler, (None, served.url, TOKEN), said.append).run())
        try:
            yield one.mail
        finally:
            await scope.aclose()


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is in the doubles
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "RETRY_MIN_S", 0.001)


async def test_what_the_function_returns_goes_back_and_the_message_is_done_after_that() -> None:
    async def handler(message: Message) -> str | None:
        assert not mail.done
        return f"heard {message.text}" if message.id == "1" else None

    async with listening(handler, []) as mail:
        await mail.put("bob", letter("1"))
        await until(lambda: mail.done == ["1"])
        (answer,) = mail.boxes["amy"]
        assert (answer.data, answer.kind, answer.reply_to) == ("heard text 1", "response", "1")


async def test_a_plain_function_answers_with_data() -> None:
    async with listening(lambda message: {"got": message.data}, []) as mail:
        await mail.put("bob", letter("1"))
        await until(lambda: mail.done == ["1"])
        assert mail.boxes["amy"][0].data == {"got": "text 1"}


async def test_a_message_that_failed_comes_again_and_is_given_up_in_the_end() -> None:
    said: list[str] = []
    seen: list[tuple[str, int]] = []

    async def handler(message: Message) -> None:
        seen.append((message.id, message.view.tries))
        if message.id == "bad" or message.view.tries < 2:
            raise ZeroDivisionError("not today")

    async with listening(handler, said) as mail:
        await mail.put("bob", letter("good"), letter("bad", kind="query"))
        await until(lambda: len(mail.done) == 2)
        assert mail.done == ["good", "bad"]
        assert [tries for name, tries in seen if name == "good"] == [1, 2]
        assert [tries for name, tries in seen if name == "bad"] == list(range(1, TRIES_MAX + 1))
        assert "given up after 5 tries" in said[-1]
        (answer,) = mail.boxes["amy"]
        assert (answer.data, answer.headers) == ("not today", {"error": "ZeroDivisionError"})


def test_an_agent_has_one_function_for_messages() -> None:
    @agent
    async def bob(text: str) -> str:
        "Answers."
        return text

    @bob.on_message
    async def heard(message: Message) -> None: ...

    assert bob.hears is heard
    with pytest.raises(UsageError):
        bob.on_message(heard)


async def test_an_agent_process_reads_the_inbox_of_its_agent() -> None:
    @agent
    async def bob(text: str) -> str:
        "Answers."
        return text

    @bob.on_message
    async def heard(message: Message) -> str:
        return "yes"

    one: Any = FakeBackend()
    one.mail = FakeMail()
    async with serving(one) as served, AgentProcess([bob], url=served.url, token=TOKEN):
        await one.mail.put("bob", letter("1"))
        await until(lambda: one.mail.done == ["1"])
        assert one.mail.boxes["amy"][0].data == "yes"
