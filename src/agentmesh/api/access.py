"""Who a request comes from: the operator's token, an API key, a JWT, a session of the console, or nobody; and what ends when
a key is revoked.

All keys are in memory by their SHA-256, so a request costs one hash and one look-up. Nothing of a key can be learned from how
long that takes: what is looked up is the hash, and the one secret that is kept as such is compared in constant time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from agentmesh.api.scopes import OPERATOR, SESSION_PREFIX, Rights, parse_scopes
from agentmesh.errors import ConfigError, RecordNotFound, Unauthorized, UsageError
from agentmesh.store.keys import KeptKey
from agentmesh.wire.access import KeyMade, KeyRequest, KeyView

if TYPE_CHECKING:
    from agentmesh.api.console.sessions import Sessions
    from agentmesh.api.issuers import Issuers
    from agentmesh.api.jwt import Jwts

KEY_PREFIX = "amk_"
#: Longest credential that is looked at, bytes; a JWT with a grant has about 2 KB.
CREDENTIAL_BYTES_MAX = 8192
#: Longest life that can be asked for, seconds; whoever wants more wants no end.
_EXPIRES_S_MAX = 10 * 366 * 86_400
#: A clock waits no longer than this before it looks again: timers of asyncio overflow.
_WAIT_S_MAX = 86_400.0
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?")


_NO_REQUEST: Mapping[str, Any] = MappingProxyType({})


class KeyShelf(Protocol):
    """Where keys are kept (``store.keys.KeyStore``)."""

    def all(self) -> list[KeptKey]:
        """Return every key, by name."""
        ...

    def add(self, key: KeptKey) -> None:
        """Keep a key durably. Raises StateError if the name is taken, LimitError, StoreError."""
        ...

    def remove(self, name: str) -> bool:
        """Forget a key durably; False if there is none of that name."""
        ...


class _Entry:
    """One key in memory."""

    __slots__ = ("kept", "rights", "used")

    def __init__(self, kept: KeptKey) -> None:
        self.kept = kept
        self.used: int | None = None
        try:
            scopes, agents = parse_scopes(kept.scopes)
        except UsageError:  # of a version that knows other scopes: nothing is opened that is not understood
            scopes, agents = frozenset[str](), None
        self.rights = Rights(f"key {kept.name}", scopes, agents, kept.tenant, kept.name, kept.expires)


class Access:
    """Everybody who may use the API of one node.

    Args:
        token: The operator's token; never empty.
        shelf: Where API keys are kept; None = there are none, and none can be made.
        issuers: Whose JWTs are accepted; None = nobody's.
        sessions: Who is logged in to the console; None = nobody can.
        now: The wall clock, Unix seconds.

    Raises:
        ConfigError: the token is empty.
        StoreError: the keys cannot be read.
    """

    def __init__(
        self,
        token: str,
        shelf: KeyShelf | None = None,
        *,
        issuers: Issuers | None = None,
        sessions: Sessions | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not token:
            raise ConfigError("an empty API token would let everyone in", code="config.token")
        self._bearer, self._token = b"Bearer " + token.encode(), token.encode()
        self._shelf, self._now = shelf, now
        self._issuers = issuers
        self._jwts: Jwts | None = None
        self._by_hash: dict[bytes, _Entry] = {}
        self._by_name: dict[str, _Entry] = {}
        #: What goes on in the name of each key: ended when it is revoked.
        self._open: dict[str, list[asyncio.Timeout]] = {}
        self.sessions = sessions
        if sessions is not None:
            sessions.on_end = self._end
            sessions.is_busy = self._open.__contains__
        for kept in shelf.all() if shelf is not None else ():
            self._put(kept)

    def rights_of(self, credentials: bytes, request: Mapping[str, Any] = _NO_REQUEST) -> Rights:
        """Return what the value of an Authorization header opens.

        Args:
            credentials: The value.
            request: ASGI scope of the request; a proof of possession is compared with it.

        Raises:
            Unauthorized: nothing (codes "refused.token", "refused.key", "refused.expired", "jwt.*", "dpop.*").
        """
        if hmac.compare_digest(credentials, self._bearer):
            return OPERATOR
        scheme, _, value = credentials[:CREDENTIAL_BYTES_MAX].partition(b" ")
        scheme, value = scheme.lower(), value.strip()
        if scheme in (b"bearer", b"dpop") and len(credentials) <= CREDENTIAL_BYTES_MAX:
            if value.count(b".") == 2 and self._issuers is not None and self._issuers.any():
                return self._rights_of_jwt(self._issuers, value, scheme, request)
            if scheme == b"bearer" and value.startswith(KEY_PREFIX.encode()):
                return self._rights_of_key(value)
            if scheme == b"bearer" and hmac.compare_digest(value, self._token):
                return OPERATOR
        raise Unauthorized(
            "the API token is wrong",
            code="refused.token",
            why="every request carries 'Authorization: Bearer TOKEN'",
            hint="the token is in the file api.token of the home directory (agentmesh config explain)",
        )

    def _rights_of_jwt(self, issuers: Issuers, value: bytes, scheme: bytes, request: Mapping[str, Any]) -> Rights:
        # Loaded with the first JWT: a node that is asked with keys only does not pay for it.
        from agentmesh.api.jwt import Asked, Jwts

        if self._jwts is None:
            self._jwts = Jwts(issuers, now=self._now)
            issuers.on_change = self._jwts.forget
        host, proofs = b"", list[str]()
        for name, header in request.get("headers", ()):
            if name == b"host":
                host = header
            elif name == b"dpop":
                proofs.append(header.decode("latin-1"))
        path = request.get("raw_path") or str(request.get("path", "")).encode()
        url = f"http://{host.decode('latin-1')}{path.decode('latin-1')}"
        asked = Asked(request.get("method", ""), url, proofs)
        return self._jwts.rights_of(value.decode("latin-1"), scheme.decode("latin-1"), asked)

    def _rights_of_key(self, value: bytes) -> Rights:
        entry = self._by_hash.get(hashlib.sha256(value).digest())
        if entry is None:
            raise Unauthorized(
                "this API key is not known here",
                code="refused.key",
                why="it was revoked, or it belongs to another node",
                hint="ask the operator for a key:   agentmesh keys add NAME --scope read",
            )
        now = self._now()
        if (until := entry.rights.until) is not None and now >= until:
            raise Unauthorized(
                f"the time of API key {entry.kept.name} is over",
                code="refused.expired",
                why=f"it ended {max(0, int(now - until))} s ago",
                hint="ask the operator for a new one:   agentmesh keys add NAME --scope read",
            )
        entry.used = int(now)
        return entry.rights

    @contextmanager
    def lasting(self, rights: Rights) -> Generator[asyncio.Timeout]:
        """Give the clock under which a request runs: it ends when the key is revoked, and when its time is over."""
        clock = asyncio.timeout(None if rights.until is None else min(_WAIT_S_MAX, rights.until - self._now()))
        going = self._open.setdefault(rights.key, [])
        going.append(clock)
        try:
            yield clock
        finally:
            going.remove(clock)
            if not going and self._open.get(rights.key) is going:
                del self._open[rights.key]
                if self.sessions is not None and rights.key.startswith(SESSION_PREFIX):
                    self.sessions.touch(rights.key)

    # Keys

    def add_key(self, request: KeyRequest) -> KeyMade:
        """Make a key.

        Raises:
            UsageError: its name, scopes or end make no sense. Nothing changed.
            StateError: the name is taken. Nothing changed.
            LimitError: there are too many. Nothing changed.
            StoreError: it could not be kept, and is good for nothing.
        """
        if not _NAME.fullmatch(request.name):
            raise UsageError(
                f"{request.name[:80]!r} can't be the name of a key",
                code="keys.name",
                why="names have 1 to 64 letters, digits, '-', '_' or inner dots",
            )
        scopes, _ = parse_scopes(request.scopes)
        if request.tenant and "admin" in scopes:
            raise UsageError(
                "a tenant's key cannot have the scope admin", code="keys.scope", why="admin governs the whole node"
            )
        if request.expires_s is not None and not 1 <= request.expires_s <= _EXPIRES_S_MAX:
            raise UsageError(
                f"a key ends after 1 s to {_EXPIRES_S_MAX} s, or never", code="keys.expires", hint="--expires 30d"
            )
        now = int(self._now())
        secret = KEY_PREFIX + secrets.token_urlsafe(32)
        kept = KeptKey(
            request.name,
            hashlib.sha256(secret.encode()).digest(),
            tuple(dict.fromkeys(request.scopes)),
            request.tenant,
            now,
            None if request.expires_s is None else now + int(request.expires_s),
        )
        self._kept().add(kept)
        return KeyMade(key=self._view(self._put(kept)), secret=secret)

    def every_key(self) -> list[KeyView]:
        """Return every key, by name."""
        return [self._view(self._by_name[name]) for name in sorted(self._by_name)]

    def revoke_key(self, name: str) -> KeyView:
        """Forget a key and end what goes on in its name.

        Raises:
            RecordNotFound: there is none of that name. Nothing changed.
            StoreError: it could not be forgotten on disk. It is still good.
        """
        entry = self._by_name.get(name)
        if entry is None or not self._kept().remove(name):
            raise RecordNotFound(f"no API key is named {name[:80]!r}", code="keys.unknown", hint="agentmesh keys list")
        del self._by_name[name], self._by_hash[entry.kept.hash]
        self._end(name)
        return self._view(entry)

    def revoke_tenant(self, tenant: str) -> None:
        """Forget every key of a tenant. Raises StoreError: those that were not forgotten are still good."""
        for name in [name for name, entry in self._by_name.items() if entry.kept.tenant == tenant]:
            self.revoke_key(name)

    def _end(self, key: str) -> None:
        """End what goes on in the name of a key or session."""
        for clock in self._open.pop(key, ()):
            clock.reschedule(asyncio.get_running_loop().time())

    def _kept(self) -> KeyShelf:
        if self._shelf is None:
            raise ConfigError("this node keeps no API keys", code="keys.none")
        return self._shelf

    def _put(self, kept: KeptKey) -> _Entry:
        entry = _Entry(kept)
        self._by_hash[kept.hash] = entry
        self._by_name[kept.name] = entry
        return entry

    def _view(self, entry: _Entry) -> KeyView:
        kept = entry.kept
        return KeyView(
            name=kept.name,
            scopes=list(kept.scopes),
            tenant=kept.tenant,
            made=kept.made,
            expires=kept.expires,
            expired=kept.expires is not None and self._now() >= kept.expires,
            used=entry.used,
        )
