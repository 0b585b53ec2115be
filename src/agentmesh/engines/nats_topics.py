"""Durable topics on JetStream: a stream for each topic, a durable pull consumer for each group (docs/spec/engines.md §5).

A record's offset is its sequence in the stream. Reading goes through short-lived consumers that acknowledge nothing, which the
next read of the same place uses again. NATS knows one time to acknowledge per group, so a lease that ends earlier is given back
by us.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from agentmesh.engines.base import CALL_TIMEOUT_S, RECORD_BYTES_MAX, Lease, Record, TopicSpec
from agentmesh.engines.nats_link import NatsLink, error_of
from agentmesh.engines.place import Place
from agentmesh.engines.refusals import unreachable, unsafe
from agentmesh.engines.topic_spec import check_spec
from agentmesh.errors import Full, LimitError, MeshError, NoRoute, RecordNotFound, StateError, UsageError
from agentmesh.net.tasks import TaskScope

if TYPE_CHECKING:
    from nats.aio.msg import Msg

KNOWN_S = 600
NAME_CHARS_MAX = 128
ACK_WAIT_S = 30.0
ACK_WAIT_S_MAX = 3_600.0
WAIT_S_MAX = 60.0
LIMIT_MAX = 1_024
TOPICS_MAX = 1_000
CURSORS_MAX = 256
SETTLED_MAX = 65_536
APPEND_TIMEOUT_S = 10.0
_CURSOR_S = 60
#: What headers add to a record.
_HEADER_BYTES = 1024
_PAUSE_S = 0.05
_NS = 1_000_000_000
_NO_STREAM, _NO_CONSUMER, _OVERLAP, _NAME_TAKEN, _OTHER_STREAM = 10059, 10014, 10065, 10058, 10060
_FULL = frozenset({10023, 10047, 10077})
_SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TOKEN = re.compile(r"\$JS\.ACK\.[A-Za-z0-9_.-]{1,400}")


class _Placed(NamedTuple):
    """Where a delivered message belongs: stream, consumer, how often it was delivered, sequence, time (ns)."""

    stream: str
    consumer: str
    tries: int
    offset: int
    time_ns: int


class NatsTopics:
    """``base.TopicStore`` on JetStream.

    Args:
        place: Servers, replicas, credentials, and the name that begins those of streams.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._link = NatsLink(place)
        self._is_open = False
        self._scope = TaskScope("nats-topics", tasks_max=4096)
        self._cursors: dict[tuple[str, int], str] = {}
        self._groups: dict[tuple[str, str], float] = {}
        self._settled: dict[str, None] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        return self._place.url

    async def open(self) -> None:
        """See ``TopicStore.open``. Raises ConfigError (code "engine.unsafe"), NoRoute."""
        await self._link.wire()
        if self._place.replicas == 1 and self._link.is_cluster:
            raise unsafe(self.url, "one replica in a cluster survives no server's death", "leave out ?replicas=1")
        if self._place.replicas > 1 and not self._link.is_cluster:
            raise unsafe(
                self.url,
                "it is a single server, which cannot survive its own death",
                "run three; or write ?replicas=1 if that is meant",
            )
        self._is_open = True

    # Topics

    async def create(self, spec: TopicSpec) -> None:
        """See ``TopicStore.create``."""
        check_spec(spec)
        await self._ready()
        config: dict[str, Any] = {
            "name": self._stream(spec.name),
            "subjects": [self._subject(one) for one in spec.subjects],
            "num_replicas": self._place.replicas,
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_msgs": spec.records_max,
            "max_bytes": spec.bytes_max,
            "max_age": spec.age_s_max * _NS,
            "max_msg_size": RECORD_BYTES_MAX + 4096,
            "duplicate_window": min(KNOWN_S, spec.age_s_max) * _NS,
            "allow_direct": False,
            "metadata": {"agentmesh.topic": json.dumps(spec)},
        }
        made = await self._link.ask(f"STREAM.CREATE.{config['name']}", config)
        if error_of(made)[0] == _NAME_TAKEN:
            made = await self._link.ask(f"STREAM.UPDATE.{config['name']}", config)
        code, why = error_of(made)
        if code == _OVERLAP:
            raise StateError(f"subjects of {spec.name!r} are kept by another topic already", code="topic.overlap")
        self._judge(code, why, spec.name)

    async def remove(self, name: str) -> bool:
        """See ``TopicStore.remove``."""
        await self._ready()
        answer = await self._link.ask(f"STREAM.DELETE.{self._stream(name)}")
        for table in (self._cursors, self._groups):
            for key in [key for key in table if key[0] == name]:
                del table[cast("Any", key)]
        if error_of(answer)[0] == _NO_STREAM:
            return False
        self._judge(*error_of(answer), name)
        return True

    async def topics(self) -> list[TopicSpec]:
        """See ``TopicStore.topics``."""
        await self._ready()
        found: list[TopicSpec] = []
        offset = 0
        while offset < TOPICS_MAX:
            page = await self._link.ask("STREAM.LIST", {"offset": offset, "subject": f"{self._place.name}.T.>"})
            self._judge(*error_of(page), "")
            streams = cast("list[dict[str, Any]]", page.get("streams") or [])
            for one in streams:
                found += _spec_of(one.get("config"))
            offset += len(streams)
            if not streams or offset >= int(page.get("total") or 0):
                break
        return sorted(found)

    # Appending

    async def append(self, topic: str, records: Sequence[tuple[str, bytes, str]]) -> list[int]:
        """See ``TopicStore.append``. Raises Timeout (code "engine.unknown_outcome"): some may be kept; their ids say which."""
        await self._ready()
        stream = self._stream(topic)
        items: list[tuple[str, bytes, dict[str, str]]] = []
        most = min(RECORD_BYTES_MAX, (await self._link.wire()).client.max_payload - _HEADER_BYTES)
        for subject, body, id_ in records:
            if len(body) > most or len(id_) > NAME_CHARS_MAX:
                raise LimitError(
                    f"a record of {len(body)} bytes, at most {most}",
                    code="topic.too_large",
                    why=None if most == RECORD_BYTES_MAX else f"more than the max_payload of {self.url}",
                )
            headers = {"Nats-Expected-Stream": stream, **({"Nats-Msg-Id": id_} if id_ else {})}
            items.append((self._subject(subject), body, headers))
        until = asyncio.get_running_loop().time() + CALL_TIMEOUT_S
        while True:
            try:
                answers = await self._link.request_many(items, timeout_s=APPEND_TIMEOUT_S)
                break
            except NoRoute:
                await self._state(topic)
                if asyncio.get_running_loop().time() > until:
                    raise
                self._link.suspect()
                await asyncio.sleep(_PAUSE_S)
        offsets: list[int] = []
        for answer in answers:
            code, why = error_of(answer)
            offset: Any = answer.get("seq")
            if code or not isinstance(offset, int) or offset < 1:
                self._judge(code or -1, why, topic)
            offsets.append(cast("int", offset))
        return offsets

    # Reading

    async def read(self, topic: str, offset: int, limit: int = 256, wait_s: float = 0.0) -> list[Record]:
        """See ``TopicStore.read``."""
        await self._ready()
        most, start = max(1, min(limit, LIMIT_MAX)), max(1, offset)
        cursor = self._cursors.pop((topic, start), None)
        messages: list[Msg] = []
        for _ in range(2):
            if cursor is None:
                policy = {"deliver_policy": "by_start_sequence", "opt_start_seq": start}
                cursor = await self._cursor(topic, policy)
            pulled = await self._pull(topic, cursor, most, wait_s)
            if pulled is not None:
                messages = pulled
                break
            cursor = None  # it ran out meanwhile
        records = [self._record(one) for one in messages]
        if cursor is not None:
            while len(self._cursors) >= CURSORS_MAX:
                del self._cursors[next(iter(self._cursors))]
            self._cursors[topic, records[-1].offset + 1 if records else start] = cursor
        return records

    async def offset_at(self, topic: str, ts_ms: int) -> int:
        """See ``TopicStore.offset_at``."""
        await self._ready()
        _, after = await self.bounds(topic)
        when = (
            datetime.fromtimestamp(min(max(0, ts_ms), 4_102_444_800_000) / 1000, UTC).isoformat().replace("+00:00", "Z")
        )
        cursor = await self._cursor(topic, {"deliver_policy": "by_start_time", "opt_start_time": when})
        messages = await self._pull(topic, cursor, 1, 0.0)
        return _placed(messages[0]).offset if messages else after

    async def bounds(self, topic: str) -> tuple[int, int]:
        """See ``TopicStore.bounds``."""
        await self._ready()
        state = await self._state(topic)
        after = int(state.get("last_seq") or 0) + 1
        return min(after, max(1, int(state.get("first_seq") or 1))), after

    async def groups(self, topic: str) -> dict[str, int]:
        """Return the consumer groups of a topic, and how many records wait for each: not handed out, or not done."""
        await self._ready()
        page = await self._link.ask(f"CONSUMER.LIST.{self._stream(topic)}")
        self._judge(*error_of(page), topic)
        found: dict[str, int] = {}
        for one in cast("list[dict[str, Any]]", page.get("consumers") or []):
            config = cast("dict[str, Any]", one.get("config") or {})
            if config.get("durable_name"):
                group = str(config.get("description") or config["durable_name"])
                found[group] = int(one.get("num_pending") or 0) + int(one.get("num_ack_pending") or 0)
        return dict(sorted(found.items()))

    # Consumer groups

    async def fetch(
        self,
        topic: str,
        group: str,
        member: str,
        *,
        limit: int = 16,
        wait_s: float = 0.0,
        ack_wait_s: float = ACK_WAIT_S,
    ) -> list[Lease]:
        """See ``TopicStore.fetch``."""
        if not 0 < len(group) <= NAME_CHARS_MAX or len(member) > NAME_CHARS_MAX:
            raise UsageError("a consumer group or member without a name, or with too long a one", code="topic.group")
        await self._ready()
        wait = max(0.05, min(ack_wait_s, ACK_WAIT_S_MAX))
        for _ in range(2):
            held_s = await self._group(topic, group, wait)
            messages = await self._pull(topic, _consumer(group), max(1, min(limit, LIMIT_MAX)), wait_s)
            if messages is not None:
                break
            self._groups.pop((topic, group), None)  # somebody deleted it
        else:
            return []
        leases: list[Lease] = []
        for one in messages:
            leases.append(Lease(self._record(one), one.reply, _placed(one).tries))
            if wait < held_s:
                loop = asyncio.get_running_loop()
                self._timers[one.reply] = loop.call_later(wait, self._run_out, topic, group, one.reply)
        return leases

    async def ack(self, topic: str, group: str, tokens: Sequence[str]) -> int:
        """See ``TopicStore.ack``; here a late one counts too, also if the record went to another member meanwhile."""
        return await self._settle(topic, group, tokens, b"+ACK")

    async def nack(self, topic: str, group: str, tokens: Sequence[str], delay_s: float = 0.0) -> int:
        """See ``TopicStore.nack``."""
        delay = int(max(0.0, min(delay_s, ACK_WAIT_S_MAX)) * _NS)
        return await self._settle(topic, group, tokens, b'-NAK {"delay": %d}' % delay if delay else b"-NAK")

    async def _settle(self, topic: str, group: str, tokens: Sequence[str], word: bytes) -> int:
        await self._ready()
        ours: list[tuple[str, bytes, dict[str, str]]] = []
        for token in dict.fromkeys(tokens):
            if token not in self._settled and self._is_token(topic, group, token):
                ours.append((token, word, {}))
        if not ours:
            return 0
        try:
            await self._link.request_many(ours, timeout_s=CALL_TIMEOUT_S, is_json=False)
        except NoRoute:
            await self._state(topic)
            info = await self._link.ask(f"CONSUMER.INFO.{self._stream(topic)}.{_consumer(group)}")
            if error_of(info)[0] == _NO_CONSUMER:
                return 0
            raise
        for token, _, _ in ours:
            self._close_lease(token)
        return len(ours)

    def _close_lease(self, token: str) -> None:
        timer = self._timers.pop(token, None)
        if timer is not None:
            timer.cancel()
        while len(self._settled) >= SETTLED_MAX:
            del self._settled[next(iter(self._settled))]
        self._settled[token] = None

    def _run_out(self, topic: str, group: str, token: str) -> None:
        self._timers.pop(token, None)
        if len(self._scope) < self._scope.tasks_max:  # else NATS gives it to another one a little later
            self._scope.spawn(self._give_back(topic, group, token), "give-back", quiet=True)

    async def _give_back(self, topic: str, group: str, token: str) -> None:
        try:
            await self.nack(topic, group, [token])
        except MeshError:
            return

    def _is_token(self, topic: str, group: str, token: str) -> bool:
        """Say whether it is a reply subject of that group's consumer: nothing else is ever published to."""
        if not _TOKEN.fullmatch(token):
            return False
        try:
            placed = _placed_of(token)
        except ValueError:
            return False
        return (placed.stream, placed.consumer) == (self._stream(topic), _consumer(group))

    async def _group(self, topic: str, group: str, ack_wait_s: float) -> float:
        """Make a group's consumer, or let it wait longer for acknowledgements; return how long it waits."""
        known = self._groups.get((topic, group))
        if known is not None and known >= ack_wait_s:
            return known
        name = _consumer(group)
        path = f"CONSUMER.CREATE.{self._stream(topic)}.{name}"
        if known is None:
            info = await self._link.ask(f"CONSUMER.INFO.{self._stream(topic)}.{name}")
            if not error_of(info)[0]:
                config = cast("dict[str, Any]", info.get("config") or {})
                known = float(config.get("ack_wait") or 0) / _NS
        if known is None or known < ack_wait_s:
            known = max(ACK_WAIT_S, ack_wait_s)
            config = {
                "name": name,
                "durable_name": name,
                "description": group,
                "deliver_policy": "all",
                "ack_policy": "explicit",
                "ack_wait": int(known * _NS),
                "max_deliver": -1,
                "max_ack_pending": 10_000,
            }
            made = await self._link.ask(path, {"stream_name": self._stream(topic), "config": config})
            self._judge(*error_of(made), topic)
        self._groups[topic, group] = known
        return known

    # What both kinds of reading share

    async def _cursor(self, topic: str, policy: dict[str, Any]) -> str:
        stream = self._stream(topic)
        name = self._link.fresh_name()
        config = {
            "name": name,
            **policy,
            "ack_policy": "none",
            "inactive_threshold": _CURSOR_S * _NS,
            "mem_storage": True,
            "num_replicas": 1,
        }
        made = await self._link.ask(f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config})
        self._judge(*error_of(made), topic)
        return name

    async def _pull(self, topic: str, consumer: str, limit: int, wait_s: float) -> list[Msg] | None:
        """Take what there is, waiting for the first if there is none; None: the consumer is gone."""
        loop = asyncio.get_running_loop()
        until = loop.time() + min(wait_s, WAIT_S_MAX)
        path = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream(topic)}.{consumer}"
        found = await self._link.pull(path, {"batch": limit, "no_wait": True}, limit, CALL_TIMEOUT_S)
        while found == [] and (left := until - loop.time()) > 0.01:
            # One only: a request for more would stay with the server, and take what then nobody hears of.
            found = await self._link.pull(path, {"batch": 1, "expires": int(left * _NS)}, 1, left + CALL_TIMEOUT_S)
            if found and limit > 1:
                more = await self._link.pull(path, {"batch": limit - 1, "no_wait": True}, limit - 1, CALL_TIMEOUT_S)
                found += more or []
        if found is None:
            await self._state(topic)
        return found

    async def _state(self, topic: str) -> dict[str, Any]:
        info = await self._link.ask(f"STREAM.INFO.{self._stream(topic)}")
        self._judge(*error_of(info), topic)
        return cast("dict[str, Any]", info.get("state") or {})

    async def _ready(self) -> None:
        if not self._is_open:
            await self.open()

    def _record(self, message: Msg) -> Record:
        placed = _placed(message)
        subject = message.subject.removeprefix(f"{self._place.name}.T.")
        return Record(placed.offset, placed.time_ns // 1_000_000, subject, message.data)

    def _judge(self, code: int, why: str, topic: str) -> None:
        """Raise what an error of JetStream means; 0 = none."""
        if not code:
            return
        if code in (_NO_STREAM, _NO_CONSUMER):
            raise RecordNotFound(f"no durable topic {topic[:80]!r} is kept on {self.url}", code="topic.unknown")
        if code == _OTHER_STREAM:
            raise UsageError(f"a subject that the topic {topic[:80]!r} does not keep", code="topic.subject")
        if code in _FULL:
            raise Full(f"{self.url} cannot keep it", code="engine.full", why=why, hint="nats stream report")
        raise unreachable(self.url, why)

    async def aclose(self) -> None:
        """See ``TopicStore.aclose``."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await self._scope.aclose()
        await self._link.aclose()

    def _stream(self, topic: str) -> str:
        return f"TOPIC_{self._place.name}_{topic if _SAFE.fullmatch(topic) else _digest(topic)}"

    def _subject(self, subject: str) -> str:
        return f"{self._place.name}.T.{subject}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _consumer(group: str) -> str:
    return f"g_{group}" if _SAFE.fullmatch(group) else f"x_{_digest(group)}"


def _spec_of(config: Any) -> list[TopicSpec]:
    """Return the topic that a stream was made for, if it was."""
    try:
        name, subjects, *limits = json.loads(config["metadata"]["agentmesh.topic"])
        return [TopicSpec(str(name), tuple(str(one) for one in subjects), *(int(one) for one in limits))]
    except (TypeError, KeyError, ValueError):
        return []


def _placed(message: Msg) -> _Placed:
    try:
        return _placed_of(message.reply)
    except ValueError as error:
        raise unreachable("nats", "a delivery that says not where it belongs") from error


def _placed_of(reply: str) -> _Placed:
    """Read ``$JS.ACK.STREAM.CONSUMER.TRIES.SEQ.SERIAL.TIME.PENDING``, or its longer form. Raises ValueError."""
    tokens = reply.split(".")
    first = 2 if len(tokens) == 9 else 4
    if len(tokens) < 9:
        raise ValueError(reply)
    try:
        return _Placed(
            tokens[first], tokens[first + 1], int(tokens[first + 2]), int(tokens[first + 3]), int(tokens[first + 5])
        )
    except IndexError as error:
        raise ValueError(reply) from error
