"""URLs of engines: what they mean, what they refuse, and that none repeats a secret."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from agentmesh.engines.choose import choose_critical
from agentmesh.engines.etcd import EtcdCritical
from agentmesh.engines.nats import NatsCritical
from agentmesh.engines.place import Place, read_place, read_secret, tls_of
from agentmesh.engines.sqlite import SqliteCritical
from agentmesh.errors import ConfigError


def test_a_url_says_servers_and_options() -> None:
    place = read_place("nats://a:1,b,[::1]:3?replicas=5&secret=/x/s&name=team")
    assert place == Place("nats", ("a:1", "b:4222", "[::1]:3"), "", 5, secret="/x/s", name="team")
    assert place.url == "nats://a:1,b:4222,[::1]:3"
    assert read_place("etcd://one,two:99").servers == ("one:2379", "two:99")
    assert read_place("sqlite:") == Place("sqlite")
    assert read_place("sqlite:/x/y.sqlite").path == "/x/y.sqlite"


def test_each_scheme_has_its_engine(tmp_path: Path) -> None:
    default = tmp_path / "default.sqlite"
    assert isinstance(choose_critical("nats://a", default), NatsCritical)
    assert isinstance(choose_critical("etcds://a", default), EtcdCritical)
    assert isinstance(choose_critical("", default), SqliteCritical)
    assert choose_critical("", default).url == f"sqlite:{default}"
    assert choose_critical(f"sqlite:{tmp_path}/other", default).url == f"sqlite:{tmp_path}/other"


@pytest.mark.parametrize(
    "url",
    [
        "nats://user:hunter2@a:1",
        "redis://a:1",
        "nats://",
        "nats://a:0",
        "nats://a:70000",
        "nats://a:1,a:1",
        "nats://a/path",
        "nats://a#x",
        "nats://a?replicas=2",
        "nats://a?replicas=1&replicas=1",
        "nats://a?password=hunter2",
        "etcd://a?replicas=3",
        "nats://a?name=a.b",
        "nats://" + ",".join(f"h{i}" for i in range(10)),
        "nats://[::1",
        "nats://a b:1",
        "hunter2",
    ],
)
def test_what_is_no_url_of_an_engine_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError) as met:
        read_place(url)
    assert met.value.code == "engine.url"
    assert "hunter2" not in str(met.value.to_dict())


@given(st.text(max_size=80), st.sampled_from(["", "nats://", "etcd://", "sqlite:"]))
def test_no_text_upsets_the_reader(text: str, scheme: str) -> None:
    try:
        assert read_place(scheme + text).scheme in ("sqlite", "nats", "etcd", "etcds")
    except ConfigError as error:
        if error.code != "engine.url":
            raise


def test_a_secret_is_one_line_that_only_its_owner_can_read(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("user:word\n", "ascii")
    path.chmod(0o600)
    assert read_secret(str(path)) == "user:word"
    for content, mode in (("user:word", 0o644), ("", 0o600), ("two\nlines", 0o600), ("x" * 5000, 0o600), ("ü", 0o600)):
        path.write_text(content, "utf-8")
        path.chmod(mode)
        with pytest.raises(ConfigError) as met:
            read_secret(str(path))
        assert met.value.code == "engine.secret"
    with pytest.raises(ConfigError):
        read_secret(str(tmp_path / "none"))


def test_a_certificate_file_that_is_none_is_said_so(tmp_path: Path) -> None:
    assert tls_of(read_place("nats://a")) is None
    with pytest.raises(ConfigError) as met:
        tls_of(read_place(f"nats://a?ca={tmp_path / 'none.pem'}"))
    assert met.value.code == "engine.tls"


def test_a_node_without_engines_loads_none_of_their_libraries() -> None:
    code = (
        "import sys, agentmesh.daemon.app, agentmesh.daemon.engines, agentmesh.node.locks\n"
        "heavy = [m for m in sys.modules if m.split('.')[0] in ('nats', 'aiohttp', 'cryptography')]\n"
        "heavy += [m for m in sys.modules if m.startswith('agentmesh.engines.') and 'nats' in m or 'etcd' in m]\n"
        "print(heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
