"""A2A parts and metadata between the JSON of EventV1 and the protobuf of a2a-sdk.

Protobuf's ``Struct`` knows only doubles: whole numbers are turned back into integers on the way in, so that a typed agent
sees the ``3`` its caller wrote. What events carry may come from another node and hold anything MessagePack can: it is made
JSON-ready before it meets protobuf.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from typing import Any, cast

from a2a.types.a2a_pb2 import Part
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.json_format import ParseError as ProtobufParseError
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.struct_pb2 import Struct

_DEPTH_MAX = 48
_INT_MAX = 2**53


def parts_from_proto(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Return A2A 1.0 parts in JSON form."""
    return [cast("dict[str, Any]", _whole_numbers(MessageToDict(part))) for part in parts]


def struct_to_json(struct: ProtoMessage) -> dict[str, Any]:
    """Return a protobuf Struct as a dict."""
    return cast("dict[str, Any]", _whole_numbers(MessageToDict(struct)))


def parts_to_proto(parts: object) -> list[Part]:
    """Return parts as protobuf; those that are no A2A part are carried as data, never dropped."""
    items = cast("list[object]", parts) if isinstance(parts, list) else []
    return [_part(item) for item in items]


def text_part(text: str) -> Part:
    """Return one text part."""
    return Part(text=text)


def plain_text(part: object) -> str | None:
    """Return the text of a part that is nothing but text, else None."""
    if isinstance(part, dict) and isinstance(text := cast("dict[str, Any]", part).get("text"), str):
        return text if not (cast("dict[str, Any]", part).keys() - {"text"}) else None
    return None


def to_struct(value: dict[str, Any]) -> Struct:
    """Return a JSON object as protobuf Struct."""
    return ParseDict(_json_ready(value, 0), Struct())


def _part(item: object) -> Part:
    ready: Any = _json_ready(item, 0)
    if isinstance(ready, dict):
        try:
            part = ParseDict(cast("dict[str, Any]", ready), Part(), ignore_unknown_fields=True)
        except (ProtobufParseError, ValueError, TypeError):
            part = Part()
        if part.WhichOneof("content") is not None:
            return part
    try:
        return ParseDict({"data": ready}, Part())
    except (ProtobufParseError, ValueError, TypeError):
        return Part(text=json.dumps(ready))


def _json_ready(value: object, depth: int) -> Any:
    """Return the value with nothing in it that JSON or protobuf cannot hold."""
    if depth > _DEPTH_MAX:
        return "…"
    if isinstance(value, dict):
        return {str(k): _json_ready(v, depth + 1) for k, v in cast("dict[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_json_ready(item, depth + 1) for item in cast("list[object]", value)]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)


def _whole_numbers(value: object) -> object:
    if isinstance(value, float) and value.is_integer() and abs(value) <= _INT_MAX:
        return int(value)
    if isinstance(value, dict):
        return {k: _whole_numbers(v) for k, v in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [_whole_numbers(v) for v in cast("list[object]", value)]
    return value
