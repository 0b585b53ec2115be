"""What an operator changes is in the audit log: keys, tenants, grants, reports, policy, limits and settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentmesh.api.access import Access
from agentmesh.daemon.changes import note_settings
from agentmesh.daemon.knobs import Settings
from agentmesh.errors import Full
from agentmesh.sdk.types import KeyRequest
from agentmesh.store.audit_read import select
from agentmesh.store.state import StateStore
from tests.api.node_double import FakeBackend
from tests.api.serving import TOKEN, Answer, Shelf, ask_app, build
from tests.unit.node.test_two_nodes import echo, knows
from tests.unit.node.world import Member, until, world

KEYS = "/api/v1/keys"


async def ask(app: Any, method: str, path: str, **body: Any) -> Answer:
    return await ask_app(app, method, path, json.dumps(body).encode() if body else b"")


async def changes(member: Member) -> list[dict[str, Any]]:
    """Return what stands in a node's log apart from calls and agents that come and go."""
    await member.node.audit.log.settle()
    found = [record.data for record in select(member.node.audit.log.directory)]
    return [data for data in found if data["action"] not in ("call", "call.out", "register", "withdraw")]


async def test_keys_tenants_and_grants_are_recorded_with_who_did_it_before_it_is_told(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (member,):
        await member.serve("echo", echo)
        app = build(member.node, access=Access(TOKEN, Shelf()))  # type: ignore[arg-type]
        secret = (await ask(app, "POST", KEYS, name="ci", scopes=["call"])).json()["secret"]
        await ask(app, "DELETE", f"{KEYS}/ci")
        assert (await ask(app, "POST", "/api/v1/tenants", name="acme", agents_max=3)).status == 200
        assert (await ask(app, "DELETE", "/api/v1/tenants/acme")).status == 200
        made = await ask(app, "POST", "/api/v1/grants", to="echo", audience=["echo"], scopes=["call.*"])
        assert made.status == 200, made
        found = await changes(member)
        assert [(d["action"], d.get("event"), d.get("by")) for d in found] == [
            ("key", "made", "the operator"),
            ("key", "revoked", "the operator"),
            ("tenant", "saved", "the operator"),
            ("tenant", "removed", "the operator"),
            ("grant", None, None),
        ]
        assert found[0]["scopes"] == ["call"]
        assert found[2]["settled"]["agents_max"] == 3
        assert found[4]["holder"] == made.json()["holder"]
        assert secret not in json.dumps(found)


async def test_a_key_that_cannot_be_recorded_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, access = FakeBackend(), Access(TOKEN, Shelf())
    app = build(backend, access=access)

    async def refuse(*_: Any, **__: Any) -> None:
        raise Full("the disk is full")

    monkeypatch.setattr(backend, "note_change", refuse)
    assert (await ask(app, "POST", KEYS, name="ci", scopes=["call"])).status == 507
    assert access.every_key() == []
    access.add_key(KeyRequest(name="old", scopes=["call"]))
    assert (await ask(app, "DELETE", f"{KEYS}/old")).status == 507
    assert access.every_key() == []  # to revoke is never put off


async def test_a_report_of_abuse_has_an_action_of_its_own(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("rude", echo)
        await until(lambda: knows(a, "rude"))
        view = await a.node.report_abuse("rude", "it swears")
        (found,) = await changes(a)
        assert (found["action"], found["event"], found["resource"]) == ("report", "abuse", view.subject)


async def test_policies_and_limits_that_are_read_anew_are_recorded(tmp_path: Path) -> None:
    async with world(tmp_path, 1, policy="auto") as (member,):
        await member.serve("echo", echo)
        home = tmp_path / "n0"
        (home / "policies").mkdir()
        (home / "policies" / "own.cedar").write_text("permit (principal, action, resource);\n")
        member.node.policy.refresh()
        (home / "guard.toml").write_text('[agents."echo"]\nqps = 5\n')
        member.node._guard._file._look_s = float("-inf")
        member.node._guard._file.look(0.0)
        found = await changes(member)
        assert [(d["action"], d["resource"]) for d in found] == [("policy", "policies"), ("config", "guard.toml")]
        assert found[0]["version"] == member.node.policy.version


async def test_settings_that_changed_since_the_last_start_are_recorded_once(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path / "settings.sqlite")
    async with world(tmp_path, 1) as (member,):
        for settings in (
            Settings(home=tmp_path, name="one"),
            Settings(home=tmp_path, name="one"),
            Settings(home=tmp_path, name="one", a2a_open=False),
        ):
            await note_settings(settings, store, member.node.audit)
        first, second = await changes(member)
        assert first["changed"]["name"] == {"was": "", "now": "one"}
        assert "version" in first["changed"]
        assert second["changed"] == {"a2a_open": {"was": "true", "now": "false"}}
    store.close()


async def test_settings_that_cannot_be_recorded_are_recorded_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StateStore.open(tmp_path / "settings.sqlite")
    async with world(tmp_path, 1) as (member,):

        async def refuse(*_: Any, **__: Any) -> int:
            raise Full("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(member.node.audit.log, "write", refuse)
            await note_settings(Settings(home=tmp_path, name="one"), store, member.node.audit)
        assert await changes(member) == []
        await note_settings(Settings(home=tmp_path, name="one"), store, member.node.audit)
        assert len(await changes(member)) == 1
    store.close()
