"""Read plain flags without the validation library that newer Typer loads for each value: 0.1 s less per command.

Typer 0.29 turns every given value into its type through pydantic. Ours are texts, numbers, switches and lists of texts, which
need none of it. Where Typer has no such place to put our reader (older and perhaps newer versions), nothing is changed and
everything works as slowly as Typer does; a test counts what is imported, so that we notice.
"""

from __future__ import annotations

from typing import Any, cast

import typer

_SLOT = "_runtime_param"


class PlainValue:
    """Turn what the parser found into ``kind``, or refuse it in the parser's own manner."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value as its type; None stays None, and a flag that may be repeated gives a list.

        Raises:
            typer.BadParameter: a number was expected.
        """
        if getattr(param, "multiple", False) or getattr(param, "nargs", 1) == -1:
            return [self._one(item, param, ctx) for item in value or ()]
        return None if value is None else self._one(value, param, ctx)

    def _one(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return value if isinstance(value, self._kind) else self._kind(value)
        except ValueError as error:
            kind = {int: "a whole number", float: "a number"}.get(self._kind, self._kind.__name__)
            raise typer.BadParameter(f"{value!r} is not {kind}.", ctx=ctx, param=param) from error


def read_plainly(command: Any) -> Any:
    """Give every plain parameter of a command and of those below it our reader; return the command."""
    # With a context the list holds the --help switch too, which the command keeps for itself.
    for param in cast("list[Any]", command.get_params(typer.Context(command))):
        descriptor = getattr(param, "type_descriptor", None)
        kind = getattr(descriptor, "annotation", None)
        if kind == list[str]:
            kind = str
        if kind in (str, bool, int, float) and hasattr(param, _SLOT):
            setattr(param, _SLOT, PlainValue(kind))
    for below in cast("dict[str, Any]", getattr(command, "commands", {})).values():
        read_plainly(below)
    return command
