"""The daemon's HTTP server: light to load, and complete enough for the libraries that look at uvicorn."""

from __future__ import annotations

import subprocess
import sys


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_server_is_loaded_without_a_command_line_and_a_reloader() -> None:
    code = "import sys, agentmesh.daemon.http; print([m for m in ('click', 'multiprocessing') if m in sys.modules])"
    assert python(code) == "[]"


def test_event_streams_load_after_it_and_patch_the_real_server_class() -> None:
    code = (
        "import agentmesh.daemon.http, uvicorn, uvicorn.server; from sse_starlette.sse import EventSourceResponse; "
        "print(uvicorn.Server is uvicorn.server.Server)"
    )
    assert python(code) == "True"


def test_where_uvicorn_is_loaded_already_it_stays_whole() -> None:
    code = "import uvicorn, agentmesh.daemon.http; print(callable(uvicorn.run), callable(uvicorn.main))"
    assert python(code) == "True True"


def test_what_only_some_daemons_need_is_not_loaded_with_the_daemon() -> None:
    spared = [
        "agentmesh.adapters.a2a",
        "agentmesh.api.sockets",
        "agentmesh.sdk.agent",
        "agentmesh.sdk.client",
        "agentmesh.sdk.message_requests",
        "aiohttp",
        "configparser",
        "difflib",
        "logging.config",
        "logging.handlers",
        "pickle",
        "prometheus_client",
        "socketserver",
        "websockets",
    ]
    code = (
        "import sys, agentmesh.daemon.app; from agentmesh.daemon.http import make_server\n"
        "make_server(lambda scope, receive, send: None).config.load()\n"
        f"print([m for m in {spared} if m in sys.modules])"
    )
    assert python(code) == "[]"


def test_who_wants_a_module_that_a_stand_in_was_made_for_gets_the_real_one() -> None:
    code = (
        "import agentmesh.daemon.http, configparser, logging.config\n"
        "configparser.ConfigParser().read_string('[a]\\nb=1')\n"
        "logging.config.dictConfig({'version': 1})"
    )
    assert python(code) == ""
