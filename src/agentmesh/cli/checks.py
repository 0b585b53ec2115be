"""The checks of ``agentmesh doctor``: each looks at one thing and says ok, warn or fail, and what to do next.

A check never raises and never changes anything but files it makes and removes itself; none needs the daemon to run.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from agentmesh.cli.commands.status import cut_off_text
from agentmesh.cli.output import Output
from agentmesh.daemon import lock
from agentmesh.daemon.home import Home, find_home
from agentmesh.daemon.settings import ENV_OTHERS, Loaded, load, parse_listen, table
from agentmesh.errors import MeshError
from agentmesh.wire.net_views import PeerView
from agentmesh.wire.views import StatusView

_DISK_WARN_BYTES, _DISK_FAIL_BYTES = 1024**3, 64 * 1024**2
_SKEW_WARN_S, _SKEW_FAIL_S = 150.0, 300.0
_MDNS_GROUP, _MDNS_PORT = "224.0.0.251", 5353
_DID = re.compile(r"did:key:z6Mk[1-9A-HJ-NP-Za-km-z]{44}")
_IPV4 = re.compile(r"\b(?!127\.|0\.0\.0\.0)\d{1,3}(?:\.\d{1,3}){3}\b")


class Finding(NamedTuple):
    """One line of doctor: how it is, what was looked at, what was found, and the next command ("" if none)."""

    mark: Literal["ok", "warn", "fail"]
    name: str
    text: str
    next: str = ""


def redact(text: str) -> str:
    """Shorten node ids and replace the home directory, the host name and addresses, so that a report can be posted."""
    text = _DID.sub(lambda m: f"did:key:…{m[0][-6:]}", text)
    text = text.replace(str(Path.home()), "~").replace(socket.gethostname(), "<host>")
    return _IPV4.sub("<address>", text)


def all_checks(out: Output) -> list[Finding]:
    """Run every check and return the findings in a fixed order."""
    home, _ = find_home(out.home)
    findings = [*_home(home), *_keys(home)]
    loaded, config = _config(out, home)
    findings += config
    status, peers, daemon = _daemon(home, loaded)
    findings += daemon
    findings += _engine(loaded)
    if loaded is not None:
        findings += [*_ports(loaded, status), *_multicast(loaded), *_firewall(loaded, status, peers)]
        findings += _embedder(loaded)
        findings += _agreement(loaded, status)
    findings += [*_log(home, status, loaded), *peer_findings(status, peers), *_packages()]
    return findings


def _home(home: Home) -> Iterator[Finding]:
    try:
        home.check()
    except MeshError as error:
        yield Finding("fail", "home", error.detail, error.hint or "")
        return
    if not home.path.exists():
        yield Finding("ok", "home", f"{home.path} (made at the first start)")
        return
    mode = stat.S_IMODE(home.path.stat().st_mode)
    if mode & 0o077:
        yield Finding("warn", "home", f"{home.path} is open to others (mode {mode:04o})", f"chmod 700 {home.path}")
    elif not os.access(home.path, os.W_OK | os.X_OK):
        yield Finding("fail", "home", f"{home.path} cannot be written to", f"ls -ld {home.path}")
    else:
        yield Finding("ok", "home", str(home.path))
    free = shutil.disk_usage(home.path).free
    text = f"{free / 1024**3:.1f} GB free"
    if free < _DISK_WARN_BYTES:
        yield Finding("fail" if free < _DISK_FAIL_BYTES else "warn", "disk", text, f"df -h {home.path}")
    else:
        yield Finding("ok", "disk", text)


def _keys(home: Home) -> Iterator[Finding]:
    secrets = [home.node_key, home.api_token, home.tls_pem]
    with contextlib.suppress(OSError):
        secrets += sorted(home.agent_keys.glob("*.key"))
    present = [path for path in secrets if path.exists()]
    wide = [path for path in present if stat.S_IMODE(path.stat().st_mode) & 0o077]
    for path in wide:
        mode = stat.S_IMODE(path.stat().st_mode)
        yield Finding("fail", "keys", f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
    if not wide:
        yield Finding("ok", "keys", f"{len(present)} secret files, mode 0600" if present else "none yet")


def _config(out: Output, home: Home) -> tuple[Loaded | None, list[Finding]]:
    known = {row.env for row in table()} | ENV_OTHERS
    strange = sorted(name for name in os.environ if name.startswith("AGENTMESH_") and name not in known)
    extra = [Finding("warn", "config", f"{name} is no setting", "agentmesh config explain") for name in strange]
    try:
        loaded = load({"home": str(home)}, profile=out.profile or None)
    except MeshError as error:
        text = f"{error.detail}{f' ({error.why})' if error.why else ''}"
        return None, [Finding("fail", "config", text, error.hint or "agentmesh config explain"), *extra]
    changed = sum(source != "default" for source in loaded.sources.values())
    return loaded, [Finding("ok", "config", f"{changed} settings differ from their defaults"), *extra]


def _daemon(home: Home, loaded: Loaded | None) -> tuple[StatusView | None, list[PeerView], list[Finding]]:
    run = lock.running(home)
    if run is None:
        starting = lock.is_held(home)
        text = "starting, or its note is damaged" if starting else "not running"
        return None, [], [Finding("warn", "daemon", text, "agentmesh logs" if starting else "agentmesh up")]
    from agentmesh.sdk.sync import SyncMesh

    try:
        with SyncMesh(home=home.path) as mesh:
            status, peers = mesh.status(), mesh.peers()
    except MeshError as error:
        hint = error.hint or "agentmesh logs"
        return None, [], [Finding("fail", "daemon", f"pid {run.pid} does not answer: {error.detail}", hint)]
    findings = [Finding("ok", "daemon", f"pid {run.pid} on port {run.port}, {status.rss_bytes / 1048576:.0f} MB")]
    from agentmesh import __version__

    if status.version != __version__:
        text = f"runs {status.version}, this command is {__version__}"
        findings.append(Finding("warn", "daemon", text, "agentmesh down && agentmesh up"))
    if loaded is not None and loaded.settings.port not in (0, run.port):
        text = f"wanted port {loaded.settings.port}, which was taken; it answers on {run.port}"
        findings.append(Finding("warn", "port", text))
    return status, peers, findings


def _engine(loaded: Loaded | None) -> Iterator[Finding]:
    wanted = loaded.settings.transports if loaded is not None else ("iroh",)
    if "iroh" not in wanted:
        return
    try:
        import iroh.iroh_ffi as engine  # pyright: ignore[reportMissingTypeStubs]

        from agentmesh.net import iroh_shim
    except (ImportError, OSError) as error:
        fix = "agentmesh config set transports tls"
        yield Finding("fail", "iroh", f"the engine cannot be loaded here: {error}", fix)
        return
    report = iroh_shim.install(engine)
    mark = "ok" if report.state in ("installed", "unneeded") else "warn"
    yield Finding(mark, "iroh", f"{importlib.metadata.version('iroh')}, memory-copy shim {report.state}: {report.note}")


def _agreement(loaded: Loaded, status: StatusView | None) -> Iterator[Finding]:
    """Ask the engine of critical state, if one is set; a file of this node needs no asking."""
    settings = loaded.settings
    if not (settings.critical or settings.bus or settings.nats_server):
        return
    if settings.nats_server and status is None:
        yield Finding(
            "warn", "engine", f"the NATS server on {settings.nats_server} runs with the daemon only", "agentmesh up"
        )
        return
    import asyncio

    from agentmesh.daemon.engines import try_critical

    url, error = asyncio.run(try_critical(settings, status.node_id if status is not None else ""))
    if error is None:
        yield Finding("ok", "engine", f"{url} answers")
    else:
        yield Finding(
            "fail", "engine", f"{error.detail} ({error.code}){f': {error.why}' if error.why else ''}", error.hint or ""
        )


def _ports(loaded: Loaded, status: StatusView | None) -> Iterator[Finding]:
    """Bind what the transports would bind; where our own daemon runs, it has shown already that this works."""
    if status is not None:
        yield Finding("ok", "transport", ", ".join(status.addresses) or "listens nowhere")
        return
    settings = loaded.settings
    for scheme, listen, kind in (
        ("iroh", settings.listen, socket.SOCK_DGRAM),
        ("tls", settings.listen_tls, socket.SOCK_STREAM),
        ("ws", settings.listen_ws, socket.SOCK_STREAM),
    ):
        if scheme not in settings.transports:
            continue
        host, port = parse_listen(listen)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as probe:
            try:
                probe.bind((host, port))
            except OSError as error:
                yield Finding("warn", "transport", f"{scheme} {listen}: {error.strerror}; the next free port is taken")
            else:
                yield Finding("ok", "transport", f"{scheme} can bind {listen}")


def _multicast(loaded: Loaded) -> Iterator[Finding]:
    """Join the mDNS group and leave it again; nothing is sent."""
    if not loaded.settings.mdns:
        yield Finding("ok", "mdns", "switched off (mdns = false); other nodes come by seeds")
        return
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            membership = socket.inet_aton(_MDNS_GROUP) + socket.inet_aton("0.0.0.0")  # noqa: S104 - any interface
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(AttributeError, OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(("", _MDNS_PORT))
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    except OSError as error:
        text = f"no multicast here ({error.strerror}); nodes on this LAN are not found by themselves"
        yield Finding("warn", "mdns", text, "agentmesh peers add SEED")
    else:
        yield Finding("ok", "mdns", "multicast group can be joined")


def _firewall(loaded: Loaded, status: StatusView | None, peers: list[PeerView]) -> Iterator[Finding]:
    if status is None or not loaded.settings.seeds or any(peer.connected for peer in peers):
        return
    port = parse_listen(loaded.settings.listen)[1]
    text = f"no seed could be reached; a firewall may block UDP (ours listens near port {port})"
    yield Finding("warn", "firewall", text, "agentmesh peers")


def _embedder(loaded: Loaded) -> Iterator[Finding]:
    """Open what searches are answered by, and have it embed one word; an endpoint is asked that much."""
    from agentmesh.embed.choose import Source, choose

    settings = loaded.settings
    source = Source(settings.models, settings.embedder_model, settings.embedder_key_file)
    try:
        chosen = choose(settings.embedder, source)
    except MeshError as error:
        yield Finding("fail", "embedder", error.detail, error.hint or "agentmesh config explain embedder")
        return
    name = chosen.embedder.name
    try:
        chosen.embedder.embed(["test"], "query")
    except MeshError as error:
        text = f"{error.detail}{f' ({error.why})' if error.why else ''}; words and concepts answer"
        yield Finding("warn", "embedder", text, error.hint or "agentmesh config explain embedder")
    else:
        if chosen.fallback and settings.embedder != "auto":
            hint = chosen.hint or "agentmesh config explain embedder"
            yield Finding("warn", "embedder", f"{name} instead of {settings.embedder}: {chosen.fallback}", hint)
        else:
            text = f"{name} ({chosen.fallback})" if chosen.fallback else name
            yield Finding("ok", "embedder", text, chosen.hint)
    finally:
        chosen.embedder.close()


def _log(home: Home, status: StatusView | None, loaded: Loaded | None) -> Iterator[Finding]:
    size = 0
    with contextlib.suppress(OSError):
        size = sum(path.stat().st_size for path in home.events.iterdir() if path.is_file())
    shown = f"{size / 1_000_000:.1f} MB"
    limit = loaded.settings.events_bytes_max if loaded is not None else 0
    if limit and size > 0.9 * limit:
        text = f"{shown}, near {limit / 1_000_000:.0f} MB, from where the oldest events are dropped (events_bytes_max)"
        yield Finding("warn", "events", text, f"agentmesh config set events_bytes_max {2 * limit}")
    if status is None:
        yield Finding("ok", "events", f"{shown}; log and index are compared when the node starts")
        return
    yield Finding("ok", "events", f"{status.events} events, {shown}; log and index agreed at the start")
    for warning in status.warnings:
        yield Finding("warn", "node", warning, "agentmesh logs")


def peer_findings(status: StatusView | None, peers: list[PeerView]) -> Iterator[Finding]:
    """Yield what there is to say about the other nodes: links, clocks, versions."""
    if status is None:
        return
    up = [peer for peer in peers if peer.connected]
    yield Finding("ok", "peers", f"{len(up)} of {len(peers)} known nodes connected")
    if status.cut_off is not None:
        yield Finding("warn", "mesh", cut_off_text(status.cut_off), "agentmesh peers")
    for peer in up:
        name = peer.node_name or peer.node_id[-6:]
        skew = abs(peer.clock_skew_s or 0.0)
        if skew > _SKEW_WARN_S:
            mark = "fail" if skew > _SKEW_FAIL_S else "warn"
            yield Finding(mark, "clock", f"differs from that of {name} by {skew:.0f} s", "timedatectl status")
        if peer.version and peer.version != status.version:
            text = f"{name} runs AgentMesh {peer.version}, this node {status.version}"
            yield Finding("warn", "version", text)
    if up and not any(abs(peer.clock_skew_s or 0.0) > _SKEW_WARN_S for peer in up):
        yield Finding("ok", "clock", "agrees with every connected node")


def _packages() -> Iterator[Finding]:
    for package, what, fix in (
        ("a2a-sdk", "A2A endpoint", "pip install --force-reinstall agentmeshd"),
        ("mcp", "agentmesh mcp serve", "pip install 'agentmeshd[mcp]'"),
    ):
        try:
            yield Finding("ok", package, f"{importlib.metadata.version(package)} ({what})")
        except importlib.metadata.PackageNotFoundError:
            yield Finding("warn", package, f"not installed; {what} does not work", fix)
