"""Critical state in a JetStream bucket, in the form of NATS's own key-value stores, so that ``nats kv`` reads it.

A write is a message with the last sequence that its subject must have. Reading from whoever believes to lead the stream is
not enough: a leader that was paused or cut off answers with old values until it learns better. So a read on a cluster is
confirmed by a message that the cluster accepts only while the value read is the last one (docs/spec/engines.md §3). It costs
what a write does.
"""

from __future__ import annotations

import asyncio
import uuid
from base64 import b64decode
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from agentmesh.engines.base import CALL_TIMEOUT_S, VALUE_BYTES_MAX, Change, Versioned
from agentmesh.engines.nats_link import NOTHING_DONE, NatsLink, error_of, read_object
from agentmesh.engines.place import Place
from agentmesh.engines.refusals import (
    check_key,
    check_prefix,
    check_value,
    conflict,
    unknown_outcome,
    unreachable,
    unsafe,
)
from agentmesh.errors import DecodeError, MeshError, NoRoute, Timeout

if TYPE_CHECKING:
    from nats.aio.msg import Msg

#: A deletion is remembered so long, for watches that begin before it.
DELETION_KEPT_S = 3600
HEARTBEAT_S = 2
_RETRY_S = 0.2
_PAUSE_S = 0.004
_PAUSE_S_MAX = 0.06
_WRONG_LAST, _WRONG_LAST_NOW, _NOT_FOUND, _NO_STREAM, _NAME_TAKEN = 10071, 10164, 10037, 10059, 10058
_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"
#: Names a write, so that one which the true leader took while an old one refused it is known again.
_MARK = "Agentmesh-Write"


class _Found(NamedTuple):
    """The last message of a key: ``value`` None for a deletion, ``revision`` 0 if there was never any, ``mark`` of its write."""

    value: bytes | None
    revision: int
    mark: str = ""


class NatsCritical:
    """``base.CriticalStore`` on JetStream.

    Args:
        place: Servers, replicas, credentials, name of the bucket.
        is_synced: The servers are known to sync every write, because they are run by nodes of this mesh.
    """

    def __init__(self, place: Place, *, is_synced: bool = False) -> None:
        self._place = place
        self._link = NatsLink(place)
        self._stream = f"KV_{place.name}"
        self._pre = f"$KV.{place.name}."
        self._is_synced = is_synced
        self._is_open = False
        self._opening = asyncio.Lock()
        self._reads: dict[str, _Reading] = {}

    @property
    def url(self) -> str:
        """See ``CriticalStore.url``."""
        return self._place.url

    @property
    def warnings(self) -> list[str]:
        """See ``CriticalStore.warnings``."""
        found: list[str] = []
        if not self._is_synced:
            found.append(
                f"{self.url}: whether its servers sync every write cannot be seen from here; set sync_interval: always"
            )
        if self._place.replicas == 1:
            found.append(f"{self.url}: one server alone; what it keeps is lost with its disk")
        return found

    async def open(self) -> None:
        """See ``CriticalStore.open``."""
        if self._is_open:
            return
        async with self._opening:
            if self._is_open:
                return
            await self._link.wire()
            if self._place.replicas == 1 and self._link.is_cluster:
                raise unsafe(self.url, "one replica in a cluster survives no server's death", "leave out ?replicas=1")
            if self._place.replicas > 1 and not self._link.is_cluster:
                raise unsafe(
                    self.url,
                    "it is a single server, which cannot survive its own death",
                    "run three; or write ?replicas=1 if that is meant",
                )
            info = await self._link.ask(f"STREAM.INFO.{self._stream}")
            if error_of(info)[0] == _NO_STREAM:
                info = await self._make()
            code, why = error_of(info)
            if code:
                raise unreachable(self.url, why)
            self._judge(cast("dict[str, Any]", info.get("config") or {}))
            self._is_open = True

    async def _opened(self, until: float) -> None:
        """Open it if it is not, by a time, however many wait for that. Raises as ``open``."""
        if self._is_open:
            return
        try:
            async with asyncio.timeout_at(until):
                await self.open()
        except TimeoutError as error:
            raise unreachable(self.url, "no server answers") from error

    async def _make(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": self._stream,
            "subjects": [f"{self._pre}>"],
            "num_replicas": self._place.replicas,
            "storage": "file",
            "max_msgs_per_subject": 1,
            "max_msg_size": VALUE_BYTES_MAX + 4096,
            "discard": "new",
            "deny_delete": True,
            "allow_direct": False,
            "allow_rollup_hdrs": True,
            "allow_msg_ttl": True,
            "duplicate_window": 120_000_000_000,
        }
        made = await self._link.ask(f"STREAM.CREATE.{self._stream}", config)
        if error_of(made)[0] == _NAME_TAKEN:  # somebody else made it meanwhile
            return await self._link.ask(f"STREAM.INFO.{self._stream}")
        return made

    def _judge(self, config: dict[str, Any]) -> None:
        """Refuse a bucket that somebody made otherwise. Raises ConfigError."""
        wanted = self._place.replicas
        have = config.get("num_replicas")
        if not isinstance(have, int) or have < wanted:
            hint = f"nats stream edit {self._stream} --replicas {wanted}"
            raise unsafe(self.url, f"the bucket has {have} replicas, not {wanted}", hint)
        if config.get("allow_direct") or config.get("mirror_direct"):
            hint = f"nats stream edit {self._stream} --no-allow-direct"
            raise unsafe(self.url, "the bucket lets any server answer reads, with old values", hint)
        if config.get("max_msgs_per_subject") != 1 or config.get("max_age") or config.get("storage") != "file":
            raise unsafe(self.url, "the bucket is not kept as it must be", "write ?name=OTHER to use another bucket")

    async def get(self, key: str) -> Versioned | None:
        """See ``CriticalStore.get``; callers that wait for one key share a round."""
        check_key(key)
        until = asyncio.get_running_loop().time() + CALL_TIMEOUT_S
        await self._opened(until)
        reading = self._reads.setdefault(key, _Reading())
        # A read must begin after it was asked for: a round that is under way serves none that come during it.
        needed = reading.round + (2 if reading.is_busy else 1)
        reading.users += 1
        try:
            async with asyncio.timeout_at(until), reading.lock:
                if reading.round < needed or reading.outcome is None:
                    reading.is_busy, reading.outcome = True, None
                    try:
                        reading.outcome = await self._confirmed(key, until)
                    except NoRoute as error:
                        reading.outcome = error
                    finally:
                        reading.is_busy = False
                        reading.round += 1
                outcome = reading.outcome
        except TimeoutError as error:
            raise unreachable(self.url, "a read was not confirmed in time") from error
        finally:
            reading.users -= 1
            if not reading.users:
                self._reads.pop(key, None)
        if isinstance(outcome, MeshError):
            raise outcome
        return None if outcome.value is None else Versioned(outcome.value, outcome.revision)

    async def _confirmed(self, key: str, until: float) -> _Found:
        """Return the last message of a key as of some moment during this call. Raises NoRoute: by ``until`` there was none."""
        loop = asyncio.get_running_loop()
        pause, busy = _PAUSE_S, 0
        error: MeshError = unreachable(self.url, "too much is written there at once")
        while loop.time() < until:
            try:
                found = await self._last(key)
                if self._place.replicas == 1:
                    return found
                headers = {_SEQUENCE: str(found.revision), _SUBJECT: self._subject(key)}
                left = max(0.01, until - loop.time())
                message = await self._link.request(f"{self._pre}=.read", b"", headers, timeout_s=left)
                code, why = error_of(_answer(message))
            except (NoRoute, Timeout) as failed:
                error = unreachable(self.url, failed.why or failed)
                code = 0
            else:
                if not code:
                    return found
                if code not in (_WRONG_LAST, _WRONG_LAST_NOW):
                    error = unreachable(self.url, why)
            busy = busy + 1 if code else 0
            await asyncio.sleep(min(_PAUSE_S_MAX, pause * 2 ** min(busy, 4)))
        raise error

    async def _after_refusal(self, key: str, until: float) -> _Found:
        """As ``_confirmed``, once a write was refused. Raises Timeout: the true leader may have taken it."""
        try:
            return await self._confirmed(key, until)
        except NoRoute as error:
            raise unknown_outcome(self.url, error.why or error) from error

    async def _last(self, key: str) -> _Found:
        """Return what the server that believes to lead has; it may be old."""
        answer = await self._link.ask(f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._subject(key)})
        code, why = error_of(answer)
        if code == _NOT_FOUND:
            return _Found(None, 0)
        if code:
            raise unreachable(self.url, why)
        message = answer.get("message")
        if not isinstance(message, dict):
            raise DecodeError("NATS answered without a message", code="engine.bad_answer")
        fields = cast("dict[str, Any]", message)
        revision: Any = fields.get("seq")
        try:
            headers, value = (b64decode(fields.get(name) or "", validate=True) for name in ("hdrs", "data"))
        except (ValueError, TypeError) as error:
            raise DecodeError("NATS answered what is no base64", code="engine.bad_answer") from error
        if not isinstance(revision, int) or revision < 1:
            raise DecodeError("NATS answered without a sequence", code="engine.bad_answer")
        fields = _headers(headers)
        return _Found(None if _marks_deletion(fields) else value, revision, fields.get(_MARK, ""))

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        """See ``CriticalStore.put``."""
        check_key(key)
        check_value(value)
        until = asyncio.get_running_loop().time() + CALL_TIMEOUT_S
        await self._opened(until)
        last, mark, is_sent = expect, uuid.uuid4().hex, False
        while True:
            try:
                return await self._write(key, value, {_MARK: mark}, last, until, is_sent=is_sent)
            except _Conflict:
                is_sent = True
                # Whoever refused may be an old leader; and what has the key may be a deletion, which is nothing.
                found = await self._after_refusal(key, until)
            if found.mark == mark:
                return found.revision  # the message reached the true leader as well
            revision = 0 if found.value is None else found.revision
            if revision != expect:
                raise conflict(key, expect or 0, revision)
            last = found.revision

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        """See ``CriticalStore.delete``."""
        check_key(key)
        until = asyncio.get_running_loop().time() + CALL_TIMEOUT_S
        await self._opened(until)
        mark = uuid.uuid4().hex
        marks = {"KV-Operation": "DEL", "Nats-TTL": str(DELETION_KEPT_S), _MARK: mark}
        revision, is_sent = expect or 0, False
        while True:
            if revision:
                try:
                    await self._write(key, b"", marks, revision, until, is_sent=is_sent)
                except _Conflict:
                    is_sent = True
                else:
                    return True
            found = await (self._after_refusal(key, until) if is_sent else self._confirmed(key, until))
            if found.mark == mark:
                return True
            revision = 0 if found.value is None else found.revision
            if expect is not None and expect != revision:
                raise conflict(key, expect, revision)
            if not revision:
                return False

    async def _write(
        self, key: str, value: bytes, headers: dict[str, str], expect: int | None, until: float, *, is_sent: bool
    ) -> int:
        """Send a write until it is known that it was taken or refused. Raises _Conflict, NoRoute, Timeout."""
        loop = asyncio.get_running_loop()
        pause = _PAUSE_S
        if expect is not None:
            headers = {**headers, _SEQUENCE: str(expect)}
        while True:
            left = until - loop.time()
            try:
                message = await self._link.request(
                    self._subject(key), value, headers or None, timeout_s=max(0.01, left)
                )
            except NoRoute as error:
                if left < _RETRY_S:
                    if is_sent:
                        raise unknown_outcome(self.url, error.why or error) from error
                    raise
                self._link.suspect()
                await asyncio.sleep(_RETRY_S / 4)
                continue
            answer = _answer(message)
            code, why = error_of(answer)
            revision: Any = answer.get("seq")
            if not code and isinstance(revision, int) and revision > 0:
                return revision
            if code == _WRONG_LAST:
                raise _Conflict
            # Another write, or the confirmation of a read, is under way on that key at whoever answered. A message reaches all
            # that believe to lead, so from here on the true leader may have taken it whatever this one says.
            is_sent = True
            if code == _WRONG_LAST_NOW and left > 2 * _PAUSE_S_MAX:
                await asyncio.sleep(pause)
                pause = min(_PAUSE_S_MAX, pause * 1.5)
                continue
            if code in NOTHING_DONE and self._place.replicas == 1:
                raise unreachable(self.url, why)
            raise unknown_outcome(self.url, why or "an answer without a sequence")

    async def keys(self, prefix: str = "", limit: int = 1000) -> list[str]:
        """See ``CriticalStore.keys``."""
        check_prefix(prefix)
        loop = asyncio.get_running_loop()
        until = loop.time() + CALL_TIMEOUT_S
        await self._opened(until)
        while True:
            found: dict[str, bool] = {}
            try:
                async with asyncio.timeout_at(until), aclosing(self._feed(0, keys_only=True)) as feed:
                    async for key, value, _, _pending in feed:
                        if key.startswith(prefix):
                            found[key] = value is not None
                        if not _pending:
                            return sorted(key for key, there in found.items() if there)[:limit]
            except TimeoutError as error:
                raise unreachable(self.url, "the list of keys did not come in time") from error
            except _Broken as error:
                if loop.time() > until - _RETRY_S:
                    raise unreachable(self.url, error) from error

    async def watch(self, prefix: str, after: int = 0) -> AsyncGenerator[Change, None]:
        """See ``CriticalStore.watch``; of several changes of a key that were not fetched yet, the last one is told."""
        check_prefix(prefix)
        await self.open()
        seen, is_listing = after, after == 0
        while True:
            try:
                async with aclosing(self._feed(seen)) as feed:
                    async for key, value, revision, pending in feed:
                        seen = max(seen, revision)
                        if key.startswith(prefix) and (value is not None or not is_listing) and revision:
                            yield Change(key, value, revision)
                        if not pending:
                            is_listing = False
            except (NoRoute, Timeout, _Broken):
                await asyncio.sleep(_RETRY_S)

    async def _feed(
        self, after: int, *, keys_only: bool = False
    ) -> AsyncGenerator[tuple[str, bytes | None, int, int], None]:
        """Yield (key, value, revision, how many are still to come of those that were there), in order, by a consumer of our own.

        ("", None, 0, 0) says that nothing was there. Raises _Broken: it must be begun anew; NoRoute.
        """
        wire = await self._link.wire()
        inbox = wire.client.new_inbox()
        name = inbox.rpartition(".")[2]
        config: dict[str, Any] = {
            "name": name,
            "deliver_subject": inbox,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "ack_policy": "none",
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 30_000_000_000,
            "idle_heartbeat": HEARTBEAT_S * 1_000_000_000,
            "filter_subject": f"{self._pre}*",
            "headers_only": keys_only,
        }
        async with self._link.listening(wire, inbox) as messages:
            path = f"CONSUMER.CREATE.{self._stream}.{name}.{self._pre}*"
            made = await self._link.ask(path, {"stream_name": self._stream, "config": config})
            if error_of(made)[0]:
                raise _Broken(error_of(made)[1])
            if not made.get("num_pending"):
                yield "", None, 0, 0
            count = 0
            while True:
                try:
                    async with asyncio.timeout(3 * HEARTBEAT_S):
                        message = await messages.get()
                except TimeoutError as error:
                    self._link.suspect(wire)
                    raise _Broken("no heartbeat") from error
                if message is None or wire.is_retired:
                    raise _Broken("the connection broke")
                if (message.headers or {}).get("Status"):
                    continue
                count += 1
                revision, serial, pending = _place_of(message)
                if serial != count:
                    raise _Broken("messages are missing")
                value = None if _marks_deletion(message.headers or {}) else message.data
                yield message.subject.removeprefix(self._pre).replace("=", "."), value, revision, pending

    async def aclose(self) -> None:
        """See ``CriticalStore.aclose``."""
        await self._link.aclose()

    def _subject(self, key: str) -> str:
        """Return a key's subject: one token, whatever dots it has."""
        return self._pre + key.replace(".", "=")


class _Reading:
    """One key that is being read."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.round = 0
        self.is_busy = False
        self.users = 0
        self.outcome: _Found | NoRoute | None = None


class _Conflict(Exception):
    """Whoever believes to lead says that another revision is there."""


class _Broken(Exception):
    """A consumer ended."""


def _answer(message: Msg) -> dict[str, Any]:
    """Read JetStream's acknowledgement of a message; what cannot be read says nothing of what was done."""
    try:
        return read_object(message.data)
    except DecodeError:
        return {}


def _place_of(message: Msg) -> tuple[int, int, int]:
    """Return a delivered message's sequence in the stream and in its consumer, and how many are pending.

    The reply subject is ``$JS.ACK.STREAM.CONSUMER.TRIES.SEQ.SERIAL.TIME.PENDING``; in its longer form with domain and account
    before the stream, and more behind.
    """
    tokens = message.reply.split(".")
    first = 2 if len(tokens) == 9 else 4
    try:
        return int(tokens[first + 3]), int(tokens[first + 4]), int(tokens[first + 6])
    except (IndexError, ValueError) as error:
        raise _Broken("a delivery that says not where it belongs") from error


def _marks_deletion(headers: Mapping[str, str]) -> bool:
    return headers.get("KV-Operation") in ("DEL", "PURGE") or "Nats-Marker-Reason" in headers


def _headers(raw: bytes) -> dict[str, str]:
    """Read a block of headers as a stored message has it."""
    lines = (line.partition(":") for line in raw.decode("utf-8", "replace").split("\r\n")[1:])
    return {name.strip(): value.strip() for name, colon, value in lines if colon}
