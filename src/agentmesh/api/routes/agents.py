"""Routes of the directory: find, register and withdraw agents."""

from __future__ import annotations

from urllib.parse import quote

from agentmesh.api.backend import View
from agentmesh.api.table import Ask, Param, RouteRow
from agentmesh.errors import (
    AgentFailed,
    AgentNotFound,
    Full,
    LimitError,
    NoRoute,
    ReadOnly,
    SignatureError,
    StateError,
    Timeout,
    Unauthorized,
    UsageError,
)
from agentmesh.sdk.types import (
    AgentDetail,
    AgentList,
    AgentView,
    DiscoverRequest,
    Registered,
    RegisterRequest,
    Renewed,
    Scope,
)

_LISTED_MAX = 1_000
_NEAR_MAX = 100


async def list_agents(ask: Ask) -> AgentList:
    """Answer ``GET /api/v1/agents``: a list by name, or with a query what ``POST /api/v1/discover`` finds."""
    backend, query, name, unhealthy = ask.backend, ask.query["query"], ask.query["name"], ask.query["unhealthy"]
    if name:
        await backend.look_for(name)
    if not query.strip():
        return AgentList(agents=backend.agents(name, unhealthy))
    found = await _matching(backend, query, unhealthy, "local")
    if not found:
        found = await _matching(backend, query, unhealthy, "mesh")
    if name:
        wanted = {agent.agent_id for agent in backend.agents(name)}
        found = [agent for agent in found if agent.agent_id in wanted]
    return AgentList(agents=found)


async def _matching(backend: View, query: str, unhealthy: bool, scope: Scope) -> list[AgentView]:
    """Return the agents that meet a need, best first; those that cannot be called now come last, if they are wanted."""
    near = _NEAR_MAX if unhealthy else 0
    found = await backend.discover(DiscoverRequest(query=query, limit=_LISTED_MAX, near=near, scope=scope))
    ill = [miss.agent for miss in found.near if miss.missed == ["health"]]
    return [*(hit.agent for hit in found.hits), *ill]


async def show_agent(ask: Ask) -> AgentDetail:
    """Answer ``GET /api/v1/agents/{ref}``."""
    await ask.backend.look_for(ask.path["ref"])
    detail = ask.backend.agent(ask.path["ref"])
    if not detail.a2a_url:
        detail.a2a_url = f"http://127.0.0.1:{ask.site.port_of()}/a2a/{quote(detail.agent.name, safe='')}/"
    return detail


async def register_agent(ask: Ask) -> Registered:
    """Answer ``POST /api/v1/agents``."""
    request: RegisterRequest = ask.body
    if not request.url.startswith(("http://", "https://", "mailbox:")) or len(request.url) > 2000:
        raise UsageError(
            "'url' is where the agent answers, http:// or https://, or mailbox:NAME for one that only reads messages",
            code="register.url",
            hint="agentmesh register http://127.0.0.1:9000",
        )
    return Registered(agents=await ask.backend.register(request))


async def deregister_agent(ask: Ask) -> AgentView:
    """Answer ``DELETE /api/v1/agents/{ref}``."""
    return await ask.backend.deregister(ask.path["ref"])


async def renew_agent(ask: Ask) -> Renewed:
    """Answer ``POST /api/v1/agents/{agent_id}/renew``."""
    agent_id = ask.path["agent_id"]
    if not await ask.backend.renew(agent_id):
        raise AgentNotFound("this agent is not registered here", code="not_found.lease", hint="register it again")
    return Renewed(agent_id=agent_id, renewed=True)


_REF = {"ref": "Agent name, name@node, or agent id."}

ROWS = (
    RouteRow(
        "GET",
        "/api/v1/agents",
        list_agents,
        "List the agents of the mesh, or those that match",
        AgentList,
        params=(
            Param(
                "query", "string", "", "What is needed, in words; best match first. POST /api/v1/discover says more."
            ),
            Param("name", "string", "", "Exact name; lists every replica.", chars_max=100),
            Param("unhealthy", "boolean", True, "Also list agents that are not offered for calls."),
        ),
        scope="read",
    ),
    RouteRow(
        "POST",
        "/api/v1/agents",
        register_agent,
        "Register the agents behind a URL",
        Registered,
        RegisterRequest,
        (
            UsageError,
            Unauthorized,
            SignatureError,
            NoRoute,
            Timeout,
            AgentFailed,
            LimitError,
            StateError,
            ReadOnly,
            Full,
        ),
        scope="register",
    ),
    RouteRow(
        "GET",
        "/api/v1/agents/{ref}",
        show_agent,
        "Show one agent with its signed manifest and its replicas",
        AgentDetail,
        errors=(AgentNotFound,),
        path_params=_REF,
        scope="read",
    ),
    RouteRow(
        "DELETE",
        "/api/v1/agents/{ref}",
        deregister_agent,
        "Withdraw an agent that is registered here",
        AgentView,
        errors=(AgentNotFound, Full),
        path_params=_REF,
        scope="register",
    ),
    RouteRow(
        "POST",
        "/api/v1/agents/{agent_id}/renew",
        renew_agent,
        "Keep an ephemeral agent alive; 404 means: register again",
        Renewed,
        errors=(AgentNotFound,),
        path_params={"agent_id": "did:key of the agent."},
        scope="register",
    ),
)
