"""A small OpenAI-compatible embedding server of our own, on port 0, and the ways in which one may misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from hashlib import blake2b
from types import TracebackType
from typing import Any, NamedTuple

DIMS = 128
#: What this server knows of meaning: words that it takes for the same.
SAME = {"rental": "lease", "contract": "agreements", "unlawful": "forbids", "check": "reviews", "clauses": "terms"}


class Asked(NamedTuple):
    """One request as the server saw it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


#: Gets a request and the open socket; returns an answer to send, or None if it did what it wanted to do itself.
Behaviour = Callable[[Asked, socket.socket], bytes | None]


def vector_of(text: str) -> list[float]:
    """Return what the server makes of a text: its words, hashed into a few dimensions."""
    numbers = [0.001] * DIMS
    for word in text.lower().split():
        bare = "".join(char for char in word if char.isalnum())
        digest = blake2b(SAME.get(bare, bare).encode("utf-8", "replace"), digest_size=2).digest()
        numbers[int.from_bytes(digest, "big") % DIMS] += 1.0
    return numbers


def answer(status: int, body: bytes, **headers: str) -> bytes:
    """Return a whole HTTP answer."""
    lines = [
        f"HTTP/1.1 {status} X",
        f"Content-Length: {len(body)}",
        *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def vectors(found: list[list[Any]], numbers: list[Any] | None = None) -> bytes:
    """Return an answer that holds these vectors, numbered in their order or as given."""
    indices = numbers if numbers is not None else list(range(len(found)))
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in zip(indices, found, strict=True)]
    return answer(200, json.dumps({"object": "list", "data": data, "model": "m", "usage": {}}).encode())


def honest(asked: Asked, _sock: socket.socket) -> bytes:
    return vectors([vector_of(text) for text in asked.body["input"]])


class VectorServer:
    """The server. ``behaviour`` can be changed while it runs; ``asked`` holds every request."""

    def __init__(self, behaviour: Behaviour = honest, tls: ssl.SSLContext | None = None) -> None:
        self.behaviour = behaviour
        self.asked: list[Asked] = []
        self.connections = 0
        self.over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._tls = tls
        self.address = f"http{'s' if tls else ''}://127.0.0.1:{self.port}#m"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> VectorServer:
        self._threads[0].start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.over.set()
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(10)

    def texts(self) -> list[list[str]]:
        """Return the texts of every request."""
        return [asked.body["input"] for asked in self.asked]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self.over.is_set():
                sock, _ = self._listener.accept()
                self.connections += 1
                self._open.append(sock)
                thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._open.append(sock)
            for asked in self._requests(sock):
                self.asked.append(asked)
                said = self.behaviour(asked, sock)
                if said is None:
                    return
                sock.sendall(said)

    @staticmethod
    def _requests(sock: socket.socket) -> Iterator[Asked]:
        with sock.makefile("rb") as file:
            while line := file.readline():
                headers: dict[str, str] = {}
                while (header := file.readline().strip()) != b"":
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = json.loads(file.read(int(headers["content-length"])))
                yield Asked(line.split()[1].decode(), headers, body)
