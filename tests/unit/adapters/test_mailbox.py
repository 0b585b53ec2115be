"""Agents without a server: registered by ``mailbox:``, always healthy, never called (docs/spec/mail.md §7)."""

from __future__ import annotations

import pytest

from agentmesh.adapters.mailbox import MailboxAdapter
from agentmesh.adapters.registry import default_adapters, detect
from agentmesh.errors import NoRoute, UsageError
from agentmesh.node.door import Invocation


async def test_a_mailbox_is_found_by_its_url_without_asking_anybody() -> None:
    adapter, (found,) = await detect("mailbox:alice", default_adapters())
    assert (adapter.name, found.name) == ("mailbox", "alice")
    assert (await adapter.open(found.target).health()).status == "healthy"


async def test_a_call_to_a_mailbox_is_refused_with_what_to_do_instead() -> None:
    door = MailboxAdapter().open({"mailbox": "alice"})
    with pytest.raises(NoRoute) as caught:
        async for _ in door.invoke(Invocation("t", "r", [], agent_name="alice")):
            pass
    assert caught.value.code == "agent.mailbox"
    assert "agentmesh send alice" in str(caught.value.hint)


async def test_another_url_is_no_mailbox() -> None:
    with pytest.raises(UsageError):
        await MailboxAdapter().discover("http://127.0.0.1:1/")


async def test_the_url_names_what_others_find_it_by() -> None:
    (one,) = await MailboxAdapter().discover("mailbox:amy?skill=plan&skill=code%20review&skill=messages")
    assert one.name == "amy"
    assert [skill["id"] for skill in one.skills] == ["messages", "plan", "code review"]
    for url in ("mailbox:amy?skill=", "mailbox:amy?sk=x", "mailbox:amy?skill=%00", "mailbox:a?" + "skill=a&" * 40):
        with pytest.raises(UsageError):
            await MailboxAdapter().discover(url)
