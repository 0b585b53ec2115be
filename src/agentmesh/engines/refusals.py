"""What every engine checks and answers alike: keys, values, and the few errors that ``base`` names."""

from __future__ import annotations

import re

from agentmesh.engines.base import KEY_CHARS_MAX, VALUE_BYTES_MAX
from agentmesh.errors import ConfigError, LimitError, NoRoute, StateError, Timeout, UsageError

_KEY = re.compile(r"[A-Za-z0-9_./-]+")


def check_key(key: str) -> None:
    """Refuse a key that no engine takes. Raises LimitError, UsageError (code "engine.key"). No state changed."""
    if len(key) > KEY_CHARS_MAX:
        raise LimitError(f"a key of {len(key)} characters, at most {KEY_CHARS_MAX} are kept", code="engine.key")
    if not _KEY.fullmatch(key):
        raise UsageError(f"{key[:100]!r} is no key", code="engine.key", hint="use letters, digits, and _ - . /")


def check_prefix(prefix: str) -> None:
    """Refuse what no key begins with; "" is fine. Raises as ``check_key``."""
    if prefix:
        check_key(prefix)


def check_value(value: bytes) -> None:
    """Refuse a value that is too large. Raises LimitError (code "engine.value"). No state changed."""
    if len(value) > VALUE_BYTES_MAX:
        raise LimitError(f"a value of {len(value)} bytes, at most {VALUE_BYTES_MAX} are kept", code="engine.value")


def conflict(key: str, expect: int, found: int | None) -> StateError:
    """Return the error for a compare-and-set that met another revision; ``found`` 0 = there is no value, None = unknown."""
    why = (
        "another revision is there" if found is None else f"revision {found} is there" if found else "it does not exist"
    )
    wanted = f"at revision {expect}" if expect else "new"
    return StateError(
        f"{key!r} is not {wanted}",
        code="state.conflict",
        why=why,
        hint="read it again, and write against what is there now",
        extra={} if found is None else {"revision": found},
    )


def unreachable(url: str, why: object) -> NoRoute:
    """Return the error for an engine that did not answer and did nothing."""
    return NoRoute(
        f"{url} does not answer",
        code="engine.unreachable",
        why=str(why)[:300] or None,
        hint="more than half of its servers must run and reach each other; agentmesh doctor",
    )


def unknown_outcome(url: str, why: object) -> Timeout:
    """Return the error for a write that was sent and never answered."""
    return Timeout(
        f"{url} did not say what became of a write",
        code="engine.unknown_outcome",
        why=str(why)[:300] or None,
        hint="read what is there before writing again",
    )


def closed(url: str) -> StateError:
    """Return the error for the use of an engine that was closed."""
    return StateError(f"{url} is closed", code="engine.closed")


def unsafe(url: str, what: str, hint: str) -> ConfigError:
    """Return the error for an engine that cannot promise what is asked of it."""
    return ConfigError(f"{url}: {what}", code="engine.unsafe", hint=hint)
