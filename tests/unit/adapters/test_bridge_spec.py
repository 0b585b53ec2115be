"""URLs of bridges, entries of strangers, and how far inside a link may lead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.adapters.bridges.base import ENTRY_BYTES_MAX, Posting
from agentmesh.adapters.bridges.entry import Entry, read_entry, write_entry
from agentmesh.adapters.bridges.spec import BRIDGES_MAX, BridgeSpec, read_secret, read_spec, read_specs
from agentmesh.adapters.places import check_link
from agentmesh.adapters.reach import Reach, reach_of
from agentmesh.errors import ConfigError, DecodeError, NoRoute, UsageError


def test_a_bridge_is_one_url() -> None:
    spec = read_spec(
        "etcd://10.0.0.5/team/agents?way=out&agent=calc&agent=echo&edge=https://mesh.example/node-1/&tls=on"
    )
    assert (spec.kind, spec.host, spec.port, spec.prefix, spec.way) == ("etcd", "10.0.0.5", 2379, "team/agents", "out")
    assert (spec.agents, spec.edge) == (("calc", "echo"), "https://mesh.example/node-1")
    assert spec.base == "https://10.0.0.5:2379"
    assert spec.name == "etcd://10.0.0.5/team/agents"
    consul = read_spec("consul://[::1]:8501/?way=in&tag=agent&max=7")
    assert (consul.base, consul.tag, consul.taken_max) == ("http://[::1]:8501", "agent", 7)


@pytest.mark.parametrize(
    "url",
    [
        "", "http://127.0.0.1:2379/agents", "etcd://", "etcd:///agents", "etcd://127.0.0.1:2379", "etcd://127.0.0.1:2379/",
        "etcd://127.0.0.1:0/agents", "etcd://127.0.0.1:99999/agents", "etcd://user:pass@127.0.0.1/agents",
        "etcd://127.0.0.1/agents?way=up", "etcd://127.0.0.1/agents?way=in&way=out", "etcd://127.0.0.1/agents?colour=red",
        "etcd://127.0.0.1/agents?max=0", "etcd://127.0.0.1/agents?max=1001", "etcd://127.0.0.1/agents?secret=relative",
        "etcd://127.0.0.1/agents?edge=ftp://x", "etcd://127.0.0.1/agents#there", "etcd://127.0.0.1/a,b", "etcd://h ost/agents",
        "etcd://127.0.0.1/agents?tls=maybe", "consul://127.0.0.1/prefix", "consul://127.0.0.1/?tag=", "etcd://é.example/agents",
        "etcd://127.0.0.1/" + "a" * 2000, "etcd://-x/agents", "etcd://[::1/agents", "etcd://127.0.0.1/agents?way",
    ],
)  # fmt: skip
def test_what_is_no_bridge_is_refused_with_the_reason(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_spec(url)
    assert caught.value.code == "config.bridge"
    assert caught.value.why


@given(st.text(max_size=200) | st.text("etcdconsul:/?&=%[]@.0123456789 \n", max_size=60).map(lambda t: f"etcd://h/{t}"))
def test_any_text_is_a_bridge_or_is_refused(text: str) -> None:
    try:
        spec = read_spec(text)
    except ConfigError:
        return
    assert isinstance(spec, BridgeSpec)
    assert "\n" not in spec.base + spec.prefix


def test_two_bridges_to_one_place_and_too_many_are_refused() -> None:
    with pytest.raises(ConfigError):
        read_specs(("etcd://127.0.0.1:2379/agents?way=in", "etcd://127.0.0.1:2379/agents/?way=out"))
    with pytest.raises(ConfigError):
        read_specs(tuple(f"consul://10.0.0.{i}/" for i in range(BRIDGES_MAX + 1)))


def test_a_secret_is_one_line_that_nobody_else_can_read(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("a-token\n", "ascii")
    file.chmod(0o600)
    assert read_secret(str(file)) == "a-token"
    for content in (b"", b"two\nlines", b"\xff", b"x" * 5000):
        file.write_bytes(content)
        with pytest.raises(ConfigError):
            read_secret(str(file))
    file.write_text("a-token", "ascii")
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="secret"):
        read_secret(str(file))
    with pytest.raises(ConfigError):
        read_secret(str(tmp_path / "none"))


def test_an_entry_is_a_url_with_or_without_more_or_a_bare_card() -> None:
    assert read_entry(b'{"url": "http://a.example/"}') == Entry("http://a.example/")
    said = {"url": "http://a.example/", "door": "http", "name": "calc", "origin": "did:key:z1", "weight": 3}
    assert read_entry(json.dumps(said).encode()) == Entry("http://a.example/", "http", "calc", "did:key:z1")
    card = {"name": "The Calculator!", "skills": [], "supportedInterfaces": [{"url": "https://b.example/rpc"}]}
    assert read_entry(json.dumps(card).encode()) == Entry("https://b.example/rpc")
    old_card = {"name": "The Calculator!", "skills": [], "url": "https://c.example/"}
    assert read_entry(json.dumps(old_card).encode()) == Entry("https://c.example/")
    posting = Posting("did:key:z2", "echo", "It says", "http://127.0.0.1:1/a2a/echo", {"name": "echo"}, healthy=True)
    assert read_entry(write_entry(posting, "did:key:z1")) == Entry(posting.url, "a2a", "echo", "did:key:z1")


_JSON = st.recursive(
    st.none() | st.text() | st.integers(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["url", "door", "name", "origin", "skills", "supportedInterfaces"]), inner)
    ),
)


@given(st.binary(max_size=300) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_entry_or_are_refused(value: bytes) -> None:
    try:
        entry = read_entry(value)
    except DecodeError:
        return
    assert entry.url
    assert len(entry.url) <= 2048


def test_a_large_or_deep_entry_is_refused() -> None:
    for value in (
        None,
        b'{"url": "' + b"a" * ENTRY_BYTES_MAX + b'"}',
        b"[" * 60_000,
        b'{"url": "' + b"a" * 3000 + b'"}',
    ):
        with pytest.raises(DecodeError):
            read_entry(value)


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("127.0.0.1", Reach.LOOPBACK), ("127.9.9.9", Reach.LOOPBACK), ("::1", Reach.LOOPBACK),
        ("::ffff:127.0.0.1", Reach.LOOPBACK), ("64:ff9b::7f00:1", Reach.LOOPBACK), ("2002:7f00:1::", Reach.LOOPBACK),
        ("10.1.2.3", Reach.PRIVATE), ("192.168.0.1", Reach.PRIVATE), ("100.64.0.1", Reach.PRIVATE), ("fd00::1", Reach.PRIVATE),
        ("169.254.169.254", Reach.NEVER), ("fe80::1%eth0", Reach.NEVER), ("0.0.0.0", Reach.NEVER), ("::", Reach.NEVER),
        ("224.0.0.1", Reach.NEVER), ("255.255.255.255", Reach.NEVER), ("::ffff:169.254.169.254", Reach.NEVER),
        ("8.8.8.8", Reach.PUBLIC), ("2606:4700::1", Reach.PUBLIC), ("no address", Reach.NEVER),
    ],
)  # fmt: skip
def test_an_address_is_as_far_inside_as_its_network(address: str, reach: Reach) -> None:
    assert reach_of(address) is reach


async def test_a_link_leads_to_where_it_was_found_or_further_out_but_never_further_in() -> None:
    urls = {Reach.LOOPBACK: "http://127.0.0.1:1/", Reach.PRIVATE: "http://10.0.0.1/", Reach.PUBLIC: "http://8.8.8.8/"}
    for came_from in urls:
        for reach, url in urls.items():
            if reach >= came_from:
                assert await check_link(url, came_from) is reach
                continue
            with pytest.raises(UsageError) as caught:
                await check_link(url, came_from)
            assert caught.value.code == "link.inward"
    for url in ("http://169.254.169.254/", "http://[fe80::1]/", "http://0.0.0.0:80/"):
        with pytest.raises(UsageError):
            await check_link(url, Reach.LOOPBACK)
    with pytest.raises(UsageError) as caught:
        await check_link("http://localhost:6374/a2a/x", Reach.LOOPBACK, own_port=6374)
    assert caught.value.code == "link.own_node"
    with pytest.raises(NoRoute):
        await check_link("http://no-such-host.invalid/", Reach.LOOPBACK)
