"""The API describes itself, and the description is the routes."""

from __future__ import annotations

import json
import re

from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from starlette.routing import Route

from agentmesh.api import openapi
from agentmesh.api.routes import ROWS
from agentmesh.errors import ERROR_TABLE
from tests.api.node_double import FakeBackend
from tests.api.serving import ask_app, build


def document() -> dict[str, object]:
    return json.loads(openapi.build(ROWS))


def test_the_description_is_valid_openapi_3_1() -> None:
    validate(document(), cls=OpenAPIV31SpecValidator)


def test_description_and_routes_list_the_same_operations() -> None:
    described = {(m.upper(), path) for path, item in document()["paths"].items() for m in item}
    inner = build(FakeBackend())._inner
    routed = {(m, r.path) for r in inner.routes if isinstance(r, Route) for m in r.methods - {"HEAD"}}
    assert described == routed == {(row.method, row.path) for row in ROWS}


def test_every_operation_has_a_name_of_its_own_a_summary_and_its_path_parameters() -> None:
    names: set[str] = set()
    for row in ROWS:
        operation = document()["paths"][row.path][row.method.lower()]
        assert row.summary
        assert row.handler.__doc__
        names.add(operation["operationId"])
        in_path = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", row.path))
    assert len(names) == len(ROWS)


def test_only_health_and_the_description_itself_are_public() -> None:
    public = {path for path, item in document()["paths"].items() for op in item.values() if op.get("security") == []}
    assert public == {"/health", "/openapi.json"}


def test_every_error_of_the_table_is_a_known_problem_type() -> None:
    types = document()["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]
    assert {f"/problems/{row.wire}" for row in ERROR_TABLE.values()} < set(types)


async def test_the_description_is_built_on_first_use_and_only_once(monkeypatch) -> None:
    built: list[int] = []
    real = openapi.build
    monkeypatch.setattr(openapi, "build", lambda rows: built.append(1) or real(rows))
    app = build(FakeBackend())
    assert built == []
    first = await ask_app(app, "GET", "/openapi.json", headers=[(b"host", b"localhost")])
    again = await ask_app(app, "GET", "/openapi.json", headers=[(b"host", b"localhost")])
    assert first.body == again.body
    assert built == [1]
