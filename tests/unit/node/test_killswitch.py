"""Stop, go on, revoke and publish on real nodes over the in-memory transport: what an operator signs takes effect everywhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentmesh.core.orders.messages import Orders as OrdersMessage
from agentmesh.errors import MeshError, ReadOnly, ReplayError, SignatureError, Unauthorized, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.order import Body, Lists, Resume, Revoke, Stop, read_order, sign_order
from agentmesh.node.door import Happening, Invocation
from agentmesh.store.orders import OrderFile
from agentmesh.wire.order_views import KillSwitchRequest
from agentmesh.wire.proof_views import GrantRequest
from agentmesh.wire.views import CallRequest, RegisterRequest
from tests.unit.node.world import Member, until, world

OPERATOR = KeyPair.generate(b"O" * 32)
SECOND = KeyPair.generate(b"P" * 32)
STRANGER = KeyPair.generate(b"S" * 32)
_seq = 0


def order(body: Body, key: KeyPair = OPERATOR, **more: Any) -> str:
    """Sign an order with a higher seq than the last."""
    global _seq
    _seq += 1
    now = int(time.time())
    return sign_order(key, body, **{"seq": now * 1000 + _seq, "iat": now, "jti": f"order-{_seq}", **more})


async def echo(call: Invocation) -> AsyncIterator[Happening]:
    yield Happening("message", {"role": "agent", "parts": [{"text": "hello"}]})
    yield Happening("status", {"state": "completed"})


async def forever(call: Invocation) -> AsyncIterator[Happening]:
    yield Happening("status", {"state": "working"})
    await asyncio.Event().wait()


async def ask(member: Member, to: str) -> str:
    call = await member.node.call(CallRequest(to=to, text="hi", timeout_s=5))
    return (await call.reply()).text


def all_stopped(members: list[Member]) -> bool:
    return all(m.node.status().read_only for m in members)


async def test_one_order_stops_every_node_and_only_reading_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path, 4, operators=(OPERATOR.did,)) as members:
        a, b = members[0], members[1]
        await b.serve("echo", echo)
        await until(lambda: a.node.agents())
        assert await ask(a, "echo") == "hello"
        taken = await a.node.take_order(order(Stop("drill")))
        assert taken.kept
        assert a.node.status().read_only, "it holds where it was given before anybody is told that it was taken"
        await until(lambda: all_stopped(members), 2.0)
        for member in members:
            with pytest.raises(ReadOnly, match="drill") as refused:
                await ask(member, "echo")
            assert refused.value.code == "refused.read_only"
            assert "stopped it at" in (refused.value.why or "")
            with pytest.raises(ReadOnly):
                await member.node.register(RegisterRequest(url="http://echo-0/", door="sdk"))
        with pytest.raises(ReadOnly):
            await b.node.deregister("echo")
        with pytest.raises(ReadOnly):
            await b.node.grant(GrantRequest(to="echo", audience=["echo"], scopes=["call.*"]))
        assert a.node.agents(), "reading goes on"
        assert (await a.node.trace("last")).count > 0
        assert a.node.status().warnings[0].startswith("this node is read-only: drill")
        await a.node.take_order(order(Resume()))
        await until(lambda: not any(m.node.status().read_only for m in members), 2.0)
        assert await ask(a, "echo") == "hello"


async def test_a_call_that_runs_is_ended_on_both_sides_and_its_agent_is_told(tmp_path: Path) -> None:
    async with world(tmp_path, 2, operators=(OPERATOR.did,)) as (a, b):
        near, far = await a.serve("near", forever), await b.serve("far", forever)
        await until(lambda: len(a.node.agents()) == 2)
        calls = [await a.node.call(CallRequest(to=to, text="hi")) for to in ("near", "far")]
        await until(lambda: near.calls and far.calls)
        await a.node.take_order(order(Stop("enough")))
        for call in calls:
            with pytest.raises(ReadOnly, match="enough"):
                await call.reply()
            assert call.state == "canceled"
        await until(lambda: near.canceled and far.canceled)


async def test_a_caller_elsewhere_hears_why_its_call_was_ended_at_a_node_that_alone_is_stopped(tmp_path: Path) -> None:
    async with world(tmp_path, 2, operators=(OPERATOR.did,)) as (a, b):
        far = await b.serve("far", forever)
        await until(lambda: a.node.agents())
        call = await a.node.call(CallRequest(to="far", text="hi"))
        await until(lambda: far.calls)
        await b.node.take_order(order(Stop("only here"), audience=(b.node.node_id,)))
        with pytest.raises(ReadOnly, match="only here"):
            await call.reply()
        assert call.receipt, "the callee signs that it ended the call"
        assert far.canceled
        assert not a.node.status().read_only
        with pytest.raises(ReadOnly, match="only here"):
            await ask(a, "far")


async def test_a_stop_survives_a_restart_and_is_in_force_before_anything_is_served(tmp_path: Path) -> None:
    async with world(tmp_path, 1, operators=(OPERATOR.did,)) as (a,):
        await a.node.take_order(order(Stop("night")))
    async with world(tmp_path, 1, operators=(OPERATOR.did,)) as (a,):
        assert a.node.status().read_only
        with pytest.raises(ReadOnly, match="night"):
            await ask(a, "anything")
        await a.node.take_order(order(Resume()))
    async with world(tmp_path, 1, operators=(OPERATOR.did,)) as (a,):
        assert not a.node.status().read_only


async def test_a_node_that_was_away_hears_of_the_stop_when_it_is_back_and_from_any_peer(tmp_path: Path) -> None:
    async with world(tmp_path, 3, join=False, operators=(OPERATOR.did,)) as (a, b, c):
        await b.node.add_seeds([a.seed])
        await until(lambda: a.node.links.is_connected(b.node.node_id))
        await a.node.take_order(order(Stop("while c is away")))
        await until(lambda: b.node.status().read_only)
        await c.node.add_seeds([b.seed])
        await until(lambda: c.node.status().read_only, 2.0)


async def test_an_older_release_sent_again_does_not_end_a_newer_stop(tmp_path: Path) -> None:
    async with world(tmp_path, 2, operators=(OPERATOR.did,)) as (a, b):
        stop, release, again = order(Stop("one")), order(Resume()), order(Stop("two"))
        for raw in (stop, release, again):
            await a.node.take_order(raw)
        await until(lambda: b.node.status().read_only)
        with pytest.raises(ReplayError) as replayed:
            await b.node.take_order(release)
        assert replayed.value.code == "order.replayed"
        a.node.links.send(b.node.node_id, OrdersMessage(orders=[release]))
        await asyncio.sleep(0.05)
        assert b.node.status().read_only
        assert (await a.node.take_order(again)).kept, "the same order twice is no mistake"


async def test_orders_of_operators_that_are_not_named_or_that_are_forged_do_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, 2, operators=(OPERATOR.did,)) as (a, b):
        foreign = order(Stop("mine now"), STRANGER)
        with pytest.raises(Unauthorized) as refused:
            await a.node.take_order(foreign)
        assert refused.value.code == "order.operator"
        good = order(Stop("drill"))
        forged = good[:-8] + ("AAAAAAAA" if not good.endswith("AAAAAAAA") else "BBBBBBBB")
        with pytest.raises(MeshError) as bad:
            await a.node.take_order(forged)
        assert isinstance(bad.value, SignatureError) or bad.value.code == "jws.base64"
        for raw in (foreign, forged, "x" * 100_000):
            a.node.links.send(b.node.node_id, OrdersMessage(orders=[raw]))
        await until(lambda: b.node.mesh.brain.orders.forged >= 2)
        assert not a.node.status().read_only
        assert not b.node.status().read_only


async def test_only_an_operator_that_the_node_names_releases_it_and_another_one_by_naming_the_stop(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, 2, operators=(OPERATOR.did, SECOND.did)) as members:
        a, _ = members
        await a.node.take_order(order(Stop("first"), jti="the-stop"))
        await until(lambda: all_stopped(members))
        await a.node.take_order(order(Resume(), SECOND))
        assert a.node.status().read_only, "a release that names no stop ends only those of its own operator"
        await a.node.take_order(order(Resume(("the-stop",)), SECOND))
        await until(lambda: not any(m.node.status().read_only for m in members), 2.0)


async def test_a_stop_with_an_end_is_over_when_its_time_is(tmp_path: Path) -> None:
    async with world(tmp_path, 1, operators=(OPERATOR.did,)) as (a,):
        await a.node.take_order(order(Stop("short", until=int(time.time()) + 1)))
        assert a.node.status().read_only
        await until(lambda: not a.node.status().read_only, 5.0)


async def test_a_node_that_cannot_write_stops_all_the_same_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, 1, operators=(OPERATOR.did,)) as (a,):

        def full(self: OrderFile, orders: list[str]) -> None:
            raise MeshError("no space left", code="store.full")

        monkeypatch.setattr(OrderFile, "save", full)
        taken = await a.node.take_order(order(Stop("full")))
        assert a.node.status().read_only
        assert not taken.kept
        assert "no space left" in taken.problem
        assert any("no space left" in warning for warning in a.node.status().warnings)


async def test_a_damaged_record_of_orders_keeps_the_node_read_only_until_a_fresh_release(tmp_path: Path) -> None:
    async with world(tmp_path, 1, operators=(OPERATOR.did,)) as (a,):
        await a.node.take_order(order(Stop("x")))
    file = tmp_path / "n0" / "orders.json"
    file.write_bytes(file.read_bytes()[:-20])
    async with world(tmp_path, 1, operators=(OPERATOR.did,)) as (a,):
        assert a.node.status().read_only
        with pytest.raises(ReadOnly, match="damaged"):
            await ask(a, "anything")
        await a.node.take_order(order(Resume(), iat=int(time.time()) - 3600))
        assert a.node.status().read_only, "a release from before the damage was found releases nothing"
    async with world(tmp_path, 1, operators=(OPERATOR.did,)) as (a,):
        assert a.node.status().read_only, "and the damage is not forgotten"
        await a.node.take_order(order(Resume()))
        assert not a.node.status().read_only
    async with world(tmp_path, 1, operators=(OPERATOR.did,)) as (a,):
        assert not a.node.status().read_only


async def test_the_operator_of_this_home_is_obeyed_once_its_key_exists_if_no_other_is_named(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        with pytest.raises(Unauthorized):
            await a.node.take_order(order(Stop("x")))
        key = tmp_path / "n0" / "operator.key"
        key.write_text(f"agentmesh ed25519 seed v1\n{(b'O' * 32).hex()}\n")
        key.chmod(0o600)
        await a.node.take_order(order(Stop("x")))
        assert a.node.status().read_only


async def test_a_revoked_key_can_neither_call_nor_be_called_nor_link(tmp_path: Path) -> None:
    async with world(tmp_path, 3, operators=(OPERATOR.did,)) as (a, b, c):
        await b.serve("echo", echo)
        await c.serve("other", echo)
        await until(lambda: len(a.node.agents()) == len(b.node.agents()) == 2)
        agent = next(v for v in a.node.agents() if v.name == "echo")
        await a.node.take_order(order(Revoke((agent.agent_id,), "stolen")))
        with pytest.raises(Unauthorized, match="revoked"):
            await ask(a, "echo")
        await until(lambda: b.node.orders.revoked)
        with pytest.raises(Unauthorized, match="revoked"):
            await ask(b, "echo")
        call = await b.node.call(CallRequest(to="other", text="hi", from_agent="echo"))
        with pytest.raises(Unauthorized, match="revoked") as refused:
            await call.reply()
        assert refused.value.code == "refused.revoked"
        await a.node.take_order(order(Revoke((agent.agent_id, c.node.node_id))))
        await until(lambda: not a.node.links.is_connected(c.node.node_id))
        await until(lambda: not b.node.links.is_connected(c.node.node_id))
        with pytest.raises(MeshError):
            await a.node.links.connect(a.node.mesh.contact_of(c.node.node_id))
        await a.node.take_order(order(Revoke()))
        assert await ask(a, "echo") == "hello"


async def test_published_lists_reach_the_policy_of_every_node_once_and_are_withdrawn_when_empty(tmp_path: Path) -> None:
    class Sink:
        def __init__(self) -> None:
            self.heard: list[Any] = []

        def apply(self, issuer: str, seq: int, lists: dict[str, list[str]]) -> None:
            self.heard.append((issuer, lists))

        def withdraw(self, issuer: str) -> None:
            self.heard.append((issuer, None))

    async with world(tmp_path, 2, operators=(OPERATOR.did,)) as members:
        sinks = [Sink() for _ in members]
        for member, sink in zip(members, sinks, strict=True):
            member.node.orders.open(sink)
        await members[0].node.take_order(order(Lists(deny=("did:key:x", "org:bad"), grey=("tag:new",))))
        await members[0].node.take_order(order(Stop("unrelated")))
        await until(lambda: all(m.node.status().read_only for m in members))
        wanted = (OPERATOR.did, {"allow": [], "deny": ["did:key:x", "org:bad"], "grey": ["tag:new"]})
        assert [sink.heard for sink in sinks] == [[wanted], [wanted]]
        await members[0].node.take_order(order(Lists()))
        await until(lambda: all(sink.heard[-1] == (OPERATOR.did, None) for sink in sinks))


async def test_lists_that_no_policy_can_read_are_refused_where_they_are_handed_in_and_harm_nobody_elsewhere(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, 2, operators=(OPERATOR.did,)) as (a, b):
        bad = order(Lists(deny=("no-such-kind:x",)))
        with pytest.raises(MeshError) as refused:
            await a.node.take_order(bad)
        assert refused.value.code == "policy.list"
        assert not a.node.orders_view().orders, "it was not spread either"
        a.node.links.send(b.node.node_id, OrdersMessage(orders=[bad]))
        await until(lambda: any("are not used" in warning for warning in b.node.status().warnings))
        assert b.node.links.is_connected(a.node.node_id)
        await a.node.take_order(order(Lists(deny=("tag:new",))))
        await until(lambda: not any("are not used" in warning for warning in b.node.status().warnings))


async def test_a_node_whose_clock_is_hours_behind_stops_and_goes_on_as_ordered_and_says_so_only_to_its_operator(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, 2, operators=(OPERATOR.did,)) as (a, b):
        ahead = int(time.time()) + 7_200
        await a.node.take_order(order(Stop("our clock is two hours behind"), iat=ahead))
        await until(lambda: b.node.status().read_only)
        with pytest.raises(ReplayError) as early:
            await a.node.take_order(order(Resume(), iat=ahead))
        assert early.value.code == "order.not_yet_valid"
        a.node.links.send(b.node.node_id, OrdersMessage(orders=[order(Resume(), iat=ahead)]))
        await until(lambda: not b.node.status().read_only)


async def test_a_survey_says_which_nodes_are_stopped(tmp_path: Path) -> None:
    async with world(tmp_path, 3, operators=(OPERATOR.did,)) as members:
        await members[0].node.take_order(order(Stop("seen"), jti="seen-1"))
        await until(lambda: all_stopped(members))
        view = await members[0].node.net()
        assert [node.stops for node in view.map if node.answered] == [["seen-1"]] * 3


def whole_home(member: Member) -> Path:
    """Return the home of a member's node."""
    return Path(member.node.status().home)


async def audited(member: Member, action: str) -> list[dict[str, Any]]:
    records = (await member.node.audit_records(0, 1000, "", "")).records
    return [one["data"] for one in records if one["data"]["action"] == action]


async def test_the_daemon_signs_with_the_key_of_its_home_and_writes_down_who_asked(tmp_path: Path) -> None:
    async with world(tmp_path, 2, operators=(OPERATOR.did,)) as members:
        a = members[0]
        key = whole_home(a) / "operator.key"
        key.write_text(f"agentmesh ed25519 seed v1\n{(b'O' * 32).hex()}\n")
        key.chmod(0o600)
        taken = await a.node.kill_switch(KillSwitchRequest(on=True, reason="runaway spending"), "key ci")
        assert (taken.order.event, taken.order.operator, taken.order.reason) == (
            "stop",
            OPERATOR.did,
            "runaway spending",
        )
        await until(lambda: all_stopped(members))
        net = await a.node.net()
        assert [one.stops for one in net.map] == [[taken.order.jti]] * 2
        released = await a.node.kill_switch(KillSwitchRequest(on=False), "the operator")
        assert read_order(released.order.order).txn == taken.order.jti
        await until(lambda: not any(m.node.status().read_only for m in members))
        await a.node.note_change("other", "fence")  # records of changes that nobody waits for are on disk before it
        told = await audited(a, "killswitch")
        assert [(one["event"], one["by"], one["jti"]) for one in told] == [
            ("on", "key ci", taken.order.jti),
            ("off", "the operator", released.order.jti),
        ]


async def test_where_nobody_is_obeyed_the_first_press_makes_the_key_and_a_stop_for_one_node_stays_there(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, 2) as (a, b):
        taken = await a.node.kill_switch(KillSwitchRequest(on=True, for_s=600, local=True), "the operator")
        assert (whole_home(a) / "operator.key").stat().st_mode & 0o777 == 0o600
        assert taken.order.audience == [a.node.node_id]
        assert taken.order.until is not None
        assert taken.order.until - taken.order.iat in (600, 601)
        assert a.node.status().read_only
        assert not b.node.status().read_only


@pytest.mark.parametrize(
    ("content", "mode", "code"),
    [
        (None, 0o600, "operator.none"),
        ("-----BEGIN " + "ENCRYPTED PRIVATE KEY-----\nMIG\n", 0o600, "key.encrypted"),
        ("age-encryption.org/v1\n-> scrypt\n", 0o600, "key.encrypted"),
        ("no key at all", 0o600, "key.malformed"),
        (f"agentmesh ed25519 seed v1\n{(b'O' * 32).hex()}\n", 0o644, "key.permissions"),
        (f"agentmesh ed25519 seed v1\n{(b'S' * 32).hex()}\n", 0o600, "order.operator"),
    ],
)
@pytest.mark.parametrize("on", [True, False])
async def test_without_the_right_key_nothing_is_stopped_or_released_and_the_error_says_what_to_do(
    tmp_path: Path, content: str | None, mode: int, code: str, on: bool
) -> None:
    async with world(tmp_path, 1, operators=(OPERATOR.did,)) as (a,):
        if not on:
            await a.node.take_order(order(Stop("before")))
        if content is not None:
            key = whole_home(a) / "operator.key"
            key.write_text(content)
            key.chmod(mode)
        with pytest.raises(MeshError) as refused:
            await a.node.kill_switch(KillSwitchRequest(on=on), "the operator")
        assert refused.value.code == code
        assert refused.value.hint
        assert (b"O" * 32).hex() not in str(refused.value.to_dict())
        assert a.node.status().read_only is (not on)


@pytest.mark.parametrize(
    "request_",
    [
        KillSwitchRequest(on=True, for_s=-1),
        KillSwitchRequest(on=True, for_s=2**60),
        KillSwitchRequest(on=True, reason="x" * 501),
        KillSwitchRequest(on=True, reason="two\nlines"),
        KillSwitchRequest(on=True, reason="\u202eesrever"),
    ],
)
async def test_a_stop_that_makes_no_sense_is_refused_and_makes_no_key(
    tmp_path: Path, request_: KillSwitchRequest
) -> None:
    async with world(tmp_path, 1) as (a,):
        with pytest.raises(UsageError):
            await a.node.kill_switch(request_, "the operator")
        assert not (whole_home(a) / "operator.key").exists()
        assert not a.node.status().read_only
