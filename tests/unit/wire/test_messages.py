"""The list of messages: each machine's messages are on it once, and datagrams are a part of it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

import agentmesh.core
from agentmesh.core.dht.messages import Check
from agentmesh.core.overlay.messages import LinkCheck
from agentmesh.core.plumtree.messages import IDontWant, IHave, Prune
from agentmesh.core.swim.messages import Ping
from agentmesh.errors import DecodeError
from agentmesh.wire import v1

CORE = Path(agentmesh.core.__file__).parent
#: Machines whose frames go over streams of their own, in unions of their own (``core.courier.messages``, ``wire.state``).
APART = {"courier", "state"}
MACHINES = sorted({path.parent.name for path in CORE.glob("*/messages.py")} - APART)


def tagged(machine: str) -> list[type[msgspec.Struct]]:
    """Return the messages that a machine defines: its structs with a tag."""
    module = importlib.import_module(f"agentmesh.core.{machine}.messages")
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == module.__name__
        and value.__struct_config__.tag is not None
    ]


@pytest.mark.parametrize("machine", MACHINES)
def test_every_message_of_a_machine_is_listed_exactly_once(machine: str) -> None:
    listed = get_args(v1.ControlMessage)
    assert [m.__name__ for m in tagged(machine) if listed.count(m) != 1] == []
    assert all(m in get_args(v1.AnyMessage) for m in tagged(machine))


def test_no_two_messages_share_a_tag_and_every_message_decodes_as_itself() -> None:
    tags = [m.__struct_config__.tag for m in get_args(v1.AnyMessage)]
    assert sorted(tags) == sorted(set(tags))


def test_every_tag_stands_in_the_specification() -> None:
    spec = (CORE.parents[2] / "docs" / "spec" / "wire.md").read_text("utf-8")
    named = set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", spec, flags=re.DOTALL)))
    assert [m.__struct_config__.tag for m in get_args(v1.ControlMessage) if m.__struct_config__.tag not in named] == []


def test_datagrams_are_the_messages_of_swim_and_the_dht_and_for_want_of_a_link_those_of_the_overlay() -> None:
    expected = {m for machine in ("swim", "dht", "overlay") for m in tagged(machine)} | {IHave, IDontWant}
    assert set(get_args(v1.DatagramMessage)) == expected
    assert v1.is_spare_datagram(LinkCheck())
    assert not v1.is_datagram(LinkCheck())
    assert v1.is_datagram(Ping(1, 2, 3, 4))
    assert v1.is_datagram(Check(rpc=1))
    assert not v1.is_datagram(Prune())
    assert not v1.is_datagram(b"")


def test_a_datagram_decodes_on_both_ways_and_other_messages_only_over_a_link() -> None:
    ping, prune = v1.encode(Ping(1, 2, 3, 4)), v1.encode(Prune())
    assert v1.decode_datagram(ping) == v1.decode_control(ping) == Ping(1, 2, 3, 4)
    assert v1.decode_control(prune) == Prune()
    with pytest.raises(DecodeError) as error:
        v1.decode_datagram(prune)
    assert error.value.code == "wire.malformed"


def test_a_payload_over_the_size_of_a_datagram_is_refused_unread() -> None:
    message: Any = Check(rpc=1, at="x" * 1_200)
    raw = v1.encode(message)
    assert v1.decode_control(raw) == message
    with pytest.raises(DecodeError) as error:
        v1.decode_datagram(raw)
    assert error.value.code == "wire.too_large"
