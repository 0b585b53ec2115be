"""What a browser may do with the console's cookie: the rules against pages that are not ours (docs/spec/console.md §3).

A browser sends cookies along whoever made it ask, and to every port of the host. So the cookie counts only below
``/api/v1/``, only for requests that come from the page of this very origin, and (but for the stream of ticks, where a browser
can add no header) only together with the page secret. A request with an ``Authorization`` header never comes here.
"""

from __future__ import annotations

from collections.abc import Iterable

from agentmesh.api.console.sessions import Sessions
from agentmesh.api.scopes import Rights
from agentmesh.errors import Unauthorized

#: Below this the cookie counts.
API_PREFIX = "/api/v1/"
STREAM_PATH = "/api/v1/console/stream"
PAGE_HEADER = b"x-agentmesh-page"
SAFE = frozenset(("GET", "HEAD"))
#: Longest Cookie header that is read, bytes; other programs of this host have theirs in it.
_COOKIE_BYTES_MAX = 64 * 1024


def rights_by_cookie(
    sessions: Sessions, name: str, method: str, path: str, host: bytes, headers: Iterable[tuple[bytes, bytes]]
) -> Rights | None:
    """Return what the cookie of a request opens; None if the request carries none of that name.

    Args:
        sessions: Who is logged in.
        name: Of the cookie.
        method, path: Of the request; the path is below ``API_PREFIX``.
        host: Its Host header, checked already.
        headers: All of its headers, names in small letters.

    Raises:
        Unauthorized: it comes from another page ("refused.origin"), nobody is logged in so ("console.session"), or not in
            this page ("console.page").
        StoreError, ConfigError: sessions cannot be read.
    """
    cookies: list[str] = []
    origins: list[bytes] = []
    sites: list[bytes] = []
    pages: list[bytes] = []
    for header, value in headers:
        if header == b"cookie":
            cookies += values_of(name, value)
        elif header == b"origin":
            origins.append(value)
        elif header == b"sec-fetch-site":
            sites.append(value)
        elif header == PAGE_HEADER:
            pages.append(value)
    if not cookies:
        return None
    _refuse_others(method, host, origins, sites)
    if len(pages) > 1:
        pages = [b""]
    page = pages[0].decode("latin-1") if pages else ""
    return sessions.rights_of(cookies, None if path == STREAM_PATH and method == "GET" else page)


def values_of(name: str, header: bytes) -> list[str]:
    """Return the values of every cookie of a name in a Cookie header (RFC 6265 §4.2.1), in order."""
    if len(header) > _COOKIE_BYTES_MAX:
        return []
    found: list[str] = []
    for pair in header.decode("latin-1").split(";"):
        given, _, value = pair.partition("=")
        if given.strip() == name:
            found.append(value.strip())
    return found


def _refuse_others(method: str, host: bytes, origins: list[bytes], sites: list[bytes]) -> None:
    """Raise Unauthorized unless a request comes from the page of this origin.

    Another port of loopback is another program, and "same-site" to a browser: both must be equal to the letter.
    """
    is_own = bool(origins) and all(one.lower() == b"http://" + host.lower() for one in origins)
    if origins and not is_own:
        raise _refused("the Origin header names another page")
    if any(one not in (b"same-origin", b"none") for one in sites):
        raise _refused("the browser says that another page asks")
    if method not in SAFE and not is_own and b"same-origin" not in sites:
        raise _refused("nothing says that the console's own page asks")


def _refused(why: str) -> Unauthorized:
    return Unauthorized("requests from this web page are not allowed", code="refused.origin", why=why)
