"""What the daemon serves of the console without a credential: its files and nothing else, with the headers that fence it in."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from agentmesh.api.access import Access
from agentmesh.api.console.files import FILE_BYTES_MAX, TYPES, Files
from agentmesh.api.console.pages import ENTER_JS
from agentmesh.api.console.sessions import Sessions
from tests.api.node_double import FakeBackend
from tests.api.serving import TOKEN, Answer, SessionsKept, Shelf, ask_app, build, serving

HOST = (b"host", b"127.0.0.1:6374")
INDEX = b'<!doctype html><script type="module" src="/assets/index-a1B2.js"></script>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A build, with things around it that nobody must get."""
    static = tmp_path / "static"
    (static / "assets" / "deep").mkdir(parents=True)
    (static / "index.html").write_bytes(INDEX)
    (static / "icon.svg").write_bytes(b"<svg/>")
    (static / "build.json").write_bytes(b"{}")
    (static / "assets" / "index-a1B2.js").write_bytes(b"export {}")
    (static / "assets" / "page-9.css").write_bytes(b"a{}")
    (static / "assets" / ".hidden.js").write_bytes(b"hidden")
    (static / "assets" / "notes.txt").write_bytes(b"text")
    (static / "assets" / "deep" / "x.js").write_bytes(b"deep")
    (tmp_path / "api.token").write_bytes(b"secret")
    (tmp_path / "secret.js").write_bytes(b"secret")
    return static


async def ask(folder: Path, path: str, *headers: tuple[bytes, bytes], method: str = "GET") -> Answer:
    return await ask_app(build(FakeBackend(), console=folder), method, path, headers=[HOST, *headers])


async def test_the_page_and_its_parts_come_with_their_types_and_may_be_kept_as_long_as_they_hold(folder: Path) -> None:
    index = await ask(folder, "/")
    assert (index.status, index.body, index.headers["content-type"]) == (200, INDEX, TYPES[".html"])
    assert index.headers["cache-control"] == "no-cache"
    script = await ask(folder, "/assets/index-a1B2.js")
    assert (script.body, script.headers["content-type"]) == (b"export {}", "text/javascript; charset=utf-8")
    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (await ask(folder, "/icon.svg")).headers["content-type"] == "image/svg+xml"
    for path, first in (("/", index), ("/assets/index-a1B2.js", script)):
        etag = first.headers["etag"].encode()
        for held in (etag, b'"other", W/' + etag):
            again = await ask(folder, path, (b"if-none-match", held))
            assert (again.status, again.body, "content-length" in again.headers) == (304, b"", False)
        assert (await ask(folder, path, (b"if-none-match", b'"other"'))).status == 200
        head = await ask(folder, path, method="HEAD")
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(first.body)))


async def test_every_answer_fences_the_page_in(folder: Path) -> None:
    for path in ("/", "/assets/index-a1B2.js", "/assets/none.js", "/console/login", "/console/enter.js", "/console/x"):
        answer = await ask(folder, path)
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'", path
        assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == policy["worker-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert not re.search("unsafe|http|\\*|blob:", answer.headers["content-security-policy"])
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../../secret.js", "/assets/..", "/assets/%2e%2e/secret.js", "/assets/..%2f..%2fsecret.js", "/assets/",
        "/assets/deep/x.js", "/assets/.hidden.js", "/assets/notes.txt", "/assets/index-a1B2.js\x00.js",
        "/assets/index-a1B2.js/", "/assets//index-a1B2.js", "/assets/" + "a" * 200 + ".js", "/assets/\u202e.js",
        "/assets/C:\\x.js", "/assets/index-A1B2.js", "/build.json", "/index.html", "/static/index.html", "/secret.js",
        "/../secret.js", "/./icon.svg", "/ICON.SVG",
    ],
)  # fmt: skip
async def test_no_spelling_of_a_path_leads_to_another_file(folder: Path, path: str) -> None:
    answer = await ask(folder, path)
    assert answer.status in (401, 404), answer
    assert b"secret" not in answer.body
    assert Files(folder).read(path) is None or path == "/index.html" or path == "/build.json"


async def test_no_request_over_a_socket_leaves_the_folder(folder: Path) -> None:
    async with serving(console=folder) as served:
        for target in ("/assets/../../secret.js", "/assets/%2e%2e/%2e%2e/secret.js", "/assets/..%5c..%5csecret.js"):
            answer = await served.ask("GET", target, headers={"Authorization": ""})
            assert answer.status in (401, 404)
            assert b"secret" not in answer.body
        assert (await served.ask("GET", "/", headers={"Authorization": ""})).body == INDEX


async def test_neither_a_huge_file_nor_a_folder_is_sent(folder: Path) -> None:
    os.truncate(_made(folder / "assets" / "huge.js"), FILE_BYTES_MAX + 1)
    assert (await ask(folder, "/assets/huge.js")).status == 404
    (folder / "assets" / "folder.js").mkdir()
    assert (await ask(folder, "/assets/folder.js")).status == 404


def _made(path: Path) -> Path:
    path.touch()
    return path


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_the_files_are_only_read(folder: Path, method: str) -> None:
    answer = await ask(folder, "/", method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_the_old_addresses_of_the_console_lead_to_its_one_place(folder: Path) -> None:
    for path in ("/console", "/console/", "/console/runs/last"):
        answer = await ask(folder, path)
        assert (answer.status, answer.headers["location"]) == (303, "/")


async def test_an_installation_without_the_build_says_how_to_make_it_in_both_languages(tmp_path: Path) -> None:
    answer = await ask(tmp_path, "/")
    assert (answer.status, answer.headers["cache-control"]) == (503, "no-store")
    text = answer.body.decode()
    assert "npm run build" in text
    assert 'lang="zh-CN"' in text
    assert "<script" not in text


async def test_who_is_not_logged_in_reads_which_command_to_run_and_who_is_gets_the_page(folder: Path) -> None:
    sessions = Sessions(SessionsKept)
    app = build(FakeBackend(), console=folder, access=Access(TOKEN, Shelf(), sessions=sessions))
    typed = (b"sec-fetch-site", b"none")
    answer = await ask_app(app, "GET", "/", headers=[HOST, typed])
    assert (answer.status, b"agentmesh console" in answer.body, b"<script" in answer.body) == (401, True, False)
    assert "尚未登录" in answer.body.decode()
    entered = sessions.enter(sessions.code())
    cookie = (b"cookie", f"agentmesh_6374={entered.cookie}".encode())
    assert (await ask_app(app, "GET", "/", headers=[HOST, typed, cookie])).body == INDEX
    wrong = (b"cookie", b"agentmesh_6374=" + b"x" * 43)
    assert (await ask_app(app, "GET", "/", headers=[HOST, typed, wrong])).status == 401
    # After a link on another site a browser keeps the cookie back, though there may be one: the page finds out itself.
    assert (await ask_app(app, "GET", "/", headers=[HOST, (b"sec-fetch-site", b"cross-site")])).body == INDEX


async def test_the_page_after_a_login_has_no_script_inside_and_gives_the_secret_to_one_of_ours(folder: Path) -> None:
    sessions = Sessions(SessionsKept)
    app = build(FakeBackend(), console=folder, access=Access(TOKEN, Shelf(), sessions=sessions))
    answer = await ask_app(app, "GET", "/console/login", query=f"code={sessions.code()}".encode(), headers=[HOST])
    text = answer.body.decode()
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert re.findall(r"<script[^>]*>(.*?)</script>", text) == [""]
    assert "<noscript>" in text
    script = await ask_app(app, "GET", "/console/enter.js", headers=[HOST])
    assert script.body == ENTER_JS
    assert b"startsWith('#/')" in script.body  # what follows the address leads nowhere but into the console


async def test_without_sessions_there_is_no_console() -> None:
    app = build(FakeBackend(), access=Access(TOKEN, Shelf()))
    for path in ("/", "/console/login", "/assets/x.js"):
        assert (await ask_app(app, "GET", path, headers=[HOST])).status == 401
    assert (await ask_app(app, "POST", "/api/v1/console/login")).problem().code == "console.none"


def test_the_package_brings_the_build() -> None:
    found = Files().read("/index.html")
    assert found is not None
    for name in re.findall(r'(?:src|href)="(/[^"]+)"', found.content.decode()):
        assert Files().read(name) is not None, name
