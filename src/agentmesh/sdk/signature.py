"""From a function's types and docstring to what the mesh shows of it, and from a caller's parts to its arguments.

Types become a JSON Schema (msgspec), the first docstring paragraph the description. Parts become arguments by one rule:

1. a data part that is a JSON object holds the parameters by name;
2. a function with one ``str`` parameter gets the text as it is;
3. text that is a JSON object holds the parameters by name;
4. a function with one parameter of another type gets the text or data decoded as that type.

Anything else is refused with the list of parameters, code "agent.bad_input".
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import msgspec

from agentmesh.errors import AgentFailed, UsageError
from agentmesh.wire.event import text_of

_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Signature:
    """The parameters of one agent function.

    Args:
        function: The function.
        context_type: Parameters annotated with this class are injected, not asked of the caller.

    Raises:
        UsageError: it cannot be called by name (``*args``, positional-only, or types that JSON cannot carry).
    """

    def __init__(self, function: Callable[..., Any], context_type: type) -> None:
        self.function_name = getattr(function, "__name__", "agent")
        try:
            hints = get_type_hints(function)
            parameters = inspect.signature(function).parameters.values()
        except (NameError, TypeError, ValueError) as error:
            raise UsageError(
                f"cannot read the types of {self.function_name}(): {error}",
                code="agent.bad_function",
                hint="annotate its parameters with types that are defined in the same module",
            ) from error
        self.context_names: list[str] = []
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        for parameter in parameters:
            if hints.get(parameter.name) is context_type:
                self.context_names.append(parameter.name)
                continue
            if parameter.kind not in _KINDS:
                raise UsageError(
                    f"{self.function_name}() takes {parameter}, which a caller cannot fill by name",
                    code="agent.bad_function",
                    hint="use plain named parameters",
                )
            kind = hints.get(parameter.name, str)
            if parameter.default is inspect.Parameter.empty:
                fields.append((parameter.name, kind))
            else:
                fields.append((parameter.name, kind, msgspec.field(default_factory=_Constant(parameter.default))))
        self.names = [f[0] for f in fields]
        self._types = {f[0]: f[1] for f in fields}
        try:
            self._struct = msgspec.defstruct(self.function_name, fields, kw_only=True, forbid_unknown_fields=True)
            self.schema: dict[str, Any] = _inline(msgspec.json.schema(self._struct))
        except (TypeError, NameError) as error:
            raise UsageError(
                f"{self.function_name}() has a parameter that JSON cannot carry: {error}",
                code="agent.bad_function",
                hint="use str, int, float, bool, list, dict, dataclasses or msgspec.Struct",
            ) from error
        self.takes_text = len(self.names) == 1 and self._types[self.names[0]] is str

    def arguments(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the arguments that these parts give, context parameters left out.

        Raises:
            AgentFailed: they do not fit (code "agent.bad_input"); the message lists what is expected.
        """
        data = [p["data"] for p in parts if "data" in p]
        text = text_of([p for p in parts if "text" in p])
        if not self.names:
            return {}
        if len(data) == 1:
            return self._from_value(data[0])
        if self.takes_text:
            return {self.names[0]: text_of(parts)}
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if len(self.names) == 1 and text:
                return self._from_value(text)
            if not text and not data:
                return self._convert({})
            raise self._bad("the text is no JSON object") from None
        return self._from_value(value)

    def _from_value(self, value: Any) -> dict[str, Any]:
        if len(self.names) != 1:
            if not isinstance(value, dict):
                raise self._bad(f"got {type(value).__name__}, not a JSON object")
            return self._convert(value)  # pyright: ignore[reportUnknownArgumentType]
        name = self.names[0]
        if isinstance(value, dict) and list(value) == [name]:  # pyright: ignore[reportUnknownArgumentType]
            return self._convert(value)  # pyright: ignore[reportUnknownArgumentType]
        if self.takes_text and not isinstance(value, str):
            value = msgspec.json.encode(value).decode()
        return self._convert({name: value})

    def _convert(self, members: dict[str, Any]) -> dict[str, Any]:
        try:
            # Not strict: "3" for an int is what people type.
            filled = msgspec.convert(members, self._struct, strict=False)
        except (msgspec.ValidationError, RecursionError) as error:
            raise self._bad(str(error)) from error
        return {name: getattr(filled, name) for name in self.names}

    def _bad(self, why: str) -> AgentFailed:
        return AgentFailed(
            f"{self.function_name} cannot read its input: {why}; expected {self.describe()}",
            code="agent.bad_input",
            why=why,
            hint=f"pass JSON such as {self._example()}",
        )

    def describe(self) -> str:
        """Return the parameters for people: ``{a: integer, b: integer = 1}``."""
        properties: dict[str, Any] = self.schema.get("properties", {})
        required = self.schema.get("required", [])
        shown: list[str] = []
        for name in self.names:
            schema = properties.get(name, {})
            kind = schema.get("type") or (
                "one of " + ", ".join(map(str, schema["enum"])) if "enum" in schema else "any"
            )
            shown.append(f"{name}: {kind}" + ("" if name in required else " (optional)"))
        return "{" + ", ".join(shown) + "}"

    def _example(self) -> str:
        samples: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}
        properties: dict[str, Any] = self.schema.get("properties", {})
        example = {n: samples.get(str(properties.get(n, {}).get("type")), "…") for n in self.names}
        return msgspec.json.encode(example).decode()


class _Constant:
    """A default as a factory: mutable ones are taken too, and each call gets its own."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return copy.deepcopy(self.value)


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    """Put the one definition that the root refers to at the root; others stay under ``$defs``."""
    definitions: dict[str, Any] = dict(schema.get("$defs", {}))
    root = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if root not in definitions:
        return schema
    top: dict[str, Any] = dict(definitions.pop(root))
    if definitions:
        top["$defs"] = definitions
    return top


def describe(function: Callable[..., Any]) -> str:
    """Return the first paragraph of the docstring as one line; the readable name when there is none."""
    paragraph = (inspect.getdoc(function) or "").strip().split("\n\n", 1)[0]
    return " ".join(paragraph.split()) or f"{getattr(function, '__name__', 'agent').replace('_', ' ').capitalize()}."
