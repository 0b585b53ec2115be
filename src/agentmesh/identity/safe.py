"""The canonical-safe rule: which cards have the same canonical bytes for every reader.

A2A §8.4 contradicts itself on empty and default members, its SDKs drop what the text keeps, protobuf rounds integers,
and older SDKs escape what is not ASCII (research: standards §4.1). A card within this rule is written alike by all of
them; what is outside is neither signed nor taken in:

1. every REQUIRED member is there and not empty; 2. no empty text, array or object anywhere; 3. no ``false``, 0 or
``null``; 4. no float, no integer beyond ±(2^53−1); 5. nesting ≤ 32; 6. member names are printable ASCII, because JCS sorts
by UTF-16 units and some writers by code points; 7. no control characters except tab, line feed and carriage return, so
that no card can steer a terminal.
"""

from __future__ import annotations

import re
from typing import Any, cast

from agentmesh.codec.canonical import DEPTH_MAX, INTEGER_MAX
from agentmesh.errors import DecodeError

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NAME = re.compile(r"[ -~]{1,200}")

#: Members that A2A 1.0 (a2a.proto) marks REQUIRED, per message.
CARD_REQUIRED = (
    *("name", "description", "version", "supportedInterfaces", "capabilities"),
    *("defaultInputModes", "defaultOutputModes", "skills"),
)
SKILL_REQUIRED = ("id", "name", "description", "tags")
INTERFACE_REQUIRED = ("url", "protocolBinding", "protocolVersion")


def check_safe(card: dict[str, Any]) -> None:
    """Check rules 2–7 on a whole value, without recursion.

    Raises:
        DecodeError: with the path of the first offence (codes "manifest.empty", "manifest.default", "manifest.number",
            "manifest.depth", "manifest.member_name", "manifest.control"). No state changed.
    """
    level: list[tuple[str, Any]] = [("", card)]
    depth = 0
    while level:
        depth += 1
        if depth > DEPTH_MAX + 1:
            raise DecodeError(f"the card is nested deeper than {DEPTH_MAX}", code="manifest.depth")
        deeper: list[tuple[str, Any]] = []
        for path, value in level:
            if isinstance(value, dict):
                members = cast("dict[Any, Any]", value)
                for name in members:
                    if not isinstance(name, str) or not _NAME.fullmatch(name):
                        raise DecodeError(
                            f"a member of {path or 'the card'} has a name that is not plain ASCII",
                            code="manifest.member_name",
                        )
                deeper.extend((f"{path}.{name}" if path else name, item) for name, item in members.items())
            elif isinstance(value, list | tuple):
                deeper.extend((f"{path}[{i}]", item) for i, item in enumerate(cast("list[Any]", value)))
            _check_one(path, value)
        level = deeper


def _check_one(path: str, value: Any) -> None:
    where = path[:200] or "the card"
    if isinstance(value, float):
        raise DecodeError(f"{where} is a float; write amounts as text", code="manifest.number")
    if isinstance(value, str | list | tuple | dict) and not value:
        raise DecodeError(f"{where} is empty; leave it out", code="manifest.empty")
    if value is None or (isinstance(value, int) and value == 0):  # False is 0
        raise DecodeError(f"{where} is an explicit default; leave it out", code="manifest.default")
    if isinstance(value, int) and abs(value) > INTEGER_MAX:
        raise DecodeError(f"{where} is beyond ±(2^53−1); write it as text", code="manifest.number")
    if isinstance(value, str) and _CONTROL.search(value):
        raise DecodeError(f"{where} holds control characters", code="manifest.control")
    if not isinstance(value, str | int | dict | list | tuple):
        raise DecodeError(f"{where} is no JSON value", code="manifest.malformed")


def tidied(value: Any) -> Any:
    """Return a value without empties, defaults and control characters; None when nothing is left.

    For descriptions that come from an agent's own card: its author need not know our rule. Numbers that have no safe
    spelling are kept, so that signing refuses them by name. Nesting beyond the rule is cut off as empty.
    """
    return _tidied(value, DEPTH_MAX)


def _tidied(value: Any, depth_left: int) -> Any:
    if isinstance(value, dict | list | tuple):
        if depth_left <= 0:
            return None
        if isinstance(value, dict):
            members = cast("dict[str, Any]", value)
            return {k: v for k, item in members.items() if (v := _tidied(item, depth_left - 1)) is not None} or None
        items = cast("list[Any]", value)
        return [v for item in items if (v := _tidied(item, depth_left - 1)) is not None] or None
    if isinstance(value, str):
        return _CONTROL.sub("", value) or None
    return None if value is None or value == 0 else value  # False is 0
