"""Lists and texts that many edit at once, by loro (docs/spec/state.md §3.5). The extra ``docs``; loaded with the
first document.

A document is kept as the updates of its edits, each under the dot of its write, like the values of any other type. So
joining copies needs no loro: a node without it holds and passes on documents, and only cannot read them. Whoever
edits takes many updates
together into one. All replicas import the same updates in the same order, and one that does not decode is passed
over by all of
them alike, so bytes made in malice cannot part them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from agentmesh.core.state.causality import Dot
from agentmesh.core.state.ops import CELL_BYTES_SOFT_MAX, CLEAR, EDIT, ITEMS_MAX, SHALLOW, TEXT, Op, to_json
from agentmesh.errors import LimitError, StateError, UsageError

#: Updates that are kept one by one before the next edit takes them together.
UPDATES_MAX = 64
#: Of what a document shows, in bytes; more is not built up in memory.
CONTENT_BYTES_MAX = 8 * 1024 * 1024
_NAME = "content"
#: Updates that make loro panic and are passed over; a panic costs a new start.
_PANICS_MAX = 16

T = TypeVar("T")


def _loro() -> Any:
    try:
        import loro
    except ImportError as error:
        raise StateError(
            "lists and texts need a package that is not installed",
            code="state.no_docs",
            why=str(error),
            hint="pip install 'agentmeshd[docs]'",
        ) from error
    return loro


class _Panic(Exception):
    """loro broke down inside: the document is of no more use."""


def _guarded(call: Callable[[], T]) -> T:
    """Call into loro, whose errors come as BaseException. Raises ValueError, and _Panic for a panic in its code."""
    try:
        return call()
    except Exception:
        raise
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise _Panic(str(error)[:200]) from error
        raise ValueError(str(error)[:200]) from error


def holds(update: bytes) -> bool:
    """Say whether an update is an edit, not the mark of a deletion."""
    return update[:1] != CLEAR


def order(update: bytes) -> int:
    """Return where an update comes in: those without history first, as loro takes them only so."""
    return 0 if update[:1] == SHALLOW else 1


def _new(peer: int) -> Any:
    doc = _loro().LoroDoc()
    doc.peer_id = peer
    return doc


def _open(updates: Sequence[bytes], kind: str, peer: int) -> Any:
    """Return the document. Updates made in malice are passed over, by every replica the same ones.

    Raises:
        StateError: there are too many of them (code "state.document").
    """
    left = list(updates)
    for _ in range(_PANICS_MAX + 1):
        doc, at = _new(peer), 0
        try:
            for at, update in enumerate(left):  # noqa: B007 where it broke
                _import(doc, update)
            at = len(left)
            _read(doc, kind)
            return doc
        except (_Panic, ValueError):
            if at == len(left):  # it broke when it was read: the culprit is found by reading after each
                at = _culprit(left, kind, peer)
            del left[at]
    raise _broken()


def _broken() -> StateError:
    return StateError(
        "somebody wrote updates that break this document",
        code="state.document",
        hint="delete the key and write it anew; its history says who wrote",
    )


def _import(doc: Any, update: bytes) -> None:
    with suppress(ValueError):  # it does not decode: every replica passes it over
        _guarded(lambda: doc.import_(update[1:]))


def _culprit(updates: Sequence[bytes], kind: str, peer: int) -> int:
    doc = _new(peer)
    for at, update in enumerate(updates):
        try:
            _import(doc, update)
            _read(doc, kind)
        except (_Panic, ValueError):
            return at
    return len(updates) - 1


def _read(doc: Any, kind: str) -> Any:
    """Return the text, or the list as loro has it."""
    if kind == TEXT:
        text = _guarded(lambda: doc.get_text(_NAME))
        if _guarded(lambda: text.len_utf8) > CONTENT_BYTES_MAX:
            raise _too_large()
        return _guarded(text.to_string)
    return _guarded(lambda: doc.get_list(_NAME).get_deep_value())


def _peer_of(dot: Dot) -> int:
    return int.from_bytes(hashlib.sha256(dot.writer).digest()[:8], "big") >> 1


def content(updates: Sequence[bytes], kind: str) -> Any:
    """Return the text, or the items of the list.

    Raises:
        StateError: loro is not installed (code "state.no_docs"), or the document is broken (code "state.document").
        LimitError: it is larger than can be shown (code "state.too_large").
    """
    whole = _read(_open(updates, kind, 1), kind)
    if kind == TEXT:
        return whole
    items: list[Any] = []
    size = 0
    for item in whole:
        if isinstance(item, str):  # another kind was put there by other software: not ours to show
            size += len(item)
            if size > CONTENT_BYTES_MAX:
                raise _too_large()
            with suppress(msgspec.DecodeError, RecursionError):
                items.append(msgspec.json.decode(item))
    return items


def _too_large() -> LimitError:
    return LimitError(f"the document is over {CONTENT_BYTES_MAX} bytes", code="state.too_large")


def edit(updates: Sequence[bytes], kind: str, change: Op, dot: Dot, *, idle: bool = False) -> tuple[bytes, bool]:
    """Return the update for an edit, and whether it stands for all updates before.

    Args:
        updates: Of the document, in order.
        kind: "list" or "text".
        change: "insert" of ``value`` at ``at`` (-1 = the end), "cut" of ``count`` from ``at`` on, or "delete".
        dot: Of this write.
        idle: Nobody can have an edit any more that builds on what was before, so its history may go.

    Raises:
        StateError: as ``content``.
        UsageError: a place that is not there, or a value that is no text (code "state.value").
        LimitError: too large. No state changed.
    """
    try:
        return _edit(_open(updates, kind, _peer_of(dot)), updates, kind, change, idle)
    except (_Panic, ValueError) as error:
        raise _broken() from error
    except StateError as error:
        if error.code == "state.document" and change.op == "delete":
            return CLEAR, True  # nothing of it can be kept for those who edit it meanwhile
        raise


def _edit(doc: Any, updates: Sequence[bytes], kind: str, change: Op, idle: bool) -> tuple[bytes, bool]:
    loro = _loro()
    before, place = doc.oplog_vv, doc.oplog_frontiers
    body = doc.get_text(_NAME) if kind == TEXT else doc.get_list(_NAME)
    length = body.len_unicode if kind == TEXT else len(body)
    if change.op == "delete":
        _guarded(lambda: body.delete(0, length))
    else:
        at = length if change.at < 0 and change.op == "insert" else change.at
        if not 0 <= at <= length:
            raise UsageError(f"place {change.at} of {length}", code="state.value")
        if change.op == "cut":
            _guarded(lambda: body.delete(at, min(change.count, length - at)))
        else:
            _insert(body, kind, at, length, change.value)
    _guarded(doc.commit)
    is_delete = change.op == "delete"
    shallow = idle and not is_delete and bool(updates)
    whole = is_delete or shallow or len(updates) >= UPDATES_MAX
    if shallow:
        mode = loro.ExportMode.ShallowSnapshot(place)
    else:
        mode = loro.ExportMode.Snapshot() if whole else loro.ExportMode.Updates(before)
    raw: bytes = _guarded(lambda: doc.export(mode))
    if len(raw) > CELL_BYTES_SOFT_MAX:
        raise LimitError("the document has grown too large with all its edits", code="state.cell_full")
    return (CLEAR if is_delete else SHALLOW if shallow else EDIT) + raw, whole


def _insert(body: Any, kind: str, at: int, length: int, value: Any) -> None:
    raw = to_json(value)
    if kind == TEXT:
        if not isinstance(value, str):
            raise UsageError("what goes into a text is a text", code="state.value")
        _guarded(lambda: body.insert(at, value))
        return
    if length >= ITEMS_MAX:
        raise LimitError(f"a list has at most {ITEMS_MAX} items", code="state.too_large")
    _guarded(lambda: body.insert(at, raw.decode()))
