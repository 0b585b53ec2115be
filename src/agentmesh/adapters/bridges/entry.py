"""What an entry in a foreign registry says, read with suspicion, and how an agent of the mesh is written there.

An entry is a JSON object with the ``url`` of an agent, and if wanted ``door`` ("a2a", "http"; "auto" asks the URL) and ``name``.
A bare A2A agent card will do as well. What this node writes is the same, with the whole ``card`` and ``origin``, the id of the
node that wrote it: whoever reads an entry with an origin leaves it alone, since mesh agents meet in the mesh.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from agentmesh.adapters.bridges.base import ENTRY_BYTES_MAX, Posting
from agentmesh.errors import DecodeError
from agentmesh.ids import is_name

_URL_CHARS_MAX = 2048


class Entry(NamedTuple):
    """One entry of a foreign registry.

    Attributes:
        url: Where the agent answers.
        door: Its protocol, or "auto".
        name: How it is to be called here; "" for its own name.
        origin: Node of the mesh that wrote it; "" for all other programs.
    """

    url: str
    door: Literal["auto", "a2a", "http"] = "auto"
    name: str = ""
    origin: str = ""


class _Interface(msgspec.Struct):
    url: str = ""


class _Written(msgspec.Struct):
    url: str = ""
    door: Literal["auto", "a2a", "http"] = "auto"
    name: str = ""
    origin: str = ""
    supportedInterfaces: list[_Interface] = []
    skills: list[msgspec.Raw] | None = None


_decoder = msgspec.json.Decoder(_Written)


def read_entry(value: bytes | None) -> Entry:
    """Read one entry; other members are left to those who wrote them.

    Raises:
        DecodeError: too large, no JSON object, no URL, a door that strangers cannot name, or a name that is none (codes
            "bridge.entry_too_large", "bridge.bad_entry"). No state changed.
    """
    if value is None or len(value) > ENTRY_BYTES_MAX:
        raise DecodeError(f"the entry is larger than {ENTRY_BYTES_MAX} bytes", code="bridge.entry_too_large")
    try:
        written = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(str(error)) from error
    is_card = written.skills is not None
    url = written.url or next((one.url for one in written.supportedInterfaces if one.url), "")
    if not url:
        raise _bad("it has no url")
    if len(url) > _URL_CHARS_MAX:
        raise _bad(f"its url is longer than {_URL_CHARS_MAX} characters")
    # The name in a card is prose; the door reads it from the agent itself and makes it fit.
    name = "" if is_card else written.name
    if name and not is_name(name):
        raise _bad("its name is none: 1 to 64 letters, digits, '-', '_' or inner dots")
    return Entry(url, written.door, name, written.origin[:200])


def write_entry(posting: Posting, origin: str) -> bytes:
    """Write an agent beside this node."""
    members: dict[str, Any] = {
        "name": posting.name,
        "url": posting.url,
        "door": "a2a",
        "agent_id": posting.agent_id,
        "origin": origin,
        "card": posting.card,
    }
    return msgspec.json.encode(members)


def _bad(why: str) -> DecodeError:
    return DecodeError("the entry tells of no agent", code="bridge.bad_entry", why=why[:300])
