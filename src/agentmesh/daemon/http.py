"""The HTTP server of the daemon: uvicorn without its command line and without its signal handlers.

``import uvicorn`` also loads its command line with click, its reloader and multiprocessing: 2.3 MB that an idle daemon of
50 MB does not have to spare (measured, CPython 3.11). A ``uvicorn.main`` with nothing but the server class in its
place keeps them out; sse-starlette looks for that class there. Where uvicorn is already loaded nothing is done.

Likewise ``logging.config``, with sockets, pickle and configparser (0.8 MB): uvicorn needs it for a ``log_config``, and ours is
None. The stand-ins are gone once uvicorn is loaded, so whoever else wants these modules gets the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import types
from collections.abc import Generator
from typing import Any

from starlette.types import ASGIApp

_stub: types.ModuleType | None = None
if "uvicorn" not in sys.modules:
    _stub = types.ModuleType("uvicorn.main")
    _stub.__dict__.update(Server=None, main=None, run=None)
    sys.modules["uvicorn.main"] = _stub
_standing_in: list[str] = []
for _name, _members in (("logging.config", ()), ("configparser", ("RawConfigParser",))):
    if _stub is not None and _name not in sys.modules:
        _module = sys.modules[_name] = types.ModuleType(_name)
        _module.__dict__.update(dict.fromkeys(_members, type(None)))
        _standing_in.append(_name)

import uvicorn  # noqa: E402 after the stand-ins
from uvicorn.config import Config  # noqa: E402
from uvicorn.server import Server as _UvicornServer  # noqa: E402

for _name in _standing_in:
    del sys.modules[_name]
if _stub is not None:
    # Others (sse-starlette) take the server class from here.
    _stub.__dict__["Server"] = uvicorn.__dict__["Server"] = _UvicornServer

#: Largest frame of a WebSocket: a batch of messages.
SOCKET_FRAME_BYTES_MAX = 8 * 1024 * 1024
#: How long running requests get to end once the daemon was asked to stop, seconds.
_GRACE_S = 3
#: Connections of partners at once, and how long an idle one is kept, seconds.
_PARTNERS_AT_ONCE = 128
_PARTNER_KEEP_S = 15


class Server(_UvicornServer):
    """uvicorn without its signal handlers: the daemon has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals alone."""
        yield


def socket_protocol(**given: Any) -> asyncio.Protocol:
    """Return uvicorn's protocol for a WebSocket; its library loads with the first one."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol(**given)


def make_server(app: ASGIApp) -> Server:
    """Return a server for the application; ``serve(sockets)`` runs it until ``should_exit`` is set."""
    return Server(
        Config(
            app,  # pyright: ignore[reportArgumentType] both say ASGI, each with types of its own
            loop="none",
            http="httptools",
            ws=socket_protocol,  # pyright: ignore[reportArgumentType] called as the class would be
            ws_max_size=SOCKET_FRAME_BYTES_MAX,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
    )


def make_partner_server(app: ASGIApp, cert: str, key: str) -> Server:
    """Return the server for partners of other meshes, with TLS if there is a certificate.

    Args:
        app: Answers them.
        cert: PEM file with the chain, "" = plain HTTP.
        key: PEM file with its key, "" = in ``cert``.

    Raises:
        OSError: the files cannot be used.
    """
    config = Config(
        app,  # pyright: ignore[reportArgumentType] both say ASGI, each with types of its own
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=_PARTNERS_AT_ONCE,
        timeout_keep_alive=_PARTNER_KEEP_S,
        timeout_graceful_shutdown=_GRACE_S,
        ssl_certfile=cert or None,
        ssl_keyfile=key or None,
    )
    config.load()
    return Server(config)
