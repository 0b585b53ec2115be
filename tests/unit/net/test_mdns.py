"""mDNS announcements: what is written, what is believed."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
import zeroconf
import zeroconf.asyncio
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import NoRoute
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.net import mdns
from agentmesh.net.mdns import ADDRESSES_MAX, SERVICES_MAX, Mdns, hint_of, hosts_of, txt_of

ME, OTHER = (NodeId(KeyPair(bytes([n]) * 32).did) for n in (1, 2))
ADDRESSES = ["iroh:192.0.2.7:6374", "tls:[2001:db8::1]:6375", "ws:wss://host.example/mesh"]


def raw(txt: dict[str, str]) -> dict[bytes, bytes | None]:
    return {name.encode(): value.encode() for name, value in txt.items()}


def test_an_announcement_reads_back_as_what_was_announced() -> None:
    assert hint_of(raw(txt_of(OTHER, "desk 书桌", ADDRESSES))) == (OTHER, ADDRESSES)


def test_an_announcement_fits_one_packet_whatever_name_and_addresses_are() -> None:
    txt = txt_of(OTHER, "书" * 500, [f"tls:192.0.2.{n}:1" for n in range(50)] + ["tls:" + "x" * 900])
    assert all(len(f"{name}={value}".encode()) <= 255 for name, value in txt.items())
    hint = hint_of(raw(txt))
    assert hint is not None
    assert len(hint[1]) == ADDRESSES_MAX


@pytest.mark.parametrize(
    "txt",
    [
        {},
        {b"v": b"1"},
        {b"v": b"2", b"id": OTHER.encode(), b"a0": b"tls:192.0.2.1:1"},
        {b"v": b"1", b"id": None, b"a0": b"tls:192.0.2.1:1"},
        {b"v": b"1", b"id": b"\xff\xfe", b"a0": b"tls:192.0.2.1:1"},
        {b"v": b"1", b"id": b"did:key:zNo", b"a0": b"tls:192.0.2.1:1"},
        {b"v": b"1", b"id": OTHER.encode()},
        {b"v": b"1", b"id": OTHER.encode(), b"a0": b"\x1b[2J"},
        {b"v": b"1", b"id": OTHER.encode(), b"a0": b"tls:" + b"x" * 250},
    ],
)
def test_nonsense_is_passed_over(txt: dict[bytes, bytes | None]) -> None:
    assert hint_of(txt) is None


def test_good_addresses_are_kept_beside_bad_ones() -> None:
    txt = raw(txt_of(OTHER, "", ADDRESSES[:1])) | {
        b"a1": b"\xff",
        b"a2": None,
        b"a3": b"tls:192.0.2.2:1",
        b"a9": b"tls:x:1",
    }
    assert hint_of(txt) == (OTHER, [ADDRESSES[0], "tls:192.0.2.2:1"])


@given(st.dictionaries(st.sampled_from([b"v", b"id", b"a0", b"a1", b"n"]), st.none() | st.binary(max_size=80)))
def test_any_txt_record_is_harmless(txt: dict[bytes, bytes | None]) -> None:
    assert hint_of({b"v": b"1", **txt}) is None or b"id" in txt


def test_the_ip_addresses_inside_transport_addresses_are_announced_as_such() -> None:
    assert hosts_of([*ADDRESSES, "tls:192.0.2.7:6375", "tls:name.example:1"]) == ["192.0.2.7", "2001:db8::1"]


class Ear:
    """An Mdns that is never opened, with what it passed on and whom it looked up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hints: list[tuple[NodeId, list[str]]] = []
        self.looked_up: list[str] = []
        self.mdns = Mdns(ME, "me", 1, ADDRESSES, lambda node, where: self.hints.append((node, where)))
        ear = self

        class Service:
            def __init__(self, _type: str, name: str) -> None:
                ear.looked_up.append(name)
                self.properties = raw(txt_of(OTHER, "other", ADDRESSES))

            async def async_request(self, _zeroconf: Any, _timeout_ms: int) -> bool:
                return True

        monkeypatch.setattr(zeroconf.asyncio, "AsyncServiceInfo", Service)

    def change(self, name: str, state: zeroconf.ServiceStateChange = zeroconf.ServiceStateChange.Added) -> None:
        self.mdns._on_change(None, mdns.SERVICE_TYPE, name, state)  # type: ignore[arg-type]  # pyright: ignore

    async def wait(self) -> None:
        """Wait until every look-up has ended."""
        await asyncio.gather(*self.mdns._scope._tasks)  # pyright: ignore[reportPrivateUsage]


async def test_what_is_heard_of_another_node_is_passed_on_and_our_own_echo_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ear = Ear(monkeypatch)
    ear.change(f"{ME.removeprefix('did:key:')}.{mdns.SERVICE_TYPE}")
    assert ear.looked_up == []
    ear.change(f"{OTHER.removeprefix('did:key:')}.{mdns.SERVICE_TYPE}")
    await ear.wait()
    assert ear.hints == [(OTHER, ADDRESSES)]
    ear.change("whatever", zeroconf.ServiceStateChange.Removed)
    await ear.wait()
    assert len(ear.hints) == 1


async def test_a_flood_of_services_is_looked_at_only_so_far_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ear = Ear(monkeypatch)
    with caplog.at_level(logging.WARNING, logger="agentmesh.mdns"):
        for n in range(3 * SERVICES_MAX):
            ear.change(f"s{n}.{mdns.SERVICE_TYPE}")
            await ear.wait()
    assert len(ear.looked_up) == SERVICES_MAX
    assert len(caplog.records) == 1
    ear.change(f"s0.{mdns.SERVICE_TYPE}", zeroconf.ServiceStateChange.Removed)
    ear.change(f"new.{mdns.SERVICE_TYPE}")
    await ear.wait()
    assert len(ear.looked_up) == SERVICES_MAX + 1, "room is made when a service leaves"


async def test_many_at_once_are_not_all_looked_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ear = Ear(monkeypatch)
    for n in range(100):
        ear.change(f"s{n}.{mdns.SERVICE_TYPE}")
    await ear.wait()
    assert len(ear.looked_up) < 100
    for n in range(100):
        ear.change(f"s{n}.{mdns.SERVICE_TYPE}", zeroconf.ServiceStateChange.Updated)
        await ear.wait()
    assert {f"s{n}.{mdns.SERVICE_TYPE}" for n in range(100)} <= set(ear.looked_up), "the next announcement is looked at"


async def test_a_machine_without_multicast_gets_a_clear_error_and_nothing_stays_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**_: Any) -> Any:
        raise OSError(19, "No such device")

    monkeypatch.setattr(zeroconf.asyncio, "AsyncZeroconf", refuse)
    speaker = Mdns(ME, "me", 1, ADDRESSES, lambda *_: None)
    with pytest.raises(NoRoute) as caught:
        await speaker.open()
    assert caught.value.code == "mdns.unavailable"
    assert "--seed" in (caught.value.hint or "")
    await speaker.aclose()
    await speaker.aclose()
