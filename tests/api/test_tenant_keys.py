"""Keys of tenants at the HTTP API and the A2A door: each reaches its tenant's view of the node and nothing around it."""

from __future__ import annotations

from typing import Any

import pytest

from agentmesh.api.a2a import A2AEdge
from agentmesh.api.access import Access
from agentmesh.api.app import Api
from agentmesh.api.limited import view_of
from agentmesh.api.routes import ROWS
from agentmesh.api.scopes import ANONYMOUS
from agentmesh.errors import AgentNotFound, RunNotFound
from agentmesh.sdk.types import CallRequest, KeyRequest
from tests.api.node_double import AGENT, FakeBackend, event
from tests.api.serving import TOKEN, Answer, Shelf, ask_app, build
from tests.api.test_routes import GOOD

HOST = (b"host", b"localhost")


class House:
    """A node with the tenant acme and a key of its for everything that a tenant may have."""

    def __init__(self, **options: Any) -> None:
        self.node, self.acme, self.access = FakeBackend(), FakeBackend(), Access(TOKEN, Shelf())
        self.node.tenants["acme"] = self.acme
        request = KeyRequest(name="k", scopes=["read", "call", "register", "events", "message", "state"], tenant="acme")
        self.secret = self.access.add_key(request).secret
        self.app: Api = build(self.node, access=self.access, **options)

    async def ask(self, method: str, target: str, body: bytes = b"", *, token: str = "", **headers: str) -> Answer:
        path, _, query = target.partition("?")
        sent = [HOST, (b"authorization", f"Bearer {token or self.secret}".encode())]
        sent += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        return await ask_app(self.app, method, path, body, query=query.encode(), headers=sent)


#: What belongs to the mesh in the node's name, and what of it a tenant does with its own agents.
SHARED = tuple(
    f"/api/v1/{name}" for name in ("messages", "inbox", "groups", "topics", "cloudevents", "presence", "state", "locks")
)
OWN = {
    ("POST", "/api/v1/messages"): ("/api/v1/messages", b'{"to":"echo","text":"hi","sender":"echo"}'),
    ("GET", "/api/v1/inbox/{agent}"): ("/api/v1/inbox/echo", None),
    ("POST", "/api/v1/inbox/{agent}/ack"): ("/api/v1/inbox/echo/ack", b'{"message_ids":["x"]}'),
}


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.scope and r.stream != "always"], ids=lambda r: f"{r.method} {r.path}"
)
async def test_every_route_serves_a_tenants_key_from_its_own_view_or_not_at_all(row: Any) -> None:
    house = House()
    await house.acme.append(event(1))
    house.acme.known["nine"] = house.acme.known["echo"]
    await house.acme.call(CallRequest(to="echo", text="x", task_id="t" * 32))
    house.node.owners[AGENT] = "acme"
    house.node.mail.known.add(AGENT)
    target, body = OWN.get((row.method, row.path)) or GOOD[row.method, row.path]
    answer = await house.ask(row.method, target, body or b"")
    if row.scope == "admin":
        assert answer.problem().code == "refused.scope"
    elif row.path.startswith(SHARED) and (row.method, row.path) not in OWN:
        assert (answer.problem().status, answer.problem().code) == (403, "refused.tenant")
    else:
        assert answer.status == 200, answer
    assert [asked for asked in house.node.asked if asked[0] != "for_tenant"] == []


async def test_a_tenant_sends_and_reads_as_its_own_agents_only() -> None:
    house = House()
    house.node.mail.known.add(AGENT)
    for method, target, body, code in (
        ("POST", "/api/v1/messages", b'{"to":"echo","text":"x"}', "mail.sender"),
        ("POST", "/api/v1/messages", b'{"to":"*","text":"x","sender":"echo"}', "refused.tenant"),
        ("POST", "/api/v1/messages", b'{"to":"group:team","text":"x","sender":"echo"}', "refused.tenant"),
        ("POST", "/api/v1/messages", b'{"to":"echo","text":"x","sender":"echo"}', "not_found.agent"),
        ("GET", "/api/v1/inbox/echo", b"", "not_found.agent"),
        ("GET", "/api/v1/inbox/-", b"", "mail.sender"),
    ):
        # "echo" is the operator's, who only shares it.
        assert (await house.ask(method, target, body)).problem().code == code
    house.node.owners[AGENT] = "acme"
    body = b'{"to":"nobody","text":"x","sender":"echo"}'
    assert (await house.ask("POST", "/api/v1/messages", body)).problem().code == "not_found.agent"
    assert house.node.mail.requests == []
    body = b'{"to":"echo","text":"x","sender":"echo"}'
    assert (await house.ask("POST", "/api/v1/messages", body)).status == 200
    assert [(one.sender, one.to) for one in house.node.mail.requests] == [(AGENT, AGENT)]


async def test_a_key_of_a_tenant_that_is_gone_opens_nothing() -> None:
    house = House()
    del house.node.tenants["acme"]
    problem = (await house.ask("GET", "/api/v1/status")).problem()
    assert (problem.status, problem.code) == (403, "refused.tenant")


async def test_removing_a_tenant_revokes_its_keys_and_no_others() -> None:
    house = House()
    other = house.access.add_key(KeyRequest(name="other", scopes=["read"])).secret
    assert (await house.ask("DELETE", "/api/v1/tenants/acme", token=TOKEN)).status == 200
    assert (await house.ask("GET", "/api/v1/status")).problem().code == "refused.key"
    assert (await house.ask("GET", "/api/v1/status", token=other)).status == 200


async def test_a_key_is_made_for_a_tenant_that_exists_and_never_as_admin() -> None:
    house = House()
    for body, code in (
        (b'{"name":"x","scopes":["read"],"tenant":"nobody"}', "refused.tenant"),
        (b'{"name":"x","scopes":["admin"],"tenant":"acme"}', "keys.scope"),
    ):
        assert (await house.ask("POST", "/api/v1/keys", body, token=TOKEN)).problem().code == code
    assert [key.name for key in house.access.every_key()] == ["k"]


async def test_the_operator_acts_as_a_tenant_by_header_and_nobody_else_does() -> None:
    house = House()
    house.acme.known.clear()
    reader = house.access.add_key(KeyRequest(name="reader", scopes=["read"])).secret
    admin = house.access.add_key(KeyRequest(name="admin", scopes=["admin"])).secret
    for token in (TOKEN, admin):
        assert (await house.ask("GET", "/api/v1/agents", token=token)).json()["agents"] != []
        assert (await house.ask("GET", "/api/v1/agents", token=token, x_agentmesh_tenant="acme")).json()["agents"] == []
    house.node.tenants["other"] = FakeBackend()
    for token, name, code in (
        (reader, "acme", "refused.scope"),
        ("", "other", "refused.scope"),
        (TOKEN, "", "refused.tenant"),
        (TOKEN, "nobody", "refused.tenant"),
    ):
        answer = await house.ask("GET", "/api/v1/agents", token=token, x_agentmesh_tenant=name)
        assert (answer.status, answer.problem().code) == (403, code)
    twice = [HOST, (b"authorization", f"Bearer {TOKEN}".encode()), *[(b"x-agentmesh-tenant", b"acme")] * 2]
    assert (await ask_app(house.app, "GET", "/api/v1/agents", headers=twice)).problem().code == "refused.tenant"
    assert (await house.ask("GET", "/api/v1/agents", x_agentmesh_tenant="acme")).status == 200
    for path in ("/health", "/a2a/echo/"):
        anonymous = [HOST, (b"x-agentmesh-tenant", b"acme")]
        assert (await ask_app(house.app, "GET", path, headers=anonymous)).problem().code == "refused.scope"


async def test_the_a2a_door_shows_a_tenant_its_own_agents_and_others_none_of_them() -> None:
    node = FakeBackend()
    edge = A2AEdge(node, port_of=lambda: 1)
    house = House(extra_routes=edge.routes())
    edge._backend = house.node
    house.acme.known["mine"] = house.acme.known.pop("echo")
    card = "/a2a/{}/.well-known/agent-card.json"
    assert (await house.ask("GET", card.format("mine"))).json()["name"] == "mine"
    assert (await house.ask("GET", card.format("echo"))).status == 404
    for token in (TOKEN, None):
        headers = [HOST] if token is None else [HOST, (b"authorization", f"Bearer {token}".encode())]
        assert (await ask_app(house.app, "GET", card.format("mine"), headers=headers)).status == 404
        assert (await ask_app(house.app, "GET", card.format("echo"), headers=headers)).status == 200
    message = b'{"messageId":"1","role":"ROLE_USER","parts":[{"text":"x"}]}'
    send = b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":' + message + b"}}"
    reader = house.access.add_key(KeyRequest(name="reader", scopes=["read"], tenant="acme")).secret
    assert (await house.ask("POST", "/a2a/mine/", send, token=reader)).status == 403
    await edge.aclose()


async def test_whoever_has_no_key_touches_nothing_of_a_tenant() -> None:
    node = FakeBackend()
    await node.append(event(1))
    node.owners.update({"t" * 32: "acme", AGENT: "acme"})
    view = view_of(node, ANONYMOUS)
    assert await view.task_events("t" * 32) == []
    with pytest.raises(RunNotFound):
        await view.cancel("t" * 32)
    with pytest.raises(RunNotFound):
        await view.call(CallRequest(to="echo", text="x", task_id="t" * 32))
    with pytest.raises(AgentNotFound):
        await view.call(CallRequest(to="echo", text="x", from_agent=AGENT))
    assert node.calls == []
