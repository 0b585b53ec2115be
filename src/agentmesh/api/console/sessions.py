"""Logging in to the console: links that open it once, and the sessions that they begin (docs/spec/console.md §3).

    agentmesh console ─► POST /api/v1/console/login ─► link with a code ─► GET /console/login ─► cookie and page secret

A session is opened by two things together. The cookie is out of reach of scripts, but browsers send it to every port of the
host, so a program of somebody else that listens on loopback may be handed it. The page secret lies in the storage of the
console's own origin, which the port belongs to, and is sent in a header. Only hashes of the three are kept.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from agentmesh.api.scopes import SCOPES, SESSION_PREFIX, Rights
from agentmesh.errors import MeshError, Unauthorized
from agentmesh.store.sessions import KeptSession

_log = logging.getLogger("agentmesh.api")

#: How long a link is good, seconds, and how many may be open.
CODE_S = 60
CODES_MAX = 16
#: A session ends when it was not used for so long, and after so long whatever happens, seconds.
IDLE_S = 12 * 3600
LIFE_S = 7 * 86_400
SESSIONS_MAX = 64
#: Cookies of our name that are looked at: another program on this host may add some.
COOKIES_MAX = 4
#: Use is written down at most so often, seconds.
_TOUCH_S = 600
_SECRET_CHARS_MAX = 64


class SessionShelf(Protocol):
    """Where sessions are kept (``store.sessions.SessionStore``)."""

    def all(self) -> list[KeptSession]:
        """Return every session, the one used longest ago first."""
        ...

    def put(self, session: KeptSession) -> None:
        """Keep a session durably. Raises StoreError."""
        ...

    def remove(self, hash: bytes) -> None:
        """Forget a session durably. Raises StoreError."""
        ...

    def clear(self) -> None:
        """Forget every session durably. Raises StoreError."""
        ...


class Entered(NamedTuple):
    """What begins a session in a browser: told once."""

    cookie: str
    page: str
    name: str


class _Code(NamedTuple):
    """What is kept of a code: until when it is good, and for programs of which user; None = of any."""

    until_s: float
    user: int | None


class _Session:
    """One session in memory."""

    __slots__ = ("kept", "rights", "used", "written")

    def __init__(self, kept: KeptSession) -> None:
        self.kept = kept
        self.used = self.written = kept.used
        self.rights = Rights(
            "the operator in the console",
            frozenset(SCOPES),
            key=f"{SESSION_PREFIX}{kept.hash.hex()[:12]}",
            until=kept.made + LIFE_S,
        )


class Sessions:
    """Codes and sessions of one node.

    Args:
        open_shelf: Opens where sessions are kept; called when it is first needed.
        now: The wall clock, Unix seconds.
        clock: A clock that only goes forward, seconds: codes run by it.

    ``on_end`` is told the ``Rights.key`` of a session that ended; ``is_busy`` says whether something goes on in its name, since
    a page that is open and silent is in use. ``Access`` sets both.
    """

    def __init__(
        self,
        open_shelf: Callable[[], SessionShelf],
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_shelf, self._now, self._clock = open_shelf, now, clock
        self._shelf: SessionShelf | None = None
        self._by_hash: dict[bytes, _Session] = {}
        self._codes: dict[bytes, _Code] = {}
        self.on_end: Callable[[str], None] = lambda key: None
        self.is_busy: Callable[[str], bool] = lambda key: False

    def code(self, user: int | None = None) -> str:
        """Make a code that begins one session within ``CODE_S``; of too many the oldest is forgotten.

        Args:
            user: User id of the only user whose programs may use it; None = any may.
        """
        now_s = self._clock()
        self._codes = {one: code for one, code in self._codes.items() if code.until_s > now_s}
        while len(self._codes) >= CODES_MAX:
            del self._codes[next(iter(self._codes))]
        code = secrets.token_hex(32)  # unlike other alphabets it never looks like an API key in an address
        self._codes[_hash(code)] = _Code(now_s + CODE_S, user)
        return code

    def user_of(self, code: str) -> int | None:
        """Return the user whose programs alone may use a code; None if any may, or if there is no such code."""
        kept = self._codes.get(_hash(code)) if len(code) <= _SECRET_CHARS_MAX else None
        return None if kept is None else kept.user

    def enter(self, code: str) -> Entered:
        """Begin a session with a code, which is used up by that.

        Raises:
            Unauthorized: it was used, its time is over, or it never was one (code "console.link"). No state changed.
            StoreError, ConfigError: the session could not be kept. The code is used up.
        """
        kept_code = self._codes.pop(_hash(code), None) if len(code) <= _SECRET_CHARS_MAX else None
        if kept_code is None or kept_code.until_s <= self._clock():
            raise Unauthorized(
                "this link does not open the console",
                code="console.link",
                why=f"a link is good once and for {CODE_S} s, and only at the daemon that made it",
                hint="agentmesh console",
            )
        shelf = self._loaded()
        cookie, page = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        now = int(self._now())
        kept = KeptSession(_hash(cookie), _hash(page), now, now)
        shelf.put(kept)
        session = _Session(kept)
        self._by_hash[kept.hash] = session
        self._make_room()
        return Entered(cookie, page, session.rights.key)

    def rights_of(self, cookies: list[str], page: str | None) -> Rights:
        """Return what a session opens.

        Args:
            cookies: Values of the cookies of our name, at most ``COOKIES_MAX`` of which are looked at.
            page: What the page sent beside them; None where none is asked for.

        Raises:
            Unauthorized: there is no such session (code "console.session"), or the page is none of it ("console.page").
            StoreError, ConfigError: sessions cannot be read.
        """
        self._loaded()
        session = None
        for cookie in cookies[:COOKIES_MAX]:
            if len(cookie) <= _SECRET_CHARS_MAX and (session := self._by_hash.get(_hash(cookie))) is not None:
                break
        now = self._now()
        if session is None or self._is_over(session, now):
            raise Unauthorized(
                "you are not logged in to the console",
                code="console.session",
                why=f"a session ends after {IDLE_S // 3600} h without use, after {LIFE_S // 86_400} days, or by logging out",
                hint="agentmesh console",
            )
        if page is not None and not hmac.compare_digest(_hash(page[:_SECRET_CHARS_MAX]), session.kept.page):
            raise Unauthorized(
                "this page does not belong to the session",
                code="console.page",
                why="beside the cookie each request carries what the login left in this browser for this origin",
                hint="agentmesh console",
            )
        self._touch(session, now)
        return session.rights

    def touch(self, key: str) -> None:
        """Note that what went on in the name of a session has ended now: it was in use until then."""
        for session in self._by_hash.values():
            if session.rights.key == key:
                self._touch(session, self._now())

    def leave(self, key: str) -> list[str]:
        """Forget the session with this ``Rights.key``, or with "" every session and every code.

        Returns:
            The keys of those forgotten. What still goes on in their names is the caller's to end (``on_end``): the request that
            asked for this may be one of it, and wants its answer.

        Raises:
            StoreError: none was forgotten.
        """
        shelf = self._loaded()
        gone = [one for one in self._by_hash.values() if key in ("", one.rights.key)]
        if not key:
            shelf.clear()
            self._codes.clear()
        for session in gone:
            if key:
                shelf.remove(session.kept.hash)
            del self._by_hash[session.kept.hash]
        return [one.rights.key for one in gone]

    def __len__(self) -> int:
        return len(self._by_hash)

    def _loaded(self) -> SessionShelf:
        if self._shelf is None:
            shelf = self._open_shelf()
            self._by_hash = {kept.hash: _Session(kept) for kept in shelf.all()}
            self._shelf = shelf
            self._make_room()
        return self._shelf

    def _make_room(self) -> None:
        """End what is over, then the sessions used longest ago, until no more than ``SESSIONS_MAX`` are left."""
        now = self._now()
        for session in [one for one in self._by_hash.values() if self._is_over(one, now)]:
            self._end(session)
        for session in sorted(self._by_hash.values(), key=lambda one: one.used)[: max(0, len(self) - SESSIONS_MAX)]:
            self._end(session)

    def _is_over(self, session: _Session, now: float) -> bool:
        # A clock that was set back makes both differences smaller, never a session that is over good again for longer
        # than it would have been.
        kept = session.kept
        return now - kept.made >= LIFE_S or (now - session.used >= IDLE_S and not self.is_busy(session.rights.key))

    def _touch(self, session: _Session, now: float) -> None:
        session.used = int(now)
        if abs(session.used - session.written) < _TOUCH_S:
            return
        session.written = session.used
        try:
            self._loaded().put(session.kept._replace(used=session.used))
        except MeshError as error:  # it is good now; after a restart it may be over earlier
            _log.warning("the use of a console session was not written down: %s", error)

    def _end(self, session: _Session) -> None:
        self._loaded().remove(session.kept.hash)
        self._by_hash.pop(session.kept.hash, None)
        self.on_end(session.rights.key)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
