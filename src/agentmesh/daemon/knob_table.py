"""The settings of ``knobs.Settings`` as rows: what parsing, flags, ``config explain`` and the reference are drawn from."""

from __future__ import annotations

from typing import Any, NamedTuple, get_type_hints

import msgspec

from agentmesh.daemon.knob import ENV_PREFIX, Knob
from agentmesh.daemon.knobs import Settings
from agentmesh.errors import ConfigError


class Row(NamedTuple):
    """One setting as the table describes it."""

    key: str
    kind: Any
    default: Any
    knob: Knob
    env: str
    flag: str
    many: bool


_TABLE: list[Row] = []


def table() -> list[Row]:
    """Return the table of settings, in the order in which ``Settings`` declares them."""
    if not _TABLE:
        hints = get_type_hints(Settings, include_extras=True)
        for field in msgspec.structs.fields(Settings):
            kind = hints[field.name]
            knob = next(m for m in kind.__metadata__ if isinstance(m, Knob))
            many = getattr(kind.__origin__, "__origin__", None) is tuple
            default = None if field.default is msgspec.NODEFAULT else field.default
            name = field.name.replace("federation_", "federation.", 1)  # RQ0 §8 names this one group with a dot
            flag = "--" + (knob.flag or name).replace("_", "-")
            _TABLE.append(Row(field.name, kind, default, knob, ENV_PREFIX + field.name.upper(), flag, many))
    return _TABLE


def row_of(key: str) -> Row:
    """Return one row; ``federation.listen`` is another spelling of ``federation_listen``. Raises ConfigError with near names."""
    plain = key.replace(".", "_").replace("-", "_") if key.startswith("federation.") else key
    for row in table():
        if row.key == plain:
            return row
    raise unknown_key(key, "")


def show_value(value: Any) -> str:
    """Return a value as it is written in the environment or on the command line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(str(v) for v in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def unknown_key(key: str, where: str) -> ConfigError:
    """Build the error for a key that is not in the table, with near names."""
    import difflib  # as in ``errors``

    near = difflib.get_close_matches(key[:100], [row.key for row in table()], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "agentmesh config explain   lists every setting"
    return ConfigError(
        f"{where + ': ' if where else ''}unknown setting {key[:100]!r}",
        code="config.key",
        hint=hint,
        extra={"key": key[:100], "did_you_mean": near},
    )
