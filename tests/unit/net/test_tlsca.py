"""Networks whose CA admits nodes: who gets in over tls and ws, who does not, and what happens when the files change."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from agentmesh.errors import ConfigError, DecodeError, MeshError, NoRoute, SignatureError, Unauthorized
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.net.tls import TlsTransport
from agentmesh.net.tlsca import CaFiles, CaNetwork
from agentmesh.net.tlspipe import TlsPipe, client_context, load_certificate, tighten
from agentmesh.net.ws import WsTransport
from tests.support.authority import CLIENT, SERVER, Authority, Issued, self_signed, write_files

Open = Callable[..., Awaitable[Any]]
HOUR = timedelta(hours=1)


def new_key() -> KeyPair:
    return KeyPair.generate(secrets.token_bytes(32))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  (the other side's end of a handshake tells nobody here)
            await asyncio.sleep(0.001)


class Rogue:
    """A peer's certificates as they are, without the rehearsal that an honest node makes (``CaNetwork``)."""

    def __init__(self, files: CaFiles, *, shows: bool = True, judges: bool = True) -> None:
        self.client = tighten(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        self.client.check_hostname = False
        context = tighten(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        for one in (self.client, context):
            if shows:
                one.load_cert_chain(files.cert, files.key)
            one.load_verify_locations(files.ca)
            one.verify_mode = ssl.CERT_REQUIRED if judges else ssl.CERT_NONE
        self.server = load_certificate(None)
        self.server.context = context


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def open_node() -> AsyncIterator[Open]:
    made: list[Any] = []

    async def make(ca: Any, scheme: str = "tls", key: KeyPair | None = None) -> Any:
        key = key or new_key()
        kind: Any = TlsTransport if scheme == "tls" else WsTransport
        node = kind(key, "127.0.0.1:0", ca=ca)
        node.id_of_test = NodeId(key.did)
        await node.open()
        made.append(node)
        return node

    yield make
    for node in made:
        await node.aclose()


def network(directory: Path, authority: Authority, **issue: Any) -> CaNetwork:
    return CaNetwork(write_files(directory, authority.issue(**issue), authority.pem))


@pytest.mark.parametrize("scheme", ["tls", "ws"])
async def test_nodes_of_one_ca_meet_and_each_knows_what_the_ca_says_of_the_other(
    authority: Authority, open_node: Open, tmp_path: Path, scheme: str
) -> None:
    near = await open_node(network(tmp_path / "a", authority, name="alpha", organisation="Acme AG"), scheme)
    sans = (x509.DNSName("beta.example"), x509.UniformResourceIdentifier("spiffe://acme/beta"))
    far = await open_node(network(tmp_path / "b", authority, name="beta", sans=sans), scheme)
    link, back = await asyncio.gather(near.dial(far.id_of_test, far.addresses[0]), far.accept())
    assert (link.peer, back.peer) == (far.id_of_test, near.id_of_test)
    assert (back.certificate.subject, back.certificate.organisation) == ("alpha", "Acme AG")
    assert link.certificate.subject == "beta"
    assert link.certificate.sans == ("DNS:beta.example", "URI:spiffe://acme/beta")
    stream = await link.open_stream()
    await stream.send(b"x" * 100_000)
    assert await (await back.accept_stream()).recv() == b"x" * 100_000


def bad_certificates(authority: Authority) -> dict[str, Issued]:
    return {
        "expired": authority.issue(begins=-2 * HOUR, ends=-HOUR),
        "not yet valid": authority.issue(begins=HOUR, ends=2 * HOUR),
        "another CA": Authority("Other CA").issue(),
        "another CA of the same name": Authority("Test CA").issue(),
        "self-signed": self_signed(),
        "only for servers": authority.issue(usage=(SERVER,)),
        "huge": authority.issue(padding_bytes=20_000),
    }


@pytest.mark.parametrize("scheme", ["tls", "ws"])
@pytest.mark.parametrize("kind", bad_certificates(Authority()))
async def test_a_client_with_a_bad_certificate_is_turned_away_before_our_protocol(
    authority: Authority, open_node: Open, tmp_path: Path, scheme: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await open_node(network(tmp_path / "host", authority), scheme)
    heard: list[str] = []
    monkeypatch.setattr("agentmesh.net.tls.admit", lambda *_: heard.append("our protocol"))
    files = write_files(tmp_path / "bad", bad_certificates(authority)[kind], authority.pem)
    rogue = await open_node(Rogue(files), scheme)
    with pytest.raises((Unauthorized, NoRoute, DecodeError)):
        await rogue.dial(host.id_of_test, host.addresses[0], timeout_s=5.0)
    await until(lambda: host.refused == 1)
    assert heard == []


@pytest.mark.parametrize("kind", [k for k in bad_certificates(Authority()) if k != "only for servers"])
async def test_a_server_with_a_bad_certificate_is_not_told_who_we_are(
    authority: Authority, open_node: Open, tmp_path: Path, kind: str
) -> None:
    files = write_files(tmp_path / "bad", bad_certificates(authority)[kind], authority.pem)
    rogue = await open_node(Rogue(files, judges=False))
    node = await open_node(network(tmp_path / "node", authority))
    with pytest.raises(MeshError) as caught:
        await node.dial(rogue.id_of_test, rogue.addresses[0])
    assert caught.value.code == ("handshake.malformed" if kind == "huge" else "tls.certificate")
    await until(lambda: rogue.refused == 1)


async def test_a_server_certificate_that_is_only_good_for_clients_is_refused(
    authority: Authority, open_node: Open, tmp_path: Path
) -> None:
    files = write_files(tmp_path / "bad", authority.issue(usage=(CLIENT,)), authority.pem)
    rogue = await open_node(Rogue(files, judges=False))
    node = await open_node(network(tmp_path / "node", authority))
    with pytest.raises(SignatureError, match="purpose"):
        await node.dial(rogue.id_of_test, rogue.addresses[0])


@pytest.mark.parametrize("scheme", ["tls", "ws"])
async def test_a_node_without_a_ca_neither_gets_in_nor_is_dialled(
    authority: Authority, open_node: Open, tmp_path: Path, scheme: str
) -> None:
    guarded = await open_node(network(tmp_path / "a", authority), scheme)
    plain = await open_node(None, scheme)
    with pytest.raises((Unauthorized, NoRoute)):
        await plain.dial(guarded.id_of_test, guarded.addresses[0])
    with pytest.raises(SignatureError) as caught:
        await guarded.dial(plain.id_of_test, plain.addresses[0])
    assert caught.value.code == "tls.certificate"
    await until(lambda: (guarded.refused, plain.refused) == (1, 1))


async def test_who_is_turned_away_for_its_certificate_is_told_so(authority: Authority, tmp_path: Path) -> None:
    files = write_files(tmp_path, self_signed(), authority.pem)
    server = network(tmp_path / "host", authority).server.context
    for client, alert in ((Rogue(files).client, "unknown ca"), (client_context(), "certificate required")):
        there: asyncio.Queue[bytes] = asyncio.Queue()
        back: asyncio.Queue[bytes] = asyncio.Queue()
        near = TlsPipe(QueueTunnel(back, there), client, server=False)
        far = TlsPipe(QueueTunnel(there, back), server, server=True)
        ends = await asyncio.gather(near.shake_hands(), far.shake_hands(), return_exceptions=True)
        assert isinstance(ends[1], SignatureError)
        with pytest.raises(Unauthorized) as caught:
            await near.read()
        assert (caught.value.code, caught.value.why) == ("refused.certificate", f"it answered: {alert}")


class QueueTunnel:
    """A tunnel of this process, in which nothing gets lost when one side hangs up."""

    def __init__(self, inbox: asyncio.Queue[bytes], outbox: asyncio.Queue[bytes]) -> None:
        self._inbox, self._outbox = inbox, outbox

    async def read(self, bytes_max: int) -> bytes:
        return await self._inbox.get()

    async def write(self, data: bytes) -> None:
        self._outbox.put_nowait(data)

    async def aclose(self) -> None:
        pass


async def test_who_shares_the_servers_certificate_cannot_sit_in_between(
    authority: Authority, open_node: Open, tmp_path: Path
) -> None:
    """One certificate for all machines: Eve, one of them, ends the TLS and passes our protocol on unchanged."""
    ca = network(tmp_path, authority)
    host, caller = await open_node(ca), await open_node(ca)
    port = int(host.addresses[0].rpartition(":")[2])
    passed: list[bytes] = []

    async def in_between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port, ssl=ca.client, server_hostname="x")

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(4096):
                passed.append(data)
                sink.write(data)
            sink.close()

        await asyncio.gather(pass_on(reader, up_writer), pass_on(up_reader, writer), return_exceptions=True)

    eve = await asyncio.start_server(in_between, "127.0.0.1", 0, ssl=ca.server.context)
    with pytest.raises(SignatureError) as caught:
        await caller.dial(host.id_of_test, f"tls:127.0.0.1:{eve.sockets[0].getsockname()[1]}")
    assert caught.value.code == "handshake.proof"
    assert len(passed) >= 2, "the attack did not take place"
    eve.close()


async def test_less_than_tls_1_3_is_not_spoken_though_the_certificate_is_good(
    authority: Authority, open_node: Open, tmp_path: Path
) -> None:
    ca = network(tmp_path, authority)
    host = await open_node(ca)
    old = Rogue(ca.files).client
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection("127.0.0.1", int(host.addresses[0].rpartition(":")[2]), ssl=old)


async def test_the_ca_admits_but_the_key_still_says_who(authority: Authority, open_node: Open, tmp_path: Path) -> None:
    far, near = await open_node(network(tmp_path / "a", authority)), await open_node(network(tmp_path / "b", authority))
    with pytest.raises(SignatureError) as caught:
        await near.dial(NodeId(new_key().did), far.addresses[0])
    assert caught.value.code == "handshake.wrong_peer"


@pytest.mark.parametrize("dialler_is_wrong", [True, False])
async def test_a_certificate_that_names_a_node_key_is_good_for_that_key_alone(
    authority: Authority, open_node: Open, tmp_path: Path, dialler_is_wrong: bool
) -> None:
    key = new_key()
    named = network(tmp_path / "a", authority, sans=(x509.UniformResourceIdentifier(key.did),))
    owner, other = await open_node(named, key=key), await open_node(network(tmp_path / "b", authority))
    link, _ = await asyncio.gather(other.dial(owner.id_of_test, owner.addresses[0]), owner.accept())
    assert link.certificate.sans == (f"URI:{key.did}",)
    thief = await open_node(named)
    if dialler_is_wrong:
        lost = await thief.dial(other.id_of_test, other.addresses[0])
        await asyncio.wait_for(lost.wait_closed(), 5)
        assert other.refused == 1
    else:
        with pytest.raises(SignatureError) as caught:
            await other.dial(thief.id_of_test, thief.addresses[0])
        assert caught.value.code == "tls.certificate_key"


async def test_a_revocation_list_in_the_bundle_shuts_the_revoked_out(
    authority: Authority, open_node: Open, tmp_path: Path
) -> None:
    lost, good = authority.issue("lost"), authority.issue("good")
    host = await open_node(CaNetwork(write_files(tmp_path / "host", good, authority.pem, authority.revoke(lost))))
    finder = await open_node(CaNetwork(write_files(tmp_path / "lost", lost, authority.pem)))
    peer = await open_node(CaNetwork(write_files(tmp_path / "good", good, authority.pem)))
    with pytest.raises((Unauthorized, NoRoute)):
        await finder.dial(host.id_of_test, host.addresses[0])
    assert (await peer.dial(host.id_of_test, host.addresses[0])).peer == host.id_of_test


async def test_an_issuing_ca_alone_in_the_bundle_admits_only_its_own(
    authority: Authority, open_node: Open, tmp_path: Path
) -> None:
    mesh, mail = Authority("Mesh CA", authority), Authority("Mail CA", authority)
    nodes = [
        await open_node(CaNetwork(write_files(tmp_path / "a", mesh.issue(), mesh.pem))),
        await open_node(CaNetwork(write_files(tmp_path / "b", mesh.issue(), authority.pem, chain=mesh.pem))),
        await open_node(CaNetwork(write_files(tmp_path / "c", mail.issue(), authority.pem, chain=mail.pem))),
    ]
    assert (await nodes[1].dial(nodes[0].id_of_test, nodes[0].addresses[0])).peer == nodes[0].id_of_test
    with pytest.raises((Unauthorized, NoRoute)):
        await nodes[2].dial(nodes[0].id_of_test, nodes[0].addresses[0])


@pytest.mark.parametrize(
    ("kind", "code", "says"),
    [
        ("garbage bundle", "config.tls_ca", "no bundle"),
        ("damaged bundle", "config.tls_ca", "no bundle"),
        ("empty bundle", "config.tls_ca", "no bundle"),
        ("leaf in the bundle", "config.tls_ca", "no CA's"),
        ("another key", "config.tls_cert", "cannot be used"),
        ("open key", "config.tls_cert", "others can read"),
        ("missing", "config.tls_cert", "cannot be read"),
        ("expired", "config.tls_cert", "expired"),
        ("not yet valid", "config.tls_cert", "not yet valid"),
        ("another CA", "config.tls_cert", "issuer"),
        ("self-signed", "config.tls_cert", "self-signed"),
        ("only for servers", "config.tls_cert", "as a client certificate"),
        ("only for clients", "config.tls_cert", "as a server certificate"),
        ("huge", "config.tls_cert", "bytes of a handshake"),
        ("encrypted key", "config.tls_cert", "passphrase"),
    ],
)
def test_files_that_would_not_work_are_refused_with_the_reason(
    authority: Authority, tmp_path: Path, kind: str, code: str, says: str
) -> None:
    certificates = {**bad_certificates(authority), "only for clients": authority.issue(usage=(CLIENT,))}
    issued = certificates.get(kind) or authority.issue()
    files = write_files(tmp_path, issued, authority.pem)
    if kind == "garbage bundle":
        files.ca.write_bytes(b"\xff\x00 nothing of the kind")
    elif kind == "damaged bundle":
        files.ca.write_bytes(authority.pem + authority.pem.replace(b"MII", b"AAA", 1))
    elif kind == "empty bundle":
        files.ca.write_bytes(b"")
    elif kind == "leaf in the bundle":
        files.ca.write_bytes(authority.pem + issued.cert_pem)
    elif kind == "another key":
        files.key.write_bytes(authority.issue().key_pem)
    elif kind == "open key":
        files.key.chmod(0o644)
    elif kind == "missing":
        files.key.unlink()
    elif kind == "encrypted key":
        from cryptography.hazmat.primitives import serialization

        files.key.write_bytes(
            issued.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"secret"),
            )
        )
    with pytest.raises(ConfigError) as caught:
        CaNetwork(files)
    assert caught.value.code == code
    assert says in f"{caught.value} {caught.value.why}"


async def test_changed_files_hold_for_new_links_and_old_links_go_on(
    authority: Authority, open_node: Open, tmp_path: Path
) -> None:
    changing = network(tmp_path / "a", authority, name="before")
    host, peer = await open_node(changing), await open_node(network(tmp_path / "b", authority))
    old, _ = await asyncio.gather(peer.dial(host.id_of_test, host.addresses[0]), host.accept())
    write_files(tmp_path / "a", authority.issue("after"), authority.pem)
    new, _ = await asyncio.gather(peer.dial(host.id_of_test, host.addresses[0]), host.accept())
    assert (old.certificate.subject, new.certificate.subject) == ("before", "after")
    assert not old.is_closed
    assert changing.warnings() == []


async def test_broken_new_files_leave_the_old_in_force_and_are_named(
    authority: Authority, open_node: Open, tmp_path: Path
) -> None:
    changing = network(tmp_path / "a", authority, name="before")
    host, peer = await open_node(changing), await open_node(network(tmp_path / "b", authority))
    write_files(tmp_path / "a", Authority().issue("after"), authority.pem)
    link, _ = await asyncio.gather(peer.dial(host.id_of_test, host.addresses[0]), host.accept())
    assert link.certificate.subject == "before"
    [warning] = changing.warnings()
    assert "not used, the old ones are" in warning
    changing.files.key.unlink()
    assert "cannot be read" in changing.warnings()[0]
    write_files(tmp_path / "a", authority.issue("mended"), authority.pem)
    link, _ = await asyncio.gather(peer.dial(host.id_of_test, host.addresses[0]), host.accept())
    assert link.certificate.subject == "mended"
    assert changing.warnings() == []


def test_an_end_that_is_near_is_named(authority: Authority, tmp_path: Path) -> None:
    files = write_files(tmp_path, authority.issue(ends=30 * HOUR), authority.pem)
    assert "ends in 1.2 days" in CaNetwork(files).warnings()[0]
    clock = [1e10]
    assert "has expired" in CaNetwork(files, lambda: clock[0]).warnings()[0]
