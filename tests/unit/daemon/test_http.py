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
