"""Vectors from an OpenAI-compatible endpoint (``POST …/v1/embeddings``): Ollama, vLLM, llama.cpp, a cloud.

What the other side may do is bounded here: how long it takes, how much it sends, and that its vectors keep one length and are
vectors at all. After it hung or failed it is left alone for a while, so that searches go on without it.
"""

from __future__ import annotations

import http.client
import math
import os
import random
import re
import stat
import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from ipaddress import ip_address
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from agentmesh.embed.base import Dense, Role, Sparse
from agentmesh.embed.http_line import Answer, Line, TooLarge
from agentmesh.errors import Closed, ConfigError, DecodeError, MeshError, NoRoute, Timeout

#: Seconds: until there is a connection; for one batch of passages; for all of a batch, one by one; for a query.
CONNECT_S, BATCH_S, SINGLES_S, QUERY_S = 1.0, 5.0, 30.0, 1.5
#: Texts of one request, and the characters that are sent of each.
BATCH_TEXTS_MAX, TEXT_CHARS_MAX = 32, 8_192
#: What is tried with a text that the endpoint finds too long, in characters. A model may take no more than 512 tokens.
SHORTER_CHARS = (1_500, 400)
ANSWER_BYTES_MAX = 16 * 1024 * 1024
DIMS_MAX = 8_192
#: Tries of one request while the endpoint is busy (429) or broken (5xx), and the first wait between them, seconds.
TRIES_PASSAGE, TRIES_QUERY, BACKOFF_S = 4, 2, 0.2
#: How long an endpoint that does not answer is left alone, seconds: the first time, and at most (it doubles).
PAUSE_S, PAUSE_MAX_S = 5.0, 300.0
#: Environment variable with the API key; a key file comes first.
KEY_VARIABLE = "AGENTMESH_EMBEDDER_KEY"
_KEY_CHARS_MAX = 4_096
_REVISION = 1
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
_SAID_CHARS_MAX = 300

#: Models that were trained with words before a text, which those who publish them say to use: name, before a query, a passage.
_SENTENCE = "Represent this sentence for searching relevant passages: "
_INSTRUCT = "Instruct: Given a need, retrieve the description of an agent that can do it\nQuery: "
PREFIXES: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern), query, passage)
    for pattern, query, passage in (
        (r"\be5-.*instruct|qwen3-embedding", _INSTRUCT, ""),
        (r"\be5-", "query: ", "passage: "),
        (r"nomic-embed-text", "search_query: ", "search_document: "),
        (r"embeddinggemma", "task: search result | query: ", "title: none | text: "),
        (r"arctic-embed(2|.*-v2)", "query: ", ""),
        (r"mxbai-embed-large|arctic-embed|bge-.*-en\b", _SENTENCE, ""),
    )
)


_E = TypeVar("_E", bound=MeshError)


class Address(NamedTuple):
    """Where an endpoint is."""

    tls: bool
    host: str
    port: int
    path: str
    model: str


class _Item(msgspec.Struct):
    index: int
    embedding: list[float]


class _Vectors(msgspec.Struct):
    data: list[_Item]


class _Refused(Exception):
    """The endpoint took the request for wrong (400, 413, 422); the text is what it said."""


def parse_address(text: str) -> Address:
    """Read ``http(s)://host[:port][/path][#model]``; without a path it is ``/v1/embeddings``.

    Raises:
        ConfigError: "embed.address": no such address, or one with a password, which would end up in logs. No state changed.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
        host = parts.hostname or ""
    except ValueError as error:
        raise _bad_address(text, str(error)) from error
    if parts.scheme not in ("http", "https") or not host or not text.isprintable() or " " in text:
        raise _bad_address(text, "it is no http(s) address with a host")
    if parts.username is not None or parts.password is not None:
        raise _bad_address(
            parts.scheme + "://…", f"a key does not belong there; use embedder_key_file or {KEY_VARIABLE}"
        )
    if parts.query:
        raise _bad_address(text, "it has a query")
    if parts.fragment and not _MODEL.fullmatch(parts.fragment):
        raise _bad_address(text, f"{parts.fragment[:60]!r} is no name of a model")
    path = parts.path.rstrip("/")
    if not path.endswith("/embeddings"):
        path += "/embeddings" if re.search(r"/v\d+$", path) else "/v1/embeddings"
    tls = parts.scheme == "https"
    return Address(tls, host, port or (443 if tls else 80), path, parts.fragment)


def _bad_address(text: str, why: str) -> ConfigError:
    return ConfigError(
        f"{text[:160]!r} is no address of an embedding endpoint",
        code="embed.address",
        why=why,
        hint="write http://127.0.0.1:11434#nomic-embed-text, with the name of the model after #",
    )


def read_key(path: str, environ: Mapping[str, str]) -> str:
    """Return the API key from a file that only its owner can read, else from the environment; "" if there is none.

    Raises:
        ConfigError: "embed.key_file": unreadable, no file, open to others, or no key in it. The key is in no message.
    """
    if not path:
        key, source = environ.get(KEY_VARIABLE, ""), f"the environment variable {KEY_VARIABLE}"
    else:
        source = path
        try:
            # Without O_NONBLOCK a FIFO in its place would wait for ever.
            with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise _bad_key(path, "it is no file", f"ls -ld {path}")
                if status.st_mode & 0o077:
                    why = f"others can read it (mode {stat.S_IMODE(status.st_mode):04o})"
                    raise _bad_key(path, why, f"chmod 600 {path}")
                key = file.read(_KEY_CHARS_MAX + 2).decode("ascii", "replace")
        except OSError as error:
            raise _bad_key(path, error.strerror or str(error), f"ls -l {path}") from error
    key = key.strip()
    if not key and not path:
        return ""
    if not key or len(key) > _KEY_CHARS_MAX or not key.isascii() or not key.isprintable() or " " in key:
        raise _bad_key(
            source, "it holds no key: one word of printable ASCII", "agentmesh config explain embedder_key_file"
        )
    return key


def _bad_key(source: str, why: str, hint: str) -> ConfigError:
    return ConfigError(f"no API key can be taken from {source}", code="embed.key_file", why=why, hint=hint)


class Endpoint:
    """One model at one endpoint. Nothing is asked before the first text; several threads may use it.

    A query does not wait behind a batch of passages: each role has a connection of its own.

    Args:
        address: ``http(s)://host[:port][/path][#model]``.
        model: Its model, if the address names none.
        key: API key, "" for none; sent to nobody else and shown nowhere.
        dims: Length of its vectors if it is known from before; 0: that of the first answer.
        clock: Monotonic seconds.
        sleep: Waits between tries, seconds.

    Raises:
        ConfigError: "embed.address", "embed.endpoint_model" (no model is named), "embed.key_in_clear" (a key, but no TLS).
    """

    def __init__(
        self,
        address: str,
        *,
        model: str = "",
        key: str = "",
        dims: int = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parsed = parse_address(address)
        model = parsed.model or model
        if not _MODEL.fullmatch(model):
            raise ConfigError(
                f"no model is named for {address[:160]!r}",
                code="embed.endpoint_model",
                hint=f"agentmesh config set embedder {address.split('#')[0][:160]}#MODEL",
            )
        if key and not parsed.tls and not _is_loopback(parsed.host):
            raise ConfigError(
                f"the API key would go to {parsed.host} unencrypted",
                code="embed.key_in_clear",
                hint="use an https:// address, or a tunnel that ends on this machine",
            )
        self.name = address.split("#")[0] + "#" + model
        self._model, self._key, self._path, self._dims = model, key, parsed.path, dims
        self._clock, self._sleep = clock, sleep
        found = next((row for row in PREFIXES if row[0].search(model.lower())), None)
        self._prefix: dict[Role, str] = {"query": found[1] if found else "", "passage": found[2] if found else ""}
        self.version = f"endpoint-{sha256(f'{self.name}|{self._prefix}'.encode()).hexdigest()[:12]}-{_REVISION}"
        self._lines = {
            role: (threading.Lock(), Line(parsed.host, parsed.port, tls=parsed.tls, connect_s=CONNECT_S, clock=clock))
            for role in ("query", "passage")
        }
        self._failures = 0
        self._pause_until_s = -math.inf
        self._last_failure = ""
        self._closed = False

    @property
    def dims(self) -> int:
        """Length of its vectors; asks the endpoint if nobody knows yet. Raises as ``embed`` does."""
        if not self._dims:
            self.embed(["length"], "passage")
        return self._dims

    def embed(self, texts: Sequence[str], role: Role) -> list[Dense | Sparse]:
        """Return one vector of length 1 for each text; an empty text is not sent and gives zeros.

        Raises:
            ConfigError: the key, the address or the model is wrong for it ("embed.endpoint_key", "embed.endpoint_model",
                "embed.endpoint_refused").
            NoRoute: it cannot be reached, is busy or broken ("embed.endpoint_down", "embed.endpoint_busy").
            Timeout: it does not answer in time ("embed.endpoint_slow").
            DecodeError: what came is no answer ("embed.endpoint_answer"), or vectors of another length ("embed.dims").
            Closed: after ``close``.
        """
        sent = [index for index, text in enumerate(texts) if any(c.isprintable() and c != " " for c in text)]
        vectors: dict[int, Dense] = {}
        for begin in range(0, len(sent), BATCH_TEXTS_MAX):
            batch = sent[begin : begin + BATCH_TEXTS_MAX]
            found = self._batch([_clean(texts[index]) for index in batch], role)
            vectors.update(zip(batch, found, strict=True))
        zeros = array("f", bytes(4 * self.dims)) if len(sent) < len(texts) else array("f")
        return [vectors.get(index, zeros) for index in range(len(texts))]

    def close(self) -> None:
        """Close the connections, those in use once they are free. Idempotent."""
        self._closed = True
        for lock, line in self._lines.values():
            if lock.acquire(blocking=False):
                line.close()
                lock.release()

    def __repr__(self) -> str:
        return f"Endpoint({self.name!r})"

    # -- one request -------------------------------------------------------------------------------------------------

    def _batch(self, texts: list[str], role: Role) -> list[Dense]:
        try:
            return self._request(texts, role)
        except _Refused as error:
            if max(map(len, texts)) <= SHORTER_CHARS[-1]:
                raise self._refused(str(error)) from error
        # Perhaps one of them is too long for the model. Each alone, so that its vector does not depend on its neighbours.
        end_s = self._clock() + (QUERY_S if role == "query" else SINGLES_S)
        return [self._single(text, role, end_s) for text in texts]

    def _single(self, text: str, role: Role, end_s: float) -> Dense:
        said = ""
        for cut in (TEXT_CHARS_MAX, *SHORTER_CHARS):
            if cut < TEXT_CHARS_MAX and cut >= len(text):
                continue
            try:
                return self._request([text[:cut]], role, end_s)[0]
            except _Refused as error:
                said = str(error)
        raise self._refused(said)

    def _request(self, texts: list[str], role: Role, end_s: float = math.inf) -> list[Dense]:
        """Ask for one batch, again while the endpoint is busy and there is time."""
        end_s = min(end_s, self._clock() + (QUERY_S if role == "query" else BATCH_S))
        lock, line = self._lines[role]
        if not lock.acquire(timeout=max(0.0, end_s - self._clock())):
            raise Timeout(f"{self.name} is still busy with the question before", code="embed.endpoint_slow")
        try:
            self._check_pause()
            tries = TRIES_QUERY if role == "query" else TRIES_PASSAGE
            number = 0
            while True:
                number += 1
                answer = self._ask(line, texts, role, end_s)
                if answer.status != 429 and answer.status < 500:
                    break
                wait_s = answer.retry_after_s
                if wait_s is None:
                    wait_s = BACKOFF_S * 2 ** (number - 1) * (0.5 + random.random())  # noqa: S311 - no secret
                if number == tries or self._clock() + wait_s >= end_s:
                    raise self._down(
                        NoRoute(
                            f"{self.name} answers {answer.status}",
                            code="embed.endpoint_busy",
                            why=self._said(answer) or None,
                        ),
                        answer.retry_after_s,
                    )
                self._sleep(wait_s)
            vectors = self._read(answer, len(texts))
            self._failures = 0
            return vectors
        finally:
            if self._closed:
                line.close()
            lock.release()

    def _ask(self, line: Line, texts: list[str], role: Role, end_s: float) -> Answer:
        if self._closed:
            raise Closed("the endpoint was closed", code="embed.closed")
        prefix = self._prefix[role]
        body = msgspec.json.encode(
            {"model": self._model, "input": [prefix + text for text in texts], "encoding_format": "float"}
        )
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            return line.post(
                self._path, body, headers, within_s=max(0.001, end_s - self._clock()), bytes_max=ANSWER_BYTES_MAX
            )
        except TimeoutError as error:
            seconds = QUERY_S if role == "query" else BATCH_S
            late = Timeout(
                f"{self.name} did not answer within {seconds:g} s", code="embed.endpoint_slow", why=str(error)
            )
            raise self._down(late) from error
        except TooLarge as error:
            raise self._down(self._nonsense(f"it is larger than {ANSWER_BYTES_MAX // 1024**2} MB")) from error
        except http.client.HTTPException as error:
            raise self._down(self._nonsense(f"it is no HTTP: {type(error).__name__}")) from error
        except OSError as error:
            gone = NoRoute(
                f"{self.name} cannot be reached", code="embed.endpoint_down", why=error.strerror or str(error)[:200]
            )
            raise self._down(gone) from error

    def _read(self, answer: Answer, count: int) -> list[Dense]:
        """Return the vectors of an answer, each of length 1, in the order of the texts."""
        status = answer.status
        if status in (400, 413, 422):
            raise _Refused(self._said(answer))
        if status in (401, 403):
            raise ConfigError(
                f"{self.name} refuses the API key" if self._key else f"{self.name} wants an API key",
                code="embed.endpoint_key",
                why=self._said(answer) or None,
                hint="agentmesh config explain embedder_key_file",
            )
        if status == 404:
            raise ConfigError(
                f"{self.name}: there is no such model, or no embeddings under that address",
                code="embed.endpoint_model",
                why=self._said(answer) or None,
                hint="agentmesh config explain embedder",
            )
        if status != 200:
            raise self._down(self._nonsense(f"status {status}"))
        try:
            items = sorted(msgspec.json.decode(answer.body, type=_Vectors).data, key=lambda item: item.index)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise self._down(self._nonsense(str(error)[:200])) from error
        if [item.index for item in items] != list(range(count)):
            raise self._down(self._nonsense(f"{len(items)} vectors for {count} texts, or their numbers are wrong"))
        lengths = {len(item.embedding) for item in items}
        wanted = self._dims or len(items[0].embedding)
        if lengths != {wanted} or not 1 <= wanted <= DIMS_MAX:
            raise DecodeError(
                f"{self.name} sent vectors of {', '.join(map(str, sorted(lengths)))} numbers",
                code="embed.dims",
                why=f"{wanted} were agreed: it runs another model now"
                if self._dims
                else f"1 to {DIMS_MAX} are allowed",
                hint="agentmesh config explain embedder",
            )
        vectors = [self._unit(item.embedding) for item in items]
        self._dims = wanted
        return vectors

    def _unit(self, numbers: list[float]) -> Dense:
        length = math.hypot(*numbers)
        if not math.isfinite(length) or length < 1e-12:
            raise self._down(self._nonsense("a vector of zeros, or of what is no number"))
        return array("f", [number / length for number in numbers])

    # -- when it fails -----------------------------------------------------------------------------------------------

    def _check_pause(self) -> None:
        left_s = self._pause_until_s - self._clock()
        if left_s > 0:
            raise NoRoute(
                f"{self.name} is left alone for another {left_s:.0f} s",
                code="embed.endpoint_down",
                why=self._last_failure,
                extra={"retry_after_s": round(left_s, 3)},
            )

    def _down(self, error: _E, wait_s: float | None = None) -> _E:
        """Leave the endpoint alone for a while, longer each time, and return the error that says why."""
        self._failures = min(self._failures + 1, 16)
        pause_s = min(PAUSE_MAX_S, max(PAUSE_S * 2 ** (self._failures - 1), wait_s or 0.0))
        self._pause_until_s = self._clock() + pause_s
        self._last_failure = error.detail
        return error

    def _nonsense(self, why: str) -> DecodeError:
        return DecodeError(f"{self.name} sent what is no answer", code="embed.endpoint_answer", why=why)

    def _refused(self, said: str) -> ConfigError:
        return ConfigError(
            f"{self.name} refuses what we ask", code="embed.endpoint_refused", why=said or None, hint="agentmesh logs"
        )

    def _said(self, answer: Answer) -> str:
        """Return what an error answer says, fit for a log: short, printable, and without the key, should it echo that."""
        text = answer.body[: 4 * _SAID_CHARS_MAX].decode("utf-8", "replace")
        if self._key:
            text = text.replace(self._key, "…")
        return "".join(c if c.isprintable() else " " for c in text)[:_SAID_CHARS_MAX].strip()


def _clean(text: str) -> str:
    """Cut a text and replace what is no character."""
    return text[:TEXT_CHARS_MAX].encode("utf-8", "replace").decode()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
