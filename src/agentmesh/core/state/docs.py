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
from typing import Any, TypeVar

import msgspec

from agentmesh.core.state.causality import Dot
from agentmesh.core.state.ops import CELL_BYTES_SOFT_MAX, ITEMS_MAX, TEXT, Op, to_json
from agentmesh.errors import LimitError, StateError, UsageError

#: Updates that are kept one by one before the next edit takes them together.
UPDATES_MAX = 64
#: Of what a document shows, in bytes; more is not built up in memory.
CONTENT_BYTES_MAX = 8 * 1024 * 1024
#: First byte of an update: an edit, or one that emptied the document because its key was deleted.
_EDIT, _CLEAR = b"u", b"x"
_NAME = "content"

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


def _guarded(call: Callable[[], T]) -> T:
    """Call into loro. Its errors, and a panic in its code, come as BaseException."""
    try:
        return call()
    except Exception:
        raise
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise ValueError(str(error)[:200]) from error


def holds(update: bytes) -> bool:
    """Say whether an update is an edit, not the mark of a deletion."""
    return update[:1] == _EDIT


def _open(updates: Sequence[bytes], peer: int) -> Any:
    loro = _loro()
    doc = loro.LoroDoc()
    doc.peer_id = peer
    for update in updates:
        try:
            _guarded(lambda update=update: doc.import_(update[1:]))
        except ValueError:
            continue  # bytes made in malice: every replica passes them over
    return doc


def _peer_of(dot: Dot) -> int:
    return int.from_bytes(hashlib.sha256(dot.writer).digest()[:8], "big") >> 1


def content(updates: Sequence[bytes], kind: str) -> Any:
    """Return the text, or the items of the list.

    Raises:
        StateError: loro is not installed (code "state.no_docs").
        LimitError: it is larger than can be shown (code "state.too_large").
    """
    return _content(_open(updates, 1), kind)


def _content(doc: Any, kind: str) -> Any:
    if kind == TEXT:
        text = doc.get_text(_NAME)
        if text.len_utf8 > CONTENT_BYTES_MAX:
            raise _too_large()
        return _guarded(text.to_string)
    items: list[Any] = []
    size = 0
    for item in _guarded(doc.get_list(_NAME).get_deep_value):
        if isinstance(item, str):  # another kind was put there by other software: not ours to show
            size += len(item)
            if size > CONTENT_BYTES_MAX:
                raise _too_large()
            try:
                items.append(msgspec.json.decode(item))
            except (msgspec.DecodeError, RecursionError):
                continue
    return items


def _too_large() -> LimitError:
    return LimitError(f"the document is over {CONTENT_BYTES_MAX} bytes", code="state.too_large")


def edit(updates: Sequence[bytes], kind: str, change: Op, dot: Dot) -> tuple[bytes, bool]:
    """Return the update for an edit, and whether it stands for all updates before.

    Args:
        updates: Of the document, in order.
        kind: "list" or "text".
        change: "insert" of ``value`` at ``at`` (-1 = the end), "cut" of ``count`` from ``at`` on, or "delete".
        dot: Of this write.

    Raises:
        StateError: loro is not installed (code "state.no_docs").
        UsageError: a place that is not there, or a value that is no text (code "state.value").
        LimitError: too large. No state changed.
    """
    doc = _open(updates, _peer_of(dot))
    loro = _loro()
    before = doc.oplog_vv
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
    whole = change.op == "delete" or len(updates) >= UPDATES_MAX
    mode = loro.ExportMode.Snapshot() if whole else loro.ExportMode.Updates(before)
    raw: bytes = _guarded(lambda: doc.export(mode))
    if len(raw) > CELL_BYTES_SOFT_MAX:
        raise LimitError("the document has grown too large with all its edits", code="state.cell_full")
    return (_CLEAR if change.op == "delete" else _EDIT) + raw, whole


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
