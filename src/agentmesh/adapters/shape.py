"""Bring what an agent says of itself into the shape of ``Discovered``, whatever it left out or overdid."""

from __future__ import annotations

import re
from typing import Any, cast

from agentmesh.adapters.base import Capabilities, Discovered
from agentmesh.identity.budget import BUDGET_KEYS, Budget, Usage
from agentmesh.ids import is_name
from agentmesh.node.baggage import write_baggage
from agentmesh.node.door import Invocation

NAME_MAX = 64
TEXT_MAX = 2000
SKILLS_MAX = 64
TAGS_MAX = 16
MODES_MAX = 16

_NOT_NAME = re.compile(r"[^\w\-.]+")


def fit_name(text: object, fallback: str) -> str:
    """Return the nearest name that ``ids.is_name`` accepts: "Calc Agent!" → "calc-agent"; ``fallback`` if none is."""
    if isinstance(text, str):
        if is_name(text):
            return text
        slug = _NOT_NAME.sub("-", text.strip().lower())[:NAME_MAX].strip("-._")
        if is_name(slug):
            return slug
    return fallback


def words(value: object, default: str, length_max: int = TEXT_MAX) -> str:
    """Return a text of the agent's, cut to size; the default when it is no text or empty."""
    return value.strip()[:length_max] if isinstance(value, str) and value.strip() else default


def amounts_of(budget: Budget) -> dict[str, int]:
    """Return the bounds that a budget sets, JSON-ready."""
    return {name: value for name in BUDGET_KEYS if (value := getattr(budget, name)) is not None}


def usage_in(value: object) -> dict[str, int]:
    """Return what an answer says it used, {} if it says nothing that makes sense.

    Read are ``tokens`` and ``usd_micros``; for tokens also ``total_tokens`` and the sum of ``input_tokens`` and
    ``output_tokens``, as services of language models write them.
    """
    said = dict(mapping(value))
    if "tokens" not in said:
        taken, given = said.get("input_tokens"), said.get("output_tokens")
        if type(total := said.get("total_tokens")) is int:
            said["tokens"] = total
        elif type(taken) is int and type(given) is int:
            said["tokens"] = taken + given
    used = Usage.reported(said)
    return {} if used is None else {name: n for name in ("tokens", "usd_micros") if (n := getattr(used, name))}


def context_headers(call: Invocation) -> dict[str, str]:
    """Return the W3C headers of a call: ``traceparent``, ``tracestate`` and ``baggage``, where there are any."""
    headers = {"traceparent": call.traceparent} if call.traceparent else {}
    if headers and call.tracestate:
        headers["tracestate"] = call.tracestate
    return {**headers, "baggage": write_baggage(call.baggage)} if call.baggage else headers


def texts(value: object, default: list[str], count_max: int) -> list[str]:
    """Return the non-empty texts of a list, each at most 200 characters; the default when there are none."""
    found = [item.strip()[:200] for item in members(value)[:count_max] if isinstance(item, str) and item.strip()]
    return found or default


def members(value: object) -> list[Any]:
    """Return the value if it is a list, else []."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def mapping(value: object) -> dict[str, Any]:
    """Return the value if it is a JSON object, else {}."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def discovered(
    said: dict[str, Any],
    *,
    fallback_name: str,
    target: dict[str, Any],
    capabilities: Capabilities,
    extra: dict[str, Any] | None = None,
) -> Discovered:
    """Build ``Discovered`` from a card or description: names fitted, texts cut, a skill made up when there is none."""
    name = fit_name(said.get("name"), fallback_name)
    description = words(said.get("description"), f"The agent {name}.")
    skills = [_skill(mapping(s), n, name, description) for n, s in enumerate(members(said.get("skills"))[:SKILLS_MAX])]
    by_id = {s["id"]: s for s in skills} or {name: _skill({}, 0, name, description)}
    return Discovered(
        name=name,
        description=description,
        version=words(said.get("version"), "1.0.0", 64),
        skills=list(by_id.values()),
        input_modes=texts(said.get("defaultInputModes"), ["text/plain", "application/json"], MODES_MAX),
        output_modes=texts(said.get("defaultOutputModes"), ["text/plain", "application/json"], MODES_MAX),
        target=target,
        capabilities=capabilities,
        extra=dict(extra or {}),
    )


def _skill(said: dict[str, Any], index: int, agent: str, description: str) -> dict[str, Any]:
    skill_id = words(said.get("id") or said.get("name"), agent if index == 0 else f"{agent}-{index + 1}", NAME_MAX)
    skill: dict[str, Any] = {
        "id": skill_id,
        "name": words(said.get("name"), skill_id, 200),
        "description": words(said.get("description"), description),
        "tags": texts(said.get("tags"), ["agent"], TAGS_MAX),
    }
    if examples := texts(said.get("examples"), [], TAGS_MAX):
        skill["examples"] = examples
    return skill
