"""What can be done to one key of shared state, and the limits of it (docs/spec/state.md §3; mirrors ``wire.state_views``)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agentmesh.core.state.causality import VersionVector
from agentmesh.errors import LimitError, StateError, UsageError

#: Of one JSON value: of a register, a field, an item of a set or list, or a piece of text.
VALUE_BYTES_MAX = 64 * 1024
FIELD_BYTES_MAX = 1024
FIELDS_MAX = 1_000
ITEMS_MAX = 10_000
#: Of one increment, and of what one writer may have counted up or down altogether.
COUNT_MAX = 1 << 53
#: Bytes of a key with all that is known of it; no replica takes more.
CELL_BYTES_MAX = 1024 * 1024
#: From here on writes are refused that make it larger, so that what others write meanwhile still finds room.
CELL_BYTES_SOFT_MAX = 768 * 1024

#: First byte of an update of a document (``docs``): an edit, the mark of a deletion, all before without history.
DOCUMENT_FORMS = EDIT, CLEAR, SHALLOW = b"u", b"x", b"s"
REGISTER, LWW, MAP, COUNTER, SET, LIST, TEXT = TYPES = ("register", "lww", "map", "counter", "set", "list", "text")
_OF_TYPE: Final[dict[str, tuple[str, ...]]] = {
    REGISTER: ("set", "delete", "resolve"),
    LWW: ("set", "delete", "resolve"),
    MAP: ("put", "remove", "resolve", "delete"),
    COUNTER: ("increment", "delete"),
    SET: ("add", "discard", "delete"),
    LIST: ("insert", "cut", "delete"),
    TEXT: ("insert", "cut", "delete"),
}
OPS = frozenset(op for ops in _OF_TYPE.values() for op in ops)
#: Which type a key gets by its first operation, if none is said.
_BY_OP: Final[dict[str, str]] = {
    "set": REGISTER,
    "resolve": REGISTER,
    "delete": REGISTER,
    "put": MAP,
    "remove": MAP,
    "add": SET,
    "discard": SET,
    "increment": COUNTER,
    "insert": LIST,
    "cut": LIST,
}


class Op(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One operation on one key; fields as in ``wire.state_views.StateChange``.

    Attributes:
        seen: set, put: which writes the client had seen, if it says so: those are replaced, all others stay beside. None =
            it was shown the value that this replica shows.
    """

    op: str = "set"
    type: str = ""
    value: Any = None
    field: str = ""
    by: int = 1
    at: int = -1
    count: int = 1
    seen: VersionVector | None = None


_json_encode = msgspec.json.Encoder(order="deterministic").encode
_json_decode = msgspec.json.Decoder().decode


def to_json(value: Any) -> bytes:
    """Return a value as JSON; equal values give equal bytes.

    Raises:
        UsageError: it is no JSON (code "state.value").
        LimitError: over ``VALUE_BYTES_MAX`` (code "state.too_large").
    """
    try:
        raw = _json_encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise UsageError(f"not a JSON value: {error}", code="state.value") from error
    if len(raw) > VALUE_BYTES_MAX:
        raise LimitError(
            f"a value of {len(raw)} bytes, at most {VALUE_BYTES_MAX}",
            code="state.too_large",
            hint="put it where others can fetch it, and keep its address and digest here",
        )
    return raw


def from_json(raw: bytes) -> Any:
    """Return the value of JSON that was checked when it came in."""
    return _json_decode(raw)


def type_for(op: Op, shown: str) -> str:
    """Check an operation and return the type it works on.

    Args:
        op: As it came from outside.
        shown: Type of the key; "" if there is none yet.

    Raises:
        UsageError: unknown words, or numbers out of range (codes "state.op", "state.value").
        StateError: the key has another type (code "state.type").
        LimitError: too large. No state changed.
    """
    if op.op not in OPS or (op.type and op.type not in _OF_TYPE):
        raise UsageError(f"no operation {op.op[:20]!r} of a type {op.type[:20]!r}", code="state.op")
    wanted = op.type or shown or (TEXT if op.op == "insert" and isinstance(op.value, str) else _BY_OP[op.op])
    if shown and wanted != shown and op.op != "delete":
        raise StateError(
            f"the key is a {shown}, not a {wanted}",
            code="state.type",
            hint="delete the key first, or use another one",
        )
    if op.op == "delete":
        wanted = shown or wanted
    if op.op not in _OF_TYPE[wanted]:
        raise StateError(
            f"a {wanted} knows no {op.op!r}",
            code="state.type",
            why="its operations are " + ", ".join(_OF_TYPE[wanted]),
        )
    if not -COUNT_MAX <= op.by <= COUNT_MAX or not -1 <= op.at <= COUNT_MAX or not 0 <= op.count <= COUNT_MAX:
        raise UsageError("by, at or count is out of range", code="state.value", why="they reach to 2^53")
    if op.field and wanted != MAP:
        raise UsageError(f"a {wanted} has no fields", code="state.op")
    if wanted == MAP and op.op != "delete" and not op.field:
        raise UsageError("which field of the map?", code="state.op")
    try:
        size = len(op.field.encode())
    except UnicodeEncodeError as error:
        raise UsageError("the name of a field is no text", code="state.value") from error
    if size > FIELD_BYTES_MAX:
        raise LimitError(f"the name of a field has at most {FIELD_BYTES_MAX} bytes", code="state.too_large")
    return wanted
