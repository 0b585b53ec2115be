"""An embedding endpoint may hang, lie, flood and change: it costs one query, and what it says is believed only if it fits."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.embed import endpoint as endpoint_module
from agentmesh.embed.endpoint import Endpoint, parse_address, read_key
from agentmesh.errors import Closed, ConfigError, DecodeError, NoRoute, Timeout
from tests.support.authority import Authority, write_files
from tests.support.vectors import DIMS, Asked, VectorServer, answer, honest, vector_of, vectors


class Clock:
    """Time that passes when somebody sleeps, and when told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def server() -> Iterator[VectorServer]:
    with VectorServer() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def endpoint(server: VectorServer, clock: Clock) -> Iterator[Endpoint]:
    opened = Endpoint(server.address, clock=clock, sleep=clock.sleep)
    yield opened
    opened.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make waiting short, for those who wait in real time."""
    monkeypatch.setattr(endpoint_module, "QUERY_S", 0.25)
    monkeypatch.setattr(endpoint_module, "BATCH_S", 0.25)
    monkeypatch.setattr(endpoint_module, "CONNECT_S", 0.25)


# -- addresses and keys -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("http://127.0.0.1:11434#nomic-embed-text", (False, "127.0.0.1", 11434, "/v1/embeddings", "nomic-embed-text")),
        ("http://127.0.0.1:11434/v1/#a/b:c", (False, "127.0.0.1", 11434, "/v1/embeddings", "a/b:c")),
        ("https://host.test/base", (True, "host.test", 443, "/base/v1/embeddings", "")),
        ("https://host.test/x/embeddings#m", (True, "host.test", 443, "/x/embeddings", "m")),
        ("http://[::1]:80/v2#m", (False, "::1", 80, "/v2/embeddings", "m")),
    ],
)
def test_an_address_is_read_as_people_write_it(text: str, want: tuple[Any, ...]) -> None:
    assert parse_address(text) == want


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://",
        "ftp://h#m",
        "http://h:99999#m",
        "http://u:secret@h#m",
        "http://h?k=1#m",
        "http://h\n#m",
        "http://[::1#m",
        "http://h#m n",
    ],
)
def test_what_is_no_address_is_refused_and_a_password_in_it_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert caught.value.code == "embed.address"
    assert "secret" not in json.dumps(caught.value.to_dict())


@given(text=st.text(max_size=60))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for one in (text, "http://" + text, "https://h#" + text):
        with contextlib.suppress(ConfigError):
            assert parse_address(one).host


def test_a_model_must_be_named_in_the_address_or_beside_it() -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint("http://127.0.0.1:1")
    assert caught.value.code == "embed.endpoint_model"
    one = Endpoint("http://127.0.0.1:1", model="a")
    assert one.name == "http://127.0.0.1:1#a"
    assert one.version == Endpoint("http://127.0.0.1:1#a").version
    assert one.version != Endpoint("http://127.0.0.1:1#b").version


def test_a_key_comes_from_a_private_file_or_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sk-abc\n")
    path.chmod(0o600)
    assert read_key(str(path), {"AGENTMESH_EMBEDDER_KEY": "other"}) == "sk-abc"
    assert read_key("", {"AGENTMESH_EMBEDDER_KEY": "sk-env"}) == "sk-env"
    assert read_key("", {}) == ""


@pytest.mark.parametrize("content", ["", "two words", "schlüssel", "a\nb", "x" * 5000])
def test_a_file_without_a_key_is_refused_without_showing_it(content: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        read_key(str(path), {})
    assert caught.value.code == "embed.key_file"
    assert not content or content not in json.dumps(caught.value.to_dict())


def test_a_key_that_others_can_read_or_that_is_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sk-abc")
    path.chmod(0o644)
    os.mkfifo(tmp_path / "fifo", 0o600)
    for wrong in (path, tmp_path / "fifo", tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError) as caught:
            read_key(str(wrong), {})
        assert caught.value.code == "embed.key_file"
        assert "sk-abc" not in json.dumps(caught.value.to_dict())


def test_a_key_never_leaves_this_machine_unencrypted() -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint("http://192.0.2.1#m", key="sk-abc")
    assert caught.value.code == "embed.key_in_clear"
    assert "sk-abc" not in repr(Endpoint("https://192.0.2.1#m", key="sk-abc"))
    assert Endpoint("http://localhost:1#m", key="sk-abc")


def test_an_error_that_repeats_the_key_is_shown_without_it(server: VectorServer) -> None:
    server.behaviour = lambda asked, _sock: answer(
        401, asked.headers["authorization"].encode() + b"\x1b[31m\n" + b"x" * 999
    )
    with pytest.raises(ConfigError) as caught:
        Endpoint(server.address, key="sk-abc").embed(["x"], "query")
    assert caught.value.code == "embed.endpoint_key"
    assert "Bearer …" in (caught.value.why or "")
    assert "\x1b" not in (caught.value.why or "")
    assert len(caught.value.why or "") <= 300


# -- how it asks ------------------------------------------------------------------------------------------------------


def test_texts_go_out_in_batches_over_one_connection_and_vectors_come_back_in_order(
    server: VectorServer, endpoint: Endpoint
) -> None:
    def shuffled(asked: Asked, _sock: socket.socket) -> bytes:
        found = [vector_of(text) for text in asked.body["input"]]
        return vectors(found[::-1], list(range(len(found)))[::-1])

    server.behaviour = shuffled
    texts = [f"text number {n}" for n in range(70)]
    found = endpoint.embed(texts, "passage")
    assert [len(batch) for batch in server.texts()] == [32, 32, 6]
    assert server.connections == 1
    for text, vector in zip(texts, found, strict=True):
        want = vector_of(text)
        norm = sum(x * x for x in want) ** 0.5
        assert list(vector) == pytest.approx([x / norm for x in want], abs=1e-6)  # pyright: ignore
    asked = server.asked[0]
    assert (asked.path, asked.body["model"], asked.body["encoding_format"]) == ("/v1/embeddings", "m", "float")
    assert "authorization" not in asked.headers


def test_empty_texts_are_not_sent_and_get_zeros(server: VectorServer, endpoint: Endpoint) -> None:
    found = endpoint.embed(["", "word", " \n", "\x00", "\u200b"], "query")
    assert server.texts() == [["word"]]
    assert [any(vector) for vector in found] == [False, True, False, False, False]
    assert {len(vector) for vector in found} == {DIMS}


def test_the_length_is_asked_for_once_and_known_from_then_on(server: VectorServer, endpoint: Endpoint) -> None:
    assert (endpoint.dims, endpoint.dims) == (DIMS, DIMS)
    assert len(server.asked) == 1
    assert Endpoint("http://127.0.0.1:1#m", dims=7).dims == 7


@pytest.mark.parametrize(
    ("model", "query", "passage"),
    [
        ("nomic-embed-text:v1.5", "search_query: x", "search_document: x"),
        ("intfloat/multilingual-e5-large", "query: x", "passage: x"),
        ("mxbai-embed-large", "Represent this sentence for searching relevant passages: x", "x"),
        ("BAAI/bge-m3", "x", "x"),
        ("all-minilm", "x", "x"),
    ],
)
def test_models_that_want_words_before_a_text_get_them(
    server: VectorServer, model: str, query: str, passage: str
) -> None:
    opened = Endpoint(f"http://127.0.0.1:{server.port}#{model}")
    opened.embed(["x"], "query")
    opened.embed(["x"], "passage")
    assert server.texts() == [[query], [passage]]


def test_a_connection_that_the_server_closed_meanwhile_is_opened_again(
    server: VectorServer, endpoint: Endpoint
) -> None:
    def once(asked: Asked, sock: socket.socket) -> None:
        sock.sendall(honest(asked, sock))

    server.behaviour = once
    for _ in range(3):
        assert any(endpoint.embed(["x"], "query")[0])
    assert server.connections == 3


def test_a_text_too_long_for_the_model_is_shortened_alone(server: VectorServer, endpoint: Endpoint) -> None:
    def strict(asked: Asked, sock: socket.socket) -> bytes:
        if any(len(text) > 1_600 for text in asked.body["input"]):
            return answer(400, b'{"error": "input length exceeds context length"}')
        return honest(asked, sock)

    server.behaviour = strict
    long = "word " * 2_000
    found = endpoint.embed(["short one", long], "passage")
    assert list(found[0]) == list(endpoint.embed(["short one"], "passage")[0])
    assert list(found[1]) == list(endpoint.embed([long], "passage")[0])
    assert max(len(text) for batch in server.texts() for text in batch) <= 8_192
    server.behaviour = lambda _asked, _sock: answer(422, b"no")
    with pytest.raises(ConfigError) as caught:
        endpoint.embed([long], "passage")
    assert caught.value.code == "embed.endpoint_refused"


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[VectorServer, Path]]:
    """A server that speaks TLS, and the file of the CA that vouches for it."""
    authority = Authority()
    here = x509.IPAddress(ip_address("127.0.0.1"))
    files = write_files(tmp_path, authority.issue("localhost", sans=(here,)), authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    with VectorServer(tls=context) as running:
        yield running, files.ca


def test_a_key_goes_to_a_server_whose_certificate_holds(
    guarded: tuple[VectorServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, ca = guarded
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    endpoint = Endpoint(server.address, key="sk-abc")
    assert any(endpoint.embed(["x"], "query")[0])
    assert any(endpoint.embed(["y"], "query")[0])
    endpoint.close()
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer sk-abc"] * 2
    assert server.connections == 1


def test_a_server_whose_certificate_does_not_hold_hears_nothing(guarded: tuple[VectorServer, Path]) -> None:
    server, _ = guarded
    with pytest.raises(NoRoute) as caught:
        Endpoint(server.address, key="sk-abc").embed(["x"], "query")
    assert "certificate" in (caught.value.why or "").lower()
    assert server.asked == []


def test_a_handshake_that_never_ends_costs_one_query(hasty: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = Endpoint(f"https://127.0.0.1:{silent.getsockname()[1]}#m")
        with pytest.raises(Timeout):
            endpoint.embed(["x"], "query")
        with pytest.raises(NoRoute):
            endpoint.embed(["x"], "query")


# -- when it misbehaves -----------------------------------------------------------------------------------------------


def says(body: bytes) -> Callable[[Asked, socket.socket], bytes]:
    return lambda _asked, _sock: answer(200, body)


def closes(whole: bytes) -> Callable[[Asked, socket.socket], None]:
    return lambda _asked, sock: sock.sendall(whole)


def holds(*found: list[Any], numbers: list[Any] | None = None) -> Callable[[Asked, socket.socket], bytes]:
    return lambda _asked, _sock: vectors(list(found), numbers)


@pytest.mark.parametrize(
    "behaviour",
    [
        says(b""),
        says(b"<html>"),
        says(b"null"),
        says(b'{"data": null}'),
        says(b'{"data": []}'),
        says(b'{"data": [{"embedding": [1]}]}'),
        says(b'{"data": [{"index": 0, "embedding": "AAAA"}]}'),
        says(b'{"data": [{"index": 0, "embedding": [NaN]}]}'),
        says(b'{"data": [{"index": 0, "embedding": [1e999]}]}'),
        says(b'{"data": [{"index": 0, "embedding": [true]}]}'),
        says(b'{"data": [{"index": 0, "embed\x80ding": [1]}]}'),
        says(b"[" * 100_000),
        holds([0.0, 0.0]),
        holds([1e-300, 1e-300]),
        holds([1.0], [1.0]),
        holds([1.0], numbers=[1]),
        holds([1.0], [1.0], numbers=[0, 0]),
        lambda _asked, _sock: answer(302, b"", Location="http://127.0.0.1:1/"),
        lambda _asked, _sock: answer(204, b""),
        closes(b"HTTP/1.1 200 X\r\nContent-Length: x\r\n\r\n{}"),
        closes(b"HTTP/1.1 200 X\r\n\r\n{}"),
        closes(b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\n{}"),
        lambda _asked, _sock: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\n",
        lambda _asked, _sock: b"HTTP/1.1 200 X\r\n" + b"A: b\r\n" * 1_000 + b"\r\n",
        lambda _asked, _sock: b"HTTP/1.1 200 X\r\nA: " + b"b" * 100_000,
        lambda _asked, _sock: b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_answer_is_refused_and_the_endpoint_left_alone(
    behaviour: Any, server: VectorServer, endpoint: Endpoint, clock: Clock
) -> None:
    server.behaviour = behaviour
    with pytest.raises(DecodeError) as caught:
        endpoint.embed(["x"], "query")
    assert caught.value.code == "embed.endpoint_answer"
    with pytest.raises(NoRoute) as pause:
        endpoint.embed(["x"], "query")
    assert pause.value.code == "embed.endpoint_down"
    assert len(server.asked) == 1
    clock.now += 6
    server.behaviour = honest
    assert any(endpoint.embed(["x"], "query")[0])


def test_vectors_keep_the_length_of_the_first_answer(server: VectorServer, endpoint: Endpoint) -> None:
    endpoint.embed(["x"], "passage")
    server.behaviour = holds([1.0, 2.0])
    with pytest.raises(DecodeError) as caught:
        endpoint.embed(["x"], "query")
    assert caught.value.code == "embed.dims"
    assert str(DIMS) in (caught.value.why or "")
    assert endpoint.dims == DIMS


@pytest.mark.parametrize("found", [[[1.0], [1.0, 1.0]], [[], []], [[1.0] * 8_193] * 2])
def test_vectors_of_unlike_or_absurd_length_are_refused(
    found: list[list[float]], server: VectorServer, endpoint: Endpoint
) -> None:
    server.behaviour = holds(*found)
    with pytest.raises(DecodeError) as caught:
        endpoint.embed(["x", "y"], "query")
    assert caught.value.code == "embed.dims"
    server.behaviour = honest
    assert endpoint.dims == DIMS


@pytest.mark.parametrize("announced", [True, False])
def test_a_flood_is_cut_off(announced: bool, server: VectorServer, endpoint: Endpoint) -> None:
    sent: list[int] = []

    def flood(_asked: Asked, sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 X\r\n" + (b"Content-Length: 1073741824\r\n" if announced else b"") + b"\r\n")
        block = b'{"data": [' + b" " * 1_000_000
        for _ in range(1_074):
            sock.sendall(block)
            sent.append(len(block))

    server.behaviour = flood
    with pytest.raises(DecodeError) as caught:
        endpoint.embed(["x"], "query")
    assert "larger than 16 MB" in (caught.value.why or "")
    assert sum(sent) < 64 * 1024 * 1024


def hangs(server: VectorServer) -> Callable[[Asked, socket.socket], None]:
    return lambda _asked, _sock: (server.over.wait(30), None)[1]


def drips(server: VectorServer, head: bytes) -> Callable[[Asked, socket.socket], None]:
    """Send a byte now and then, so that no single wait is long."""

    def drip(_asked: Asked, sock: socket.socket) -> None:
        sock.sendall(head)
        while not server.over.wait(0.02):
            sock.sendall(b"1")

    return drip


@pytest.mark.parametrize(
    "how", ["hangs", "drips a header", "drips a body", "drips a status", "never stops to continue"]
)
def test_an_endpoint_that_hangs_costs_one_query(how: str, server: VectorServer, hasty: None) -> None:
    head = {
        "drips a header": b"HTTP/1.1 200 X\r\nA: ",
        "drips a body": b"HTTP/1.1 200 X\r\n\r\n",
        "drips a status": b"HTTP/",
    }

    def continues(_asked: Asked, sock: socket.socket) -> None:
        while not server.over.wait(0.02):
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    server.behaviour = hangs(server) if how == "hangs" else drips(server, head[how]) if how in head else continues
    endpoint = Endpoint(server.address)
    with pytest.raises(Timeout) as caught:
        endpoint.embed(["x"], "query")
    assert caught.value.code == "embed.endpoint_slow"
    for role in ("query", "passage", "query"):
        with pytest.raises(NoRoute) as pause:
            endpoint.embed(["x"], role)
        assert pause.value.extra["retry_after_s"] > 0
    assert len(server.asked) == 1


def test_a_name_that_nobody_answers_for_costs_one_query(monkeypatch: pytest.MonkeyPatch, hasty: None) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: over.wait(30) and [])
    endpoint = Endpoint("http://name.test#m")
    try:
        with pytest.raises(Timeout):
            endpoint.embed(["x"], "query")
        with pytest.raises(NoRoute):
            endpoint.embed(["x"], "query")
    finally:
        over.set()


def test_an_endpoint_that_is_not_there_is_left_alone_longer_each_time(clock: Clock) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}#m"
    endpoint = Endpoint(address, clock=clock, sleep=clock.sleep)
    pauses: list[float] = []
    for _ in range(10):
        with pytest.raises(NoRoute) as caught:
            endpoint.embed(["x"], "query")
        assert "retry_after_s" not in caught.value.extra
        with pytest.raises(NoRoute) as caught:
            endpoint.embed(["x"], "query")
        pauses.append(caught.value.extra["retry_after_s"])
        clock.now += pauses[-1] + 0.1
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300, 300]


def busy(times: int, status: int, **headers: str) -> Callable[[Asked, socket.socket], bytes]:
    left = [times]

    def behave(asked: Asked, sock: socket.socket) -> bytes:
        left[0] -= 1
        return answer(status, b"later", **headers) if left[0] >= 0 else honest(asked, sock)

    return behave


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again_with_growing_waits(
    status: int, server: VectorServer, endpoint: Endpoint, clock: Clock
) -> None:
    server.behaviour = busy(3, status)
    assert any(endpoint.embed(["x"], "passage")[0])
    assert len(clock.slept) == 3
    for number, wait_s in enumerate(clock.slept):
        assert 0.1 * 2**number <= wait_s <= 0.3 * 2**number


def test_a_query_is_tried_twice_and_no_more(server: VectorServer, endpoint: Endpoint, clock: Clock) -> None:
    server.behaviour = busy(99, 503)
    with pytest.raises(NoRoute) as caught:
        endpoint.embed(["x"], "query")
    assert caught.value.code == "embed.endpoint_busy"
    assert caught.value.why == "later"
    assert len(server.asked) == 2


def test_who_asks_to_be_left_alone_is(server: VectorServer, endpoint: Endpoint, clock: Clock) -> None:
    server.behaviour = busy(1, 429, Retry_After="1")
    assert any(endpoint.embed(["x"], "query")[0])
    assert clock.slept == [1.0]
    server.behaviour = busy(1, 429, Retry_After="60")
    with pytest.raises(NoRoute):
        endpoint.embed(["x"], "query")
    assert clock.slept == [1.0]
    clock.now += 59
    with pytest.raises(NoRoute) as caught:
        endpoint.embed(["x"], "query")
    assert caught.value.code == "embed.endpoint_down"
    clock.now += 2
    assert any(endpoint.embed(["x"], "query")[0])


def test_a_wrong_model_names_what_the_endpoint_said(server: VectorServer, endpoint: Endpoint) -> None:
    server.behaviour = lambda _asked, _sock: answer(404, b'{"error": {"message": "model \\"m\\" not found"}}')
    with pytest.raises(ConfigError) as caught:
        endpoint.embed(["x"], "query")
    assert caught.value.code == "embed.endpoint_model"
    assert "not found" in (caught.value.why or "")


def test_a_query_does_not_wait_behind_passages(server: VectorServer) -> None:
    came, go = threading.Event(), threading.Event()

    def slow_passages(asked: Asked, sock: socket.socket) -> bytes:
        if asked.body["input"] == ["passage"]:
            came.set()
            go.wait(30)
        return honest(asked, sock)

    server.behaviour = slow_passages
    endpoint = Endpoint(server.address)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(endpoint.embed(["passage"], "passage")))
    thread.start()
    try:
        assert came.wait(10)
        assert any(endpoint.embed(["query"], "query")[0])
        assert found == []
        endpoint.close()
    finally:
        go.set()
        thread.join(10)
    assert len(found) == 1
    with pytest.raises(Closed):
        endpoint.embed(["x"], "query")


@given(body=st.binary(max_size=300))
def test_any_answer_is_vectors_or_an_error_of_ours(body: bytes) -> None:
    endpoint = Endpoint("http://127.0.0.1:1#m")
    with contextlib.suppress(DecodeError):
        assert len(endpoint._read(endpoint_module.Answer(200, None, body), 1)) == 1  # pyright: ignore[reportPrivateUsage]
