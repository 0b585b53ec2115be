"""The agreement keys of agents: named in signed manifests, kept over restarts, and no obstacle when their file is broken."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from agentmesh.identity.agreement import read_agreement
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.sealed import seal, unseal
from agentmesh.node.agreements import Agreements
from agentmesh.node.door import Happening, Invocation
from tests.unit.node.world import FakeKit, ScriptedAgent, until, world


async def answer(call: Invocation) -> AsyncIterator[Happening]:
    yield Happening("status", {"state": "completed"})


async def test_a_manifest_names_a_key_that_opens_what_is_sealed_to_it(tmp_path: Path) -> None:
    alice = KeyPair(b"a" * 32)
    now = int(time.time())
    kit = FakeKit()
    async with world(tmp_path, 1, kits=[kit]) as [one]:
        agent: ScriptedAgent = await one.serve("echo", answer)
        assert agent.alive
        local = one.node.registry.by_name("echo")
        assert local is not None
        assert local.manifest.signed
        agreement = read_agreement(local.manifest.params)
        assert agreement is not None
        assert local.manifest.exp <= agreement.exp
        echo = local.manifest.agent_id
        letter = seal(b"hello", sender=alice, recipient=echo, agreement=agreement, iat=now)
        keys = one.node.registry.agreement_keys(echo)
        assert unseal(letter, recipient=echo, keys=keys, now=now).body == b"hello"
        one.node.registry.resign(echo)
        renewed = one.node.registry.by_name("echo")
        assert renewed is not None
        assert read_agreement(renewed.manifest.params) == agreement, "not yet old"
        assert one.node.registry.agreement_keys(alice.did) == {}
    async with world(tmp_path, 1, kits=[kit]) as [one]:
        keys = one.node.registry.agreement_keys(echo)
        assert unseal(letter, recipient=echo, keys=keys, now=now).body == b"hello"


async def test_what_the_manifest_of_another_node_names_is_what_its_node_opens(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as [one, two]:
        await one.serve("echo", answer)
        await until(lambda: two.node.sights.by_name("echo"))
        local = one.node.registry.by_name("echo")
        assert local is not None
        [seen] = two.node.sights.by_name("echo")
        agreement = read_agreement(seen.manifest.params)
        assert agreement is not None
        assert agreement.kid in one.node.registry.agreement_keys(local.manifest.agent_id)
        secret = one.node.registry.agreement_keys(local.manifest.agent_id)[agreement.kid]
        for path in (tmp_path / "n1").rglob("*"):
            assert path.is_dir() or secret.hex().encode() not in path.read_bytes(), "the private half stays at home"


def test_a_broken_file_is_a_warning_and_no_key_of_others_is_named_instead(tmp_path: Path) -> None:
    path = tmp_path / "echo.x25519"
    path.write_text("broken")
    path.chmod(0o600)
    warnings: list[str] = []
    agreements = Agreements(warnings)
    for _ in range(3):
        assert agreements.named({"key_agreement": {"kty": "OKP"}, "models": ["m"]}, path, 60) == {"models": ["m"]}
        assert agreements.secrets(path) == {}
    assert len(warnings) == 2
    assert "echo" in warnings[0]
    assert agreements.named({"key_agreement": 1}, None, 60) == {}


def test_naming_keys_loads_no_cryptography(tmp_path: Path) -> None:
    before = {name for name in sys.modules if name.startswith(("cryptography", "joserfc"))}
    Agreements([]).named({}, tmp_path / "k", 60)
    assert {name for name in sys.modules if name.startswith(("cryptography", "joserfc"))} == before
