"""Critical state in etcd v3, by its JSON gateway (etcd 3.4 and later), so that no gRPC is needed.

etcd's reads are linearisable unless one asks otherwise, and its transactions compare and set. Its leases and locks are not used:
they are not safe without fencing (research: p2p-reliability §1.2), and ours need neither. aiohttp is loaded with the first call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, cast

from agentmesh.engines.base import CALL_TIMEOUT_S, Change, Versioned
from agentmesh.engines.place import Place, read_secret, tls_of
from agentmesh.engines.refusals import (
    check_key,
    check_prefix,
    check_value,
    closed,
    conflict,
    unknown_outcome,
    unreachable,
    unsafe,
)
from agentmesh.errors import DecodeError, LimitError, NoRoute, Timeout, Unauthorized

if TYPE_CHECKING:
    from aiohttp import ClientSession

#: The JSON gateway below /v3 begins with it.
VERSION_MIN = (3, 4)
CONNECT_TIMEOUT_S = 0.4
#: How long one server may take to answer what can be asked again elsewhere.
TRY_TIMEOUT_S = 0.7
_PAUSE_S = 0.05
_RETRY_S = 0.2
#: A watch is begun anew when it was quiet for so long: one that died silently is noticed.
_QUIET_S = 20.0
ANSWER_BYTES_MAX = 32 * 1024 * 1024
_PAGE = 50
#: gRPC status codes: refused before anything was done.
_INVALID, _DENIED, _EXHAUSTED, _OUT_OF_RANGE, _UNAUTHENTICATED = 3, 7, 8, 11, 16


class EtcdCritical:
    """``base.CriticalStore`` on etcd. Keys lie below ``NAME/``.

    Args:
        place: Servers, credentials, name.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._bases = [f"{'https' if place.scheme == 'etcds' or place.ca else 'http'}://{one}" for one in place.servers]
        self._prefix = f"{place.name}/"
        self._session: ClientSession | None = None
        self._token = ""
        self._at = 0
        self._closed = False
        self._is_open = False

    @property
    def url(self) -> str:
        """See ``CriticalStore.url``."""
        return self._place.url

    @property
    def warnings(self) -> list[str]:
        """See ``CriticalStore.warnings``."""
        one = f"{self.url}: one server is named; without it there are no locks and no linearizable state"
        return [one] if len(self._bases) == 1 else []

    async def open(self) -> None:
        """See ``CriticalStore.open``."""
        if self._is_open:
            return
        found = await self._ask("/v3/maintenance/status", {})
        text = str(found.get("version"))
        try:
            version = tuple(int(one) for one in text.split(".")[:2])
        except ValueError as error:
            raise _bad(self.url, "a status without a version") from error
        if version < VERSION_MIN:
            raise unsafe(self.url, f"etcd {text[:20]} is too old", "upgrade it to 3.4 or later")
        self._is_open = True

    async def get(self, key: str) -> Versioned | None:
        """See ``CriticalStore.get``."""
        check_key(key)
        await self.open()
        found = _kvs(await self._ask("/v3/kv/range", {"key": self._key(key)}))
        return Versioned(_bytes(found[0].get("value")), _number(found[0].get("mod_revision"))) if found else None

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        """See ``CriticalStore.put``."""
        check_key(key)
        check_value(value)
        await self.open()
        put = {"request_put": {"key": self._key(key), "value": _b64(value)}}
        answer = await self._txn(key, put, expect)
        return self._revision(answer)

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        """See ``CriticalStore.delete``."""
        check_key(key)
        await self.open()
        answer = await self._txn(key, {"request_delete_range": {"key": self._key(key)}}, expect)
        responses = _members(answer.get("responses"))
        done = _mapping(responses[0].get("response_delete_range")) if responses else {}
        return _number(done.get("deleted")) > 0

    async def _txn(self, key: str, what: dict[str, Any], expect: int | None) -> dict[str, Any]:
        """Do one thing if the key is at a revision. Raises StateError: it is not."""
        request: dict[str, Any] = {"success": [what]}
        if expect is not None:
            compare = {"key": self._key(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(expect)}
            request["compare"] = [compare]
            request["failure"] = [{"request_range": {"key": self._key(key), "keys_only": True}}]
        answer = await self._ask("/v3/kv/txn", request, writes=True)
        if not answer.get("succeeded"):
            responses = _members(answer.get("responses"))
            found = _kvs(_mapping(responses[0].get("response_range"))) if responses else []
            raise conflict(key, expect or 0, _number(found[0].get("mod_revision")) if found else 0)
        return answer

    async def keys(self, prefix: str = "", limit: int = 1000) -> list[str]:
        """See ``CriticalStore.keys``."""
        check_prefix(prefix)
        await self.open()
        request = {
            **self._range(prefix),
            "keys_only": True,
            "limit": str(limit),
            "sort_target": "KEY",
            "sort_order": "ASCEND",
        }
        return [self._name(item) for item in _kvs(await self._ask("/v3/kv/range", request))]

    async def watch(self, prefix: str, after: int = 0) -> AsyncGenerator[Change, None]:
        """See ``CriticalStore.watch``; what was compacted away meanwhile is told as it is now, without deletions."""
        check_prefix(prefix)
        await self.open()
        seen, needs_listing = after, after == 0
        while True:
            try:
                if needs_listing:
                    until = 0
                    while True:
                        items, until, more = await self._listing(prefix, seen, until)
                        for item in items:
                            seen = _number(item.get("mod_revision"))
                            yield Change(self._name(item), _bytes(item.get("value")), seen)
                        if not more or not items:
                            break
                    seen, needs_listing = max(seen, until), False
                async with contextlib.aclosing(self._events(prefix, seen)) as events:
                    async for change in events:
                        if change is None:
                            needs_listing = True
                            break
                        seen = change.revision
                        yield change
            except (NoRoute, Timeout, DecodeError):
                self._at += 1
                await asyncio.sleep(_RETRY_S)

    async def _listing(self, prefix: str, after: int, at: int) -> tuple[list[dict[str, Any]], int, bool]:
        """Return keys written after a revision, as of revision ``at`` (0 = now), that revision, and whether there are more."""
        request = {
            **self._range(prefix),
            "limit": str(_PAGE),
            "sort_target": "MOD",
            "sort_order": "ASCEND",
            "min_mod_revision": str(after + 1),
            **({"revision": str(at)} if at else {}),
        }
        page = await self._ask("/v3/kv/range", request)
        return _kvs(page), at or self._revision(page), bool(page.get("more"))

    async def _events(self, prefix: str, after: int) -> AsyncGenerator[Change | None, None]:
        """Yield changes until the connection breaks (NoRoute) or is quiet; None: that revision is not kept any more."""
        from aiohttp import ClientError, ClientTimeout

        create = {"create_request": {**self._range(prefix), "start_revision": str(after + 1), "fragment": True}}
        base = self._base()
        timeout = ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S, sock_read=_QUIET_S)
        pending = b""
        try:
            async with self._http().post(
                f"{base}/v3/watch", data=json.dumps(create), headers=await self._headers(base), timeout=timeout
            ) as response:
                async for piece in response.content.iter_any():
                    pending += piece
                    if len(pending) > ANSWER_BYTES_MAX:
                        raise _bad(self.url, "a message that is too large")
                    *lines, pending = pending.split(b"\n")
                    for line in lines:
                        if not line.strip():
                            continue
                        message = _object(self.url, line)
                        result = _mapping(message.get("result"))
                        if _number(result.get("compact_revision")):
                            yield None
                            return
                        if "error" in message or result.get("canceled") or "code" in message:
                            self._token = ""
                            raise _bad(self.url, "it ended the watch")
                        for event in _members(result.get("events")):
                            item = _mapping(event.get("kv"))
                            gone = event.get("type") == "DELETE"  # PUT is the default, which the gateway leaves out
                            value = None if gone else _bytes(item.get("value"))
                            yield Change(self._name(item), value, _number(item.get("mod_revision")))
        except TimeoutError:
            return
        except (ClientError, OSError) as error:
            raise unreachable(self.url, error) from error

    async def _ask(self, path: str, body: dict[str, Any], *, writes: bool = False) -> dict[str, Any]:
        """Ask until a server answers or time is up; what ``writes`` is sent anew only if nothing was done.

        Raises:
            NoRoute, Timeout, Unauthorized, LimitError: see ``base``.
        """
        from aiohttp import ClientConnectorError, ClientError, ClientTimeout, ConnectionTimeoutError

        loop = asyncio.get_running_loop()
        until = loop.time() + CALL_TIMEOUT_S
        why: object = "no server answers"
        renewed = False
        while (left := until - loop.time()) > _PAUSE_S:
            base = self._base()
            timeout = ClientTimeout(total=left if writes else min(left, TRY_TIMEOUT_S), sock_connect=CONNECT_TIMEOUT_S)
            is_sent = False
            try:
                headers = await self._headers(base)
                is_sent = True
                async with self._http().post(
                    f"{base}{path}", data=json.dumps(body), headers=headers, timeout=timeout
                ) as response:
                    raw = await response.content.read(ANSWER_BYTES_MAX + 1) if response.content_length else b""
                    while response.content_length is None and (piece := await response.content.readany()):
                        raw += piece
                        if len(raw) > ANSWER_BYTES_MAX:
                            break
                    status = response.status
                if len(raw) > ANSWER_BYTES_MAX:
                    raise LimitError(
                        f"{self.url} answered more than {ANSWER_BYTES_MAX} bytes", code="engine.bad_answer"
                    )
                said = _object(self.url, raw)
            except (ClientConnectorError, TimeoutError, ClientError, OSError, DecodeError) as error:
                self._at += 1
                is_sent = is_sent and not isinstance(error, ClientConnectorError | ConnectionTimeoutError)
                if writes and is_sent:
                    raise unknown_outcome(self.url, error or "no answer in time") from error
                why = error or "no answer in time"
                await asyncio.sleep(_PAUSE_S if loop.time() + _PAUSE_S < until else 0)
                continue
            if status == 200 and "error" not in said:
                return said
            code, why = said.get("code"), str(said.get("message") or said.get("error") or f"HTTP {status}")
            if (code == _UNAUTHENTICATED or "auth token" in str(why)) and not renewed:
                self._token, renewed = "", True
                continue
            if code in (_UNAUTHENTICATED, _DENIED) or status in (401, 403) or "user name is empty" in str(why):
                raise self._refused(why)
            if code == _INVALID and "user" in str(why):
                raise self._refused(why)
            if code == _EXHAUSTED:
                raise unreachable(self.url, why)
            if code == _INVALID:
                raise LimitError(f"{self.url} refuses a request", code="engine.refused", why=str(why)[:300])
            if writes:
                raise unknown_outcome(self.url, why)
            self._at += 1
            await asyncio.sleep(_PAUSE_S)
        raise unreachable(self.url, why)

    def _refused(self, why: object) -> Unauthorized:
        return Unauthorized(
            f"{self.url} refuses us",
            code="engine.unauthorized",
            why=str(why)[:300],
            hint="?secret=FILE names a file with user:password; docs/spec/engines.md",
        )

    async def _headers(self, base: str) -> dict[str, str]:
        """Return the credentials, asking for a token first if there is a secret."""
        if not self._place.secret:
            return {}
        if not self._token:
            from aiohttp import ClientTimeout

            name, _, password = read_secret(self._place.secret).partition(":")
            timeout = ClientTimeout(total=TRY_TIMEOUT_S)
            body = json.dumps({"name": name, "password": password})
            async with self._http().post(f"{base}/v3/auth/authenticate", data=body, timeout=timeout) as response:
                said = _object(self.url, await response.content.read(65_536))
            token = said.get("token")
            if not isinstance(token, str) or not token or len(token) > 4096 or not token.isascii():
                if said.get("code") == _INVALID:
                    raise self._refused("user or password is wrong")
                raise _bad(self.url, "no token")
            self._token = token
        return {"Authorization": self._token}

    def _base(self) -> str:
        return self._bases[self._at % len(self._bases)]

    def _http(self) -> ClientSession:
        if self._closed:
            raise closed(self.url)
        if self._session is None:
            from aiohttp import ClientSession, TCPConnector

            tls = tls_of(self._place)
            self._session = ClientSession(connector=TCPConnector(limit=64, ssl=tls if tls is not None else True))
        return self._session

    async def aclose(self) -> None:
        """See ``CriticalStore.aclose``."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _key(self, key: str) -> str:
        return _b64((self._prefix + key).encode())

    def _range(self, prefix: str) -> dict[str, Any]:
        begin = (self._prefix + prefix).encode()
        return {"key": _b64(begin), "range_end": _b64(begin[:-1] + bytes((begin[-1] + 1,)))}

    def _name(self, item: dict[str, Any]) -> str:
        return _bytes(item.get("key")).decode("utf-8", "backslashreplace").removeprefix(self._prefix)

    def _revision(self, answer: dict[str, Any]) -> int:
        revision = _number(_mapping(answer.get("header")).get("revision"))
        if not revision:
            raise _bad(self.url, "no revision")
        return revision


def _bad(url: str, what: str) -> DecodeError:
    return DecodeError(f"{url} answered what etcd would not", code="engine.bad_answer", why=what)


def _object(url: str, raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _bad(url, "no JSON") from error
    if not isinstance(found, dict):
        raise _bad(url, "no JSON object")
    return cast("dict[str, Any]", found)


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _members(value: object) -> list[dict[str, Any]]:
    return [_mapping(one) for one in cast("list[Any]", value)] if isinstance(value, list) else []


def _kvs(page: dict[str, Any]) -> list[dict[str, Any]]:
    return _members(page.get("kvs"))


def _number(value: object) -> int:
    """Return an int64 of the gateway, which writes them as strings and leaves out 0."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _bytes(value: object) -> bytes:
    if not isinstance(value, str):
        return b""
    try:
        return b64decode(value, validate=True)
    except ValueError as error:
        raise DecodeError("etcd answered what is no base64", code="engine.bad_answer", why=str(error)) from error


def _b64(value: bytes) -> str:
    return b64encode(value).decode("ascii")
