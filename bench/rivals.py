"""The rivals of a call, each client → server in a process of its own, 1 KB in and out, on loopback.

``nats``: nats-py request/reply through a nats-server (client → server → responder). ``grpc``: grpc.aio unary, no proxy
between. ``python -m bench.rivals nats PORT`` and ``python -m bench.rivals grpc`` are the answering sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

BODY = b"x" * 1000
ANSWER = b"y" * 1000
METHOD = "/bench.Echo/Call"
Call = Callable[[], Awaitable[Any]]


def raw(value: bytes) -> bytes:
    """Serialise nothing: bytes go as they are."""
    return value


@contextlib.contextmanager
def process(argv: list[str], *, first_line: bool = True) -> Iterator[str]:
    """Run a process and give its first line of output; end it with the block."""
    child = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert child.stdout
    try:
        yield child.stdout.readline().strip() if first_line else ""
    finally:
        child.terminate()
        child.wait()
        child.stdout.close()


def free_port() -> int:
    """Return a port that is free now; the server binds it at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.asynccontextmanager
async def nats_call() -> AsyncIterator[Call]:
    """Yield one request/reply over NATS."""
    import nats

    port = free_port()
    server = str(Path(sys.executable).parent / "nats-server")
    with process([server, "-a", "127.0.0.1", "-p", str(port)], first_line=False):
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            await asyncio.sleep(0.05)
        with process([sys.executable, "-m", "bench.rivals", "nats", str(port)]):
            client = await nats.connect(f"nats://127.0.0.1:{port}")
            try:

                async def call() -> None:
                    assert (await client.request("echo", BODY, timeout=10)).data == ANSWER

                yield call
            finally:
                await client.close()


@contextlib.asynccontextmanager
async def grpc_call() -> AsyncIterator[Call]:
    """Yield one unary call over grpc.aio."""
    import grpc.aio

    with process([sys.executable, "-m", "bench.rivals", "grpc"]) as port:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            method = channel.unary_unary(METHOD, request_serializer=raw, response_deserializer=raw)

            async def call() -> None:
                assert await method(BODY, timeout=10) == ANSWER

            yield call


async def answer_nats(port: str) -> None:
    """Answer requests on the subject "echo" until killed."""
    import nats

    client = await nats.connect(f"nats://127.0.0.1:{port}")

    async def reply(message: Any) -> None:
        await message.respond(ANSWER)

    await client.subscribe("echo", cb=reply)
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def answer_grpc() -> None:
    """Answer unary calls until killed."""
    import grpc
    import grpc.aio

    async def echo(request: bytes, context: Any) -> bytes:
        return ANSWER

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(echo, request_deserializer=raw, response_serializer=raw)
    service, name = METHOD[1:].split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(answer_nats(sys.argv[2]) if sys.argv[1] == "nats" else answer_grpc())
