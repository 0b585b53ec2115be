"""The console's part of the site, outside ``/api/``: its files, and the door through which one logs in (ASGI).

Everything here is public, since it tells nothing: the files are those of every installation, and a link needs its code.
What the console shows comes from the API and needs a session (``api.console.judge``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from agentmesh.api.backend import Backend
from agentmesh.api.console import pages
from agentmesh.api.console.files import File, Files
from agentmesh.api.console.judge import values_of
from agentmesh.api.console.names import cookie_name
from agentmesh.api.console.owner import owner_of
from agentmesh.api.console.sessions import LIFE_S, Sessions
from agentmesh.errors import MeshError, Unauthorized

_log = logging.getLogger("agentmesh.api")

LOGIN_PATH = "/console/login"
#: What the pages written here load: path → type, content.
_PARTS = {
    "/console/enter.js": ("text/javascript; charset=utf-8", pages.ENTER_JS),
    "/console/page.css": ("text/css; charset=utf-8", pages.PAGE_CSS),
}
_HTML = "text/html; charset=utf-8"
_QUERY_BYTES_MAX = 512
_NO_STORE = (b"cache-control", b"no-store")


class ConsoleSite:
    """Serve the console's files and its login (ASGI).

    Args:
        node: Where logins are written down.
        sessions: Who is logged in.
        port_of: Returns the port in use; the cookie's name has it.
        folder: Where the built files are; the package's by default.
    """

    def __init__(
        self, node: Backend, sessions: Sessions, port_of: Callable[[], int], folder: Path | None = None
    ) -> None:
        self._node, self._sessions, self._port_of = node, sessions, port_of
        self._files = Files(folder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        path: str = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            await self._page(scope, send, 405, pages.missing_page(), [(b"allow", b"GET, HEAD")])
        elif path == LOGIN_PATH:
            await self._login(scope, send)
        elif path in _PARTS:
            await self._answer(scope, send, 200, *_PARTS[path], [_NO_STORE])
        elif path == "/console" or path.startswith("/console/"):
            # One address for the console; browsers carry the fragment, which names the page, over a redirect.
            await self._answer(scope, send, 303, _HTML, b"", [_NO_STORE, (b"location", b"/")])
        elif path == "/":
            await self._index(scope, send)
        else:
            await self._file(scope, send, path)

    async def _index(self, scope: Scope, send: Send) -> None:
        if self._is_stranger(scope):
            await self._page(scope, send, 401, pages.login_page())
            return
        found = await asyncio.to_thread(self._files.read, "/index.html")
        if found is None:
            await self._page(scope, send, 503, pages.unbuilt_page())
        else:
            await self._send_file(scope, send, found)

    def _is_stranger(self, scope: Scope) -> bool:
        """Say whether nobody is logged in where a browser would have sent the cookie if it had one.

        After a link on another site it would not have; the page itself asks the API then, and its own requests carry it.
        """
        if _header(scope, b"sec-fetch-site") not in (b"none", b"same-origin"):
            return False
        name = cookie_name(self._port_of())
        cookies = [one for raw in _headers(scope, b"cookie") for one in values_of(name, raw)]
        if not cookies:
            return True
        try:
            self._sessions.rights_of(cookies, None)
        except Unauthorized:
            return True
        except MeshError:  # the API says what is wrong
            return False
        return False

    async def _file(self, scope: Scope, send: Send, path: str) -> None:
        found = await asyncio.to_thread(self._files.read, path)
        if found is None:
            await self._page(scope, send, 404, pages.missing_page())
        else:
            await self._send_file(scope, send, found)

    async def _send_file(self, scope: Scope, send: Send, file: File) -> None:
        keep = b"public, max-age=31536000, immutable" if file.is_immutable else b"no-cache"
        headers = [(b"cache-control", keep), (b"etag", file.etag.encode())]
        held = {tag.strip().removeprefix(b"W/") for tag in _header(scope, b"if-none-match").split(b",")}
        if file.etag.encode() in held:
            await self._answer(scope, send, 304, file.type, b"", headers)
        else:
            await self._answer(scope, send, 200, file.type, file.content, headers)

    async def _login(self, scope: Scope, send: Send) -> None:
        """Begin a session with the code of a link, and hand the page secret to the page (see ``pages.enter_page``)."""
        purpose = _header(scope, b"sec-purpose") + _header(scope, b"purpose")
        if (
            b"prefetch" in purpose
            or scope["method"] == "HEAD"
            or _header(scope, b"sec-fetch-dest", b"document") != b"document"
        ):
            # Whoever looks ahead, or puts us into a frame or image, must not use the link up.
            await self._page(scope, send, 403, pages.link_page())
            return
        code = _code_in(scope["query_string"])
        user = self._sessions.user_of(code)
        if user is not None:
            asks = await asyncio.to_thread(owner_of, scope.get("client"), scope.get("server"))
            if asks not in (user, None):
                # It is not used up: whoever read it from a command line must not lock out the one it was made for.
                _log.warning("a program of user %d tried a link to the console that was made for user %d", asks, user)
                await self._page(scope, send, 403, pages.link_page())
                return
        try:
            entered = self._sessions.enter(code)
        except Unauthorized:
            await self._page(scope, send, 403, pages.link_page())
            return
        except MeshError as error:
            _log.warning("a login to the console failed: %s", error)
            await self._page(scope, send, 503, pages.trouble_page(error.detail))
            return
        try:
            await self._node.note_change("session", entered.name, event="login", by="a one-time link")
        except MeshError as error:
            self._sessions.leave(entered.name)  # what is written down nowhere opens nothing
            await self._page(scope, send, 503, pages.trouble_page(error.detail))
            return
        cookie = f"{cookie_name(self._port_of())}={entered.cookie}; HttpOnly; SameSite=Strict; Path=/; Max-Age={LIFE_S}".encode()
        await self._page(scope, send, 200, pages.enter_page(entered.page), [(b"set-cookie", cookie)])

    async def _page(
        self, scope: Scope, send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        await self._answer(scope, send, status, _HTML, body, [_NO_STORE, *headers])

    async def _answer(
        self, scope: Scope, send: Send, status: int, type: str, body: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        given = [*headers, *pages.HEADERS]
        if status != 304:
            given += [(b"content-type", type.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": given})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _code_in(query: bytes) -> str:
    if len(query) > _QUERY_BYTES_MAX:
        return ""
    try:
        pairs = parse_qsl(query.decode("latin-1"), max_num_fields=4)
    except ValueError:
        return ""
    codes = [value for name, value in pairs if name == "code"]
    return codes[0] if len(codes) == 1 else ""


def _headers(scope: Scope, name: bytes) -> list[bytes]:
    return [value for given, value in scope["headers"] if given == name]


def _header(scope: Scope, name: bytes, default: bytes = b"") -> bytes:
    found = _headers(scope, name)
    return found[0] if found else default
