"""What a person gives as input: text, standard input, a file, or JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from agentmesh.errors import LimitError, UsageError

INPUT_BYTES_MAX = 8 * 1024 * 1024


def payload(text: str | None, file: str | None, data: str | None, example: str) -> dict[str, Any]:
    """Return the one input that was given, under ``text`` or ``data``.

    Args:
        text: As typed; "-" reads standard input.
        file: Name of a file with text.
        data: JSON.
        example: What to do next, if the input makes no sense.

    Raises:
        UsageError: none or several, not JSON, not readable. LimitError: too large.
    """
    if sum(given is not None for given in (text, file, data)) != 1:
        raise UsageError("give exactly one of TEXT, '-', --file and --data", code="usage.input", hint=example)
    if data is not None:
        return {"data": json_of(data, "--data")}
    if text is not None and text != "-":
        return {"text": text}
    try:
        content = _read(file)
        if len(content) > INPUT_BYTES_MAX:
            raise LimitError(f"the input is larger than {INPUT_BYTES_MAX} bytes", code="limit.input")
        decoded = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file or 'stdin'}", code="usage.input", why=str(error), hint=example) from error
    return {"text": decoded.removesuffix("\n") if file is None else decoded}


def json_of(text: str, flag: str) -> Any:
    """Read JSON. Raises UsageError."""
    import msgspec

    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(
            f"{flag} is not valid JSON", code="usage.input", why=str(error), hint=f"{flag} '{{\"key\": 1}}'"
        ) from error


def _read(file: str | None) -> bytes:
    if file is None:
        return sys.stdin.buffer.read(INPUT_BYTES_MAX + 1)
    with Path(file).open("rb") as source:
        return source.read(INPUT_BYTES_MAX + 1)
