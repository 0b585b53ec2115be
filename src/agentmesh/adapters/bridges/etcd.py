"""etcd v3 as a foreign registry, by its own JSON gateway (``/v3/…``, etcd 3.4 and later), so that no gRPC is needed.

Entries lie below one prefix. Those of this node hang on a lease that is kept alive, so they vanish when the daemon dies. A
watch begins at the revision after the listing and goes on from the last one seen; when that was compacted away meanwhile,
everything is listed again.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

from agentmesh.adapters.bridges.base import (
    ENTRIES_MAX,
    ENTRY_BYTES_MAX,
    TTL_S,
    Alive,
    Change,
    Gone,
    Listed,
    Listing,
    Posting,
    Put,
    ask,
    bad_answer,
    check_status,
    unreachable,
)
from agentmesh.adapters.bridges.entry import write_entry
from agentmesh.adapters.bridges.spec import BridgeSpec, read_secret
from agentmesh.adapters.http_client import HttpClient, decode_json, pieces_of, read_whole
from agentmesh.adapters.lines import LineSplitter
from agentmesh.adapters.shape import mapping, members
from agentmesh.errors import Closed, DecodeError, LimitError, Timeout, Unauthorized, Unreached

#: Keys per page of a listing; halved when a page is too large to read.
_PAGE = 256
#: A watch is begun anew after this time, so that one that died silently is noticed.
_WATCH_S = 240.0
#: gRPC status codes that etcd gives as "code".
_NOT_FOUND, _OUT_OF_RANGE = 5, 11


class Etcd:
    """One prefix of one etcd cluster (``base.Foreign``)."""

    kind = "etcd"

    def __init__(self, spec: BridgeSpec) -> None:
        self._spec = spec
        self._client = HttpClient()
        self._prefix = f"{spec.prefix}/".encode()
        self._range = {"key": _b64(self._prefix), "range_end": _b64(_after(self._prefix))}
        self._token = ""
        self._seen = 0  # revision up to which changes were told
        self._cluster = ""
        self._lease = ""
        self._published: dict[str, bytes] = {}

    async def watch(self, *, fresh: bool) -> AsyncGenerator[Change]:
        """See ``Foreign.watch``."""
        if fresh:
            self._seen = 0
        if not self._seen:
            async with aclosing(self._listing()) as changes:
                async for change in changes:
                    yield change
        while self._seen:
            async with aclosing(self._changes()) as changes:
                async for change in changes:
                    yield change

    async def _listing(self) -> AsyncGenerator[Change]:
        """List every entry as of one revision, page by page."""
        yield Listing()
        told = 0
        key, last, revision, limit = self._range["key"], b"", 0, _PAGE
        while True:
            request = {"key": key, "range_end": self._range["range_end"], "limit": str(limit)}
            try:
                page = await self._ask("/v3/kv/range", {**request, **({"revision": str(revision)} if revision else {})})
            except LimitError:
                if limit == 1:
                    raise
                limit = max(1, limit // 4)
                continue
            except _Compacted:
                yield Listing()
                key, last, revision = self._range["key"], b"", 0
                continue
            header = mapping(page.get("header"))
            revision, self._cluster = revision or _number(header.get("revision")), str(header.get("cluster_id"))
            kvs = members(page.get("kvs"))
            if (told := told + len(kvs)) > ENTRIES_MAX:
                raise LimitError(f"more than {ENTRIES_MAX} entries lie below {self._spec.name}", code="bridge.too_many")
            for item in kvs:
                yield self._put(mapping(item))
            if not page.get("more") or not kvs:
                break
            after = _bytes(mapping(kvs[-1]).get("key")) + b"\0"
            if after <= last:
                raise bad_answer("etcd", self._spec.base, "a listing that does not get on")
            key, last = _b64(after), after
        if not revision:
            raise bad_answer("etcd", self._spec.base, "a listing without a revision")
        self._seen = revision
        yield Listed()

    async def _changes(self) -> AsyncGenerator[Change]:
        """Yield changes until the watch has to be asked for again; ``_seen`` is 0 if that takes a new listing."""
        create = {"create_request": {**self._range, "start_revision": str(self._seen + 1)}}
        url = f"{self._spec.base}/v3/watch"
        try:
            async with self._client.open(
                "POST", url, json=create, headers=await self._headers(), timeout_s=_WATCH_S
            ) as response:
                if response.status != 200:
                    self._refused(response.status)
                    check_status("etcd", url, response.status, body := await read_whole(response, 65_536))
                    raise bad_answer("etcd", url, body.decode("utf-8", "replace"))
                async with aclosing(pieces_of(response, LineSplitter())) as lines:
                    async for line in lines:
                        for change in self._told(line):
                            yield change
                        if not self._seen:
                            return
                raise Closed("the watch ended")
        except Timeout:
            return
        except LimitError:
            self._seen = 0  # so much changed that listing it anew is cheaper
            return
        except Unreached as error:
            raise unreachable("etcd", url, error) from error

    def _told(self, line: bytes) -> list[Change]:
        """Read one message of a watch."""
        if not line.strip():
            return []
        message = _object(self._spec.base, line)
        result = mapping(message.get("result"))
        if "error" in message or (result.get("canceled") and not _number(result.get("compact_revision"))):
            why = mapping(message.get("error")).get("message") or result.get("cancel_reason") or "it ended the watch"
            if _says_token(str(why)):
                self._token = ""
            raise bad_answer("etcd", self._spec.base, str(why))
        header = mapping(result.get("header"))
        revision, cluster = _number(header.get("revision")), str(header.get("cluster_id"))
        # Another cluster, or one that was set back, would tell nothing until its revision has come this far.
        is_other = result.get("created") and (revision < self._seen or cluster != self._cluster)
        if result.get("canceled") or is_other:
            self._seen = 0
            return []
        out: list[Change] = [Alive()] if result.get("created") else []
        for item in members(result.get("events")):
            event = mapping(item)
            kv = mapping(event.get("kv"))
            # PUT is the default of the field, which the gateway leaves out.
            out.append(Gone(self._key(kv)) if event.get("type") == "DELETE" else self._put(kv))
        if members(result.get("events")):
            self._seen = max(self._seen, revision)
        return out

    def _put(self, kv: dict[str, Any]) -> Put:
        value = _bytes(kv.get("value"))
        return Put(self._key(kv), value if len(value) <= ENTRY_BYTES_MAX else None)

    def _key(self, kv: dict[str, Any]) -> str:
        return _bytes(kv.get("key")).removeprefix(self._prefix).decode("utf-8", "backslashreplace")[:512]

    async def publish(self, postings: Sequence[Posting], origin: str, *, fresh: bool = False) -> None:
        """See ``Foreign.publish``."""
        wanted = {posting.agent_id: write_entry(posting, origin) for posting in postings}
        if wanted and not self._lease:
            self._published.clear()
            answer = await self._ask("/v3/lease/grant", {"TTL": str(TTL_S)})
            lease = _number(answer.get("ID"))
            if not lease:
                raise bad_answer("etcd", self._spec.base, "a lease without an id")
            self._lease = str(lease)
        for key in [key for key in self._published if key not in wanted]:
            await self._ask("/v3/kv/deleterange", {"key": self._own(key)})
            del self._published[key]
        for key, value in wanted.items():
            if fresh or self._published.get(key) != value:
                try:
                    await self._ask("/v3/kv/put", {"key": self._own(key), "value": _b64(value), "lease": self._lease})
                except _NoLease:
                    self._lease = ""
                    raise bad_answer("etcd", self._spec.base, "the lease ran out") from None
                self._published[key] = value

    async def keep(self) -> bool:
        """See ``Foreign.keep``."""
        if not self._lease:
            return True
        answer = await self._ask("/v3/lease/keepalive", {"ID": self._lease})
        if _number(mapping(answer.get("result")).get("TTL")) > 0:
            return True
        self._lease = ""
        return False

    async def withdraw(self) -> None:
        """See ``Foreign.withdraw``: the lease goes, and everything that hangs on it."""
        lease, self._lease = self._lease, ""
        self._published.clear()
        if lease:
            try:
                await self._ask("/v3/lease/revoke", {"ID": lease})
            except _NoLease:
                return

    async def aclose(self) -> None:
        """See ``Foreign.aclose``."""
        await self._client.aclose()

    def _own(self, agent_id: str) -> str:
        return _b64(self._prefix + agent_id.encode())

    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{self._spec.base}{path}"
        try:
            answer = await ask(self._client, "etcd", "POST", url, json=body, headers=await self._headers())
        except Unauthorized:
            self._token = ""
            raise
        said = _object(self._spec.base, answer.body)
        if answer.status == 200 and "error" not in said:
            return said
        code, why = said.get("code"), str(said.get("message") or said.get("error") or f"HTTP {answer.status}")
        if code == _OUT_OF_RANGE:
            raise _Compacted(why)
        if code == _NOT_FOUND:
            raise _NoLease(why)
        self._refused(401 if _says_token(why) else answer.status)
        raise bad_answer("etcd", url, why)

    async def _headers(self) -> dict[str, str]:
        """Return the credentials, asking for a token first if there is a secret."""
        if not self._spec.secret:
            return {}
        if not self._token:
            name, _, password = read_secret(self._spec.secret).partition(":")
            url = f"{self._spec.base}/v3/auth/authenticate"
            answer = await ask(self._client, "etcd", "POST", url, json={"name": name, "password": password}, headers={})
            token = _object(url, answer.body).get("token")
            if not isinstance(token, str) or not token or len(token) > 4096 or not token.isascii():
                raise Unauthorized(
                    f"etcd at {self._spec.base} refuses user and password",
                    code="bridge.unauthorized",
                    hint=f"the line in {self._spec.secret} is user:password",
                )
            self._token = token
        return {"Authorization": self._token}

    def _refused(self, status: int) -> None:
        """Forget a token that does not hold any more; the next try asks for another."""
        if status == 401:
            self._token = ""


class _Compacted(DecodeError):
    """The revision asked for is no longer kept."""


class _NoLease(DecodeError):
    """The lease has run out."""


def _says_token(why: str) -> bool:
    return "invalid auth token" in why or "auth revision" in why


def _object(where: str, body: bytes) -> dict[str, Any]:
    try:
        found = decode_json(body)
    except DecodeError as error:
        raise bad_answer("etcd", where, error.detail) from error
    if not isinstance(found, dict):
        raise bad_answer("etcd", where, "no JSON object")
    return cast("dict[str, Any]", found)


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
        raise DecodeError("etcd answered what is no base64", code="bridge.bad_answer", why=str(error)) from error


def _b64(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _after(prefix: bytes) -> bytes:
    """Return the end of the range of keys with this prefix; its last byte is a slash, so there is one."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))
