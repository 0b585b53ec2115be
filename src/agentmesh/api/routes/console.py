"""Routes of the console: the link that opens it, logging out, and its live stream."""

from __future__ import annotations

import asyncio

from agentmesh.api.console.names import cookie_name
from agentmesh.api.scopes import SESSION_PREFIX
from agentmesh.api.table import Ask, EventStream, Param, RouteRow
from agentmesh.errors import Busy, ConfigError, Full, MeshError, Unauthorized
from agentmesh.wire.console_views import LoginLink, SessionsEnded


async def console_login(ask: Ask) -> LoginLink:
    """Answer ``POST /api/v1/console/login``."""
    from agentmesh.api.console.owner import owner_of
    from agentmesh.api.console.sessions import CODE_S
    from agentmesh.api.console.site import LOGIN_PATH

    if ask.site.access.sessions is None:
        raise ConfigError("this daemon has no console", code="console.none")
    user: int | None = None
    if ask.query["same_user"]:
        user = await asyncio.to_thread(owner_of, ask.client, ask.server)
    code = ask.site.access.sessions.code(user)
    return LoginLink(url=f"http://127.0.0.1:{ask.site.port_of()}{LOGIN_PATH}?code={code}", expires_s=CODE_S)


async def console_logout(ask: Ask) -> SessionsEnded:
    """Answer ``POST /api/v1/console/logout``."""
    if not ask.rights.key.startswith(SESSION_PREFIX):
        return SessionsEnded(ended=0)
    return await _leave(ask, ask.rights.key)


async def end_console_sessions(ask: Ask) -> SessionsEnded:
    """Answer ``DELETE /api/v1/console/sessions``."""
    return await _leave(ask, "")


async def follow_console(ask: Ask) -> EventStream:
    """Answer ``GET /api/v1/console/stream``."""
    if ask.rights.tenant:
        raise Unauthorized(
            "the console's stream is the operator's",
            code="refused.tenant",
            why="it tells of every run at this node",
            hint="GET /api/v1/events/stream   follows the events of the tenant's own tasks",
        )
    ticker = ask.site.ticker()
    ticker.check_room()
    frames = ticker.frames(ask.query["after"] if ask.last_event_id is None else ask.last_event_id)
    return EventStream(frames, frames.aclose)


async def _leave(ask: Ask, key: str) -> SessionsEnded:
    """End one session, or all; what goes on in the name of the one that asks ends after the answer."""
    sessions, own = ask.site.access.sessions, ask.rights.key
    if sessions is None:
        return SessionsEnded(ended=0)
    ended = sessions.leave(key)
    for one in ended:
        if one != own:
            sessions.on_end(one)
    if own in ended:
        ask.headers["set-cookie"] = f"{cookie_name(ask.site.port_of())}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0"
        ask.afterwards = lambda: sessions.on_end(own)
    try:
        await ask.site.node.note_change("session", key or "all", event="logout", by=ask.rights.who, ended=len(ended))
    except MeshError:
        sessions.on_end(own)  # to log out is never put off
        raise
    return SessionsEnded(ended=len(ended))


ROWS = (
    RouteRow(
        "POST",
        "/api/v1/console/login",
        console_login,
        "Make a link that opens the console logged in, once",
        LoginLink,
        errors=(ConfigError,),
        params=(
            Param(
                "same_user",
                "boolean",
                False,
                "Good only for programs of the user that asks, where the system tells (Linux).",
            ),
        ),
        description="The session that it begins may all that the operator may, and outlives the key that asked for it.",
    ),
    RouteRow(
        "POST",
        "/api/v1/console/logout",
        console_logout,
        "End the session of the console that asks; others end nothing",
        SessionsEnded,
        errors=(Full,),
        scope="read",
    ),
    RouteRow(
        "DELETE",
        "/api/v1/console/sessions",
        end_console_sessions,
        "End every session of the console, and the links that are still open",
        SessionsEnded,
        errors=(Full,),
    ),
    RouteRow(
        "GET",
        "/api/v1/console/stream",
        follow_console,
        "Hear what there is to look at again, live, at most ten times a second",
        None,
        errors=(Busy, Unauthorized),
        params=(
            Param("after", "integer", None, "seq of the last tick taken; Last-Event-ID, when sent, goes before it."),
        ),
        stream="always",
        description=(
            "Server-sent events: event = tick, id = seq, data = Tick. The first comes at once. Whoever reads slowly gets "
            "fewer and wider ones. A comment every 15 s shows that the stream lives."
        ),
        scope="events",
    ),
)
