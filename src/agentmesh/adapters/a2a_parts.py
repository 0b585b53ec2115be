"""A2A messages in both spellings: 1.0 (``{"text": …}``, ``ROLE_USER``) and 0.3 (``{"kind": "text", …}``, ``user``).

Pure functions over decoded JSON. What cannot be read is dropped, never guessed at.
"""

from __future__ import annotations

from typing import Any

from agentmesh.adapters.shape import mapping, members
from agentmesh.wire.event import TaskState

PARTS_MAX = 10_000

#: Task states of both versions → ours. ``auth-required`` is an input that somebody has to give; ``unknown`` is not an end.
STATES: dict[str, TaskState] = {
    "submitted": "submitted",
    "working": "working",
    "input-required": "input-required",
    "auth-required": "input-required",
    "completed": "completed",
    "failed": "failed",
    "canceled": "canceled",
    "cancelled": "canceled",
    "rejected": "rejected",
}


def state_of(said: object) -> tuple[TaskState, str]:
    """Return (our state, state as the agent spells it in lower case); unknown ones count as working."""
    text = str(said or "").removeprefix("TASK_STATE_").replace("_", "-").lower()[:40]
    return STATES.get(text, "working"), text


def is_agent(role: object) -> bool:
    """Say whether a message is the agent's; one without a role is."""
    return str(role or "agent").removeprefix("ROLE_").lower() != "user"


def read_parts(said: object) -> list[dict[str, Any]]:
    """Return parts of either version as 1.0 parts."""
    return [part for item in members(said)[:PARTS_MAX] if (part := _read_part(mapping(item)))]


def _read_part(part: dict[str, Any]) -> dict[str, Any]:
    # 0.3 before its last revision said "type" for "kind", and some 1.0 servers nest the content by its name.
    if isinstance(part.get("text"), str):
        return {"text": part["text"]}
    if "data" in part:
        return {"data": part["data"]}
    file = mapping(part.get("file")) or part
    read: dict[str, Any] = {}
    if isinstance(url := file.get("url") or file.get("uri") or file.get("fileWithUri"), str):
        read["url"] = url
    elif isinstance(raw := file.get("raw") or file.get("bytes") or file.get("fileWithBytes"), str):
        read["raw"] = raw
    else:
        return {}
    if isinstance(media := file.get("mediaType") or file.get("mimeType"), str):
        read["mediaType"] = media
    if isinstance(name := file.get("filename") or file.get("name"), str):
        read["filename"] = name
    return read


def write_parts(parts: list[dict[str, Any]], version: str) -> list[dict[str, Any]]:
    """Return 1.0 parts in the spelling of a version ("1.0" or "0.3")."""
    if version != "0.3":
        return parts
    return [_write_part_03(part) for part in parts]


def _write_part_03(part: dict[str, Any]) -> dict[str, Any]:
    if "text" in part:
        return {"kind": "text", "text": part["text"]}
    if "data" in part:
        data = part["data"]
        # 0.3 allows objects only.
        return {"kind": "data", "data": data if isinstance(data, dict) else {"value": data}}
    file: dict[str, Any] = {"uri": part["url"]} if "url" in part else {"bytes": part.get("raw", "")}
    if "mediaType" in part:
        file["mimeType"] = part["mediaType"]
    if "filename" in part:
        file["name"] = part["filename"]
    return {"kind": "file", "file": file}


def message_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return the message in a send result or stream event; {} if it holds none."""
    return mapping(result.get("message")) if result.get("kind") is None else _if_kind(result, "message")


def task_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return the task in a result; a bare task (``GetTask``) counts. {} if it holds none."""
    if result.get("kind") is None and "task" in result:
        return mapping(result["task"])
    if result.get("kind") == "task" or (result.get("kind") is None and "id" in result and "status" in result):
        return result
    return {}


def status_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return the status update in a stream event; {} if it holds none."""
    return mapping(result.get("statusUpdate")) if result.get("kind") is None else _if_kind(result, "status-update")


def artifact_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return the artifact update in a stream event; {} if it holds none."""
    return mapping(result.get("artifactUpdate")) if result.get("kind") is None else _if_kind(result, "artifact-update")


def _if_kind(result: dict[str, Any], kind: str) -> dict[str, Any]:
    return result if result.get("kind") == kind else {}
