"""The OpenAPI 3.1 description, generated from the route table and the msgspec types; built on first request."""

from __future__ import annotations

import inspect
from http import HTTPStatus
from typing import Any

import msgspec

from agentmesh import __version__
from agentmesh.api.scopes import SCOPES
from agentmesh.api.table import Param, RouteRow
from agentmesh.errors import (
    ERROR_TABLE,
    PROBLEM_PREFIX,
    DecodeError,
    LimitError,
    MeshError,
    Timeout,
    Unauthorized,
    UsageError,
)
from agentmesh.sdk.types import Problem
from agentmesh.wire.event import EventV1

_REF = "#/components/schemas/{name}"


#: What the data of the events of a stream is.
_FRAMES = {
    "always": "The data of each event is an EventV1.",
    "asked": "The data of each event is an EventV1, of the last one a Reply or a Problem.",
    "accepted": "The data of each event is the whole answer as it is then; of the last one it may be a Problem.",
}


def build(rows: tuple[RouteRow, ...]) -> bytes:
    """Return the description as JSON."""
    types: list[Any] = [Problem, EventV1]
    for row in rows:
        types.extend(t for t in (row.request, row.response) if t is not None and t not in types)
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    for schema in components.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    components["Problem"]["properties"]["type"]["enum"] = sorted(
        [PROBLEM_PREFIX + row.wire for row in ERROR_TABLE.values()] + [PROBLEM_PREFIX + "error"]
    )
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "AgentMesh node",
            "version": __version__,
            "description": "The local HTTP API of one AgentMesh node. It listens on loopback only.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The content of api.token in the home directory, or an API key (agentmesh keys add).",
                }
            },
        },
    }
    return msgspec.json.encode(document)


def _operation(row: RouteRow) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": row.operation_id,
        "summary": row.summary,
        "responses": {"200": _success(row), **_failures(row)},
    }
    needs = f"Needs the scope {row.scope}: {SCOPES[row.scope]}." if row.scope else "Public."
    operation["description"] = f"{row.description}\n\n{needs}" if row.description else needs
    parameters = [_path_parameter(name, summary) for name, summary in row.path_params.items()]
    parameters.extend(_query_parameter(param) for param in row.params)
    if row.stream == "always":
        parameters.append(
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "seq of the last event received; the stream goes on after it.",
                "schema": {"type": "integer", "minimum": 0},
            }
        )
    if parameters:
        operation["parameters"] = parameters
    if row.request is not None:
        operation["requestBody"] = {
            "required": True,
            "description": f"At most {row.body_bytes_max} bytes.",
            "content": {"application/json": {"schema": _ref(row.request)}},
        }
    operation["security"] = [{"token": [row.scope]}] if row.scope else []
    return operation


def _success(row: RouteRow) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if row.response is not None:
        content["application/json"] = {"schema": _ref(row.response)}
    elif row.download:
        content[row.download] = {"schema": {"type": "string", "contentMediaType": row.download}}
    elif not row.stream:
        content["application/json"] = {"schema": {"type": "object"}}
    if row.stream:
        content["text/event-stream"] = {
            "schema": {
                "type": "string",
                "contentMediaType": "text/event-stream",
                "description": _FRAMES[row.stream],
            }
        }
    return {"description": "OK", "content": content}


def _failures(row: RouteRow) -> dict[str, Any]:
    errors: list[type[MeshError]] = list(row.errors)
    if row.request is not None:
        errors += [DecodeError, UsageError, LimitError, Timeout]
    if row.params or row.path_params:
        errors.append(UsageError)
    if row.scope:
        errors.append(Unauthorized)
    by_status: dict[int, set[str]] = {403: {"unauthorized"}, 500: {"error"}}
    for error in errors:
        by_status.setdefault(ERROR_TABLE[error].http, set()).add(ERROR_TABLE[error].wire)
    return {
        str(status): {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(sorted(names))}",
            "content": {"application/problem+json": {"schema": _ref(Problem)}},
        }
        for status, names in sorted(by_status.items())
    }


def _path_parameter(name: str, summary: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": summary, "schema": {"type": "string"}}


def _query_parameter(param: Param) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": param.type}
    if param.default is not None:
        schema["default"] = param.default
    if param.type == "integer":
        schema |= {"minimum": param.low, "maximum": param.high}
    elif param.type == "string":
        schema["maxLength"] = param.chars_max
    return {"name": param.name, "in": "query", "description": param.summary, "schema": schema}


def _ref(type_: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=type_.__name__)}
