"""The daemon's HTTP server: light to load, and complete enough for the libraries that look at uvicorn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


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
        "agentmesh.sdk.agent",
        "configparser",
        "difflib",
        "email.message",
        "html",
        "http.client",
        "logging.config",
        "logging.handlers",
        "pickle",
        "python_multipart",
        "tempfile",
        "prometheus_client",
        "socketserver",
    ]
    code = f"import sys, agentmesh.daemon.app; print([m for m in {spared} if m in sys.modules])"
    assert python(code) == "[]"


def test_who_wants_a_module_that_a_stand_in_was_made_for_gets_the_real_one() -> None:
    code = (
        "import agentmesh.daemon.app, configparser, logging.config, html.entities\n"
        "import starlette.formparsers, email.message, email.utils, http.client, starlette.exceptions, starlette.responses\n"
        "assert http.client.HTTPConnection and email.utils.parsedate('Mon, 01 Jan 2024 00:00:00 GMT')\n"
        "assert html.escape('<') == '&lt;' and starlette.formparsers.MultiPartParser\n"
        "configparser.ConfigParser().read_string('[a]\\nb=1')\n"
        "logging.config.dictConfig({'version': 1})"
    )
    assert python(code) == ""


def test_an_error_page_of_starlette_still_escapes() -> None:
    code = (
        "import agentmesh.api, starlette.middleware.errors as errors\n"
        "page = errors.ServerErrorMiddleware(None, debug=True).generate_html(ValueError('<i>'))\n"
        "print(errors.html.escape('<b>'), '&lt;i&gt;' in page)"
    )
    assert python(code) == "&lt;b&gt; True"


def test_what_stands_in_does_the_little_that_is_asked_of_it() -> None:
    code = (
        "import agentmesh.api, datetime\n"
        "from starlette.exceptions import HTTPException\n"
        "from starlette.responses import Response\n"
        "answer = Response()\n"
        "answer.set_cookie('a', 'b', expires=datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC))\n"
        "print(HTTPException(404).detail, '2030' in answer.headers['set-cookie'])"
    )
    assert python(code) == "Not Found True"


def test_a_library_that_needs_more_than_a_stand_in_has_is_loaded_whole(tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text("from colorsys import rgb_to_hls, rgb_to_hsv")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from agentmesh.api.standins import load_without, module_of\n"
        "load_without(('needy',), {'colorsys': module_of('colorsys', rgb_to_hls=None)})\n"
        "print('needy' in sys.modules, 'colorsys' in sys.modules)\n"
        "import needy; print(needy.rgb_to_hls is not None)"
    )
    assert python(code).split() == ["False", "False", "True"]
