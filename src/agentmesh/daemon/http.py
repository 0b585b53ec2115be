"""The HTTP server of the daemon: uvicorn without its command line and without its signal handlers.

``import uvicorn`` also loads its command line with click, its reloader and multiprocessing: 2.3 MB that an idle daemon of
50 MB does not have to spare (measured, CPython 3.11). A ``uvicorn.main`` with nothing but the server class in its
place keeps them out; sse-starlette looks for that class there. Where uvicorn is already loaded nothing is done.

Likewise ``logging.config``, with sockets, pickle and configparser, and ``email`` (1.3 MB): uvicorn needs them for a
``log_config`` and for ``Date`` headers, and ours are off.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Generator

from starlette.types import ASGIApp

from agentmesh.api.standins import load_without, module_of


def _no_date(*_: object, **__: object) -> str:
    """Stand in for ``email.utils.formatdate``, which uvicorn asks once a second for a header that is off."""
    return ""


_stub: types.ModuleType | None = None
if "uvicorn" not in sys.modules:
    _stub = types.ModuleType("uvicorn.main")
    _stub.__dict__.update(Server=None, main=None, run=None)
    sys.modules["uvicorn.main"] = _stub
load_without(
    ("uvicorn.config", "uvicorn.server"),
    {
        "email": module_of("email", __path__=[]),
        "email.utils": module_of("email.utils", formatdate=_no_date),
        "logging.config": module_of("logging.config"),
        "configparser": module_of("configparser", RawConfigParser=type(None)),
    },
)

import uvicorn  # noqa: E402 after the stand-ins
from uvicorn.config import Config  # noqa: E402
from uvicorn.server import Server as _UvicornServer  # noqa: E402

if _stub is not None:
    # Others (sse-starlette) take the server class from here.
    _stub.__dict__["Server"] = uvicorn.__dict__["Server"] = _UvicornServer

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


def make_server(app: ASGIApp) -> Server:
    """Return a server for the application; ``serve(sockets)`` runs it until ``should_exit`` is set."""
    return Server(
        Config(
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
