"""Where settings come from. The table itself is in ``knobs``; a value comes from the first of these that has it:

    flag  >  environment AGENTMESH_*  >  [profile.NAME] in config.toml  >  config.toml  >  default

``bootstrap.json`` adds seeds to whatever ``seeds`` is. Every value remembers where it came from.
"""

from __future__ import annotations

import os
import platform
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from agentmesh.daemon.home import Home, find_home, storage_error, write_atomic
from agentmesh.daemon.knob_table import Row, row_of, table, unknown_key
from agentmesh.daemon.knobs import Settings
from agentmesh.embed.choose import check_name
from agentmesh.errors import ConfigError, DecodeError, UsageError
from agentmesh.ids import is_name, parse_node_id, public_key_of

if TYPE_CHECKING:
    from agentmesh.core.trust.config import Kind

CONFIG_BYTES_MAX = 1024 * 1024
SEEDS_MAX = 256
#: Environment variables with our prefix that are no settings of the daemon.
ENV_OTHERS = frozenset(
    {
        "AGENTMESH_HOME",
        "AGENTMESH_PROFILE",
        "AGENTMESH_LANG",
        "AGENTMESH_CALL_CONTEXT",
        "AGENTMESH_API_KEY",
        "AGENTMESH_TOKEN",
        "AGENTMESH_EMBEDDER_KEY",
    }
)
_SEED_SCHEMES = ("iroh", "tls", "ws")
_PATHS = (
    *("tls_ca", "tls_cert", "tls_key", "root_key", "embedder_key_file", "models_dir"),
    *("federation_cert", "federation_key", "federation_ca", "nats_secret"),
)
_ORIGIN = re.compile(r"https?://(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?/?")
_ENDPOINT = re.compile(_ORIGIN.pattern.removesuffix("/?") + r"(?:/[A-Za-z0-9._~/%-]{0,500})?")
#: As ``identity.node_record`` has it, which would load the signature library here.
_SITE = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}|")


class Explained(NamedTuple):
    """One setting with its present value and where that came from."""

    row: Row
    value: Any
    source: str


class Loaded(NamedTuple):
    """Checked settings and, per key, where each value came from."""

    settings: Settings
    sources: dict[str, str]

    def explain(self) -> list[Explained]:
        """Return every setting in table order with value and source."""
        return [Explained(row, getattr(self.settings, row.key), self.sources[row.key]) for row in table()]


def load(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    profile: str | None = None,
) -> Loaded:
    """Read every source and return checked settings.

    Args:
        flags: Values of given flags by key; None means not given. ``home`` is one of them.
        environ: The environment; ``os.environ`` when left out.
        profile: ``[profile.NAME]`` of config.toml to lay over it; ``AGENTMESH_PROFILE`` when left out.

    Raises:
        ConfigError: unknown key, wrong type or value, bad TOML or JSON; names source, line, key and next step.
        Full: a file exists but cannot be read.
    """
    environ = os.environ if environ is None else environ
    flags = {k: v for k, v in (flags or {}).items() if v is not None}
    given_home: Any = flags.pop("home", None)
    home, home_source = find_home(given_home, environ)
    home.check()
    values: dict[str, Any] = {"home": home.path}
    sources: dict[str, str] = {"home": home_source}

    for key, value, source in _from_file(home, profile or environ.get("AGENTMESH_PROFILE") or ""):
        values[key], sources[key] = value, source
    for key, value, source in _from_env(environ):
        values[key], sources[key] = value, source
    for key, raw in flags.items():
        row = row_of(key)
        values[key] = _convert(row, list(raw) if row.many else raw, f"flag {row.flag}")
        sources[key] = f"flag {row.flag}"
    if not values.get("name"):
        values["name"] = _host_name()
    extra = _bootstrap(home)
    if extra:
        values["seeds"] = tuple(dict.fromkeys((*values.get("seeds", ()), *extra)))
        sources["seeds"] = f"{sources['seeds']} + bootstrap.json" if "seeds" in sources else "bootstrap.json"
    for row in table():
        sources.setdefault(row.key, "default")
    settings = _settings(values)
    _check_together(settings)
    _check_tls(settings)
    _check_federation(settings)
    return Loaded(settings, sources)


def parse_listen(text: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[v6]:port``.

    Raises:
        ConfigError: not of that form. No state changed.
    """
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.%]+)\]|([^:\s\[\]]+)):(\d{1,5})", text)
    if not match or int(match[3]) > 65535:
        raise ConfigError(
            f"{text[:100]!r} is no listen address", hint="write host:port, for example 0.0.0.0:6374 or [::]:6374"
        )
    return match[1] or match[2], int(match[3])


def check_engine(key: str, url: str) -> None:
    """Refuse the URL of an engine that there is not. Raises ConfigError."""
    from agentmesh.engines.place import read_place

    if read_place(url).scheme != "nats" and key == "bus":
        raise ConfigError("durable topics are kept by NATS, or by nodes themselves", hint="write nats://127.0.0.1:4222")


def check_nats_server(text: str) -> None:
    """Refuse an address above whose port there is no other for routes. Raises ConfigError."""
    _, port = parse_listen(text)
    if not 0 < port <= 65_535 - 2000:
        raise ConfigError(
            "its port is 1 to 63535", why="routes between servers use the port 2000 above", hint="write 4222"
        )


def check_root(text: str) -> str:
    """Return a node id if it is one. Raises ConfigError."""
    try:
        return parse_node_id(text)
    except DecodeError as error:
        raise ConfigError(f"{text[:100]!r} is no node id", hint="agentmesh status   shows a node's id") from error


def discover_weights(text: str) -> tuple[float, float, float]:
    """Return the mix of the score of discovery: text, trust, health.

    Raises:
        ConfigError: it is no three numbers of 0 or more, not all 0. No state changed.
    """
    from agentmesh.core.search.rank import Weights

    try:
        numbers = [float(one) for one in text.split(",")]
        mix = Weights(*numbers).scaled() if len(numbers) == 3 else None
    except (ValueError, UsageError):
        mix = None
    if mix is None:
        raise ConfigError(
            "it is three numbers of 0 or more, not all 0", hint="write 0.7,0.2,0.1   (text, trust, health)"
        )
    return mix.text, mix.trust, mix.health


def trust_weights(texts: Sequence[str]) -> dict[Kind, float]:
    """Return the weight of each kind of evidence: the defaults, and what ``kind=number`` changes of them.

    Raises:
        ConfigError: an unknown kind, no number, one above 100, or one that turns good into bad. No state changed.
    """
    from agentmesh.core.trust.config import WEIGHTS

    weights = dict(WEIGHTS)
    for text in texts:
        name, _, number = text.partition("=")
        kind: Kind | None = next((kind for kind in WEIGHTS if kind == name.strip()), None)
        if kind is None:
            raise ConfigError(f"{name[:40]!r} is no kind of evidence", hint=f"known are {', '.join(WEIGHTS)}")
        try:
            weight = float(number)
        except ValueError:
            raise ConfigError(f"{number[:40]!r} is no number", hint=f"write {kind}={WEIGHTS[kind]:g}") from None
        if not 0 <= (weight if kind == "completed" else -weight) <= 100:
            raise ConfigError(
                f"{kind} weighs {weight:g}",
                why="what is done well weighs 0 to 100, all else 0 to -100",
                hint=f"write {kind}={WEIGHTS[kind]:g}",
            )
        weights[kind] = weight
    return weights


def check_seed(text: str) -> str:
    """Return a seed if it can be read: ``[scheme:]did:key:…@host:port``, or ``ws:did:key:…@wss://host/path``.

    Raises:
        ConfigError: it cannot. No state changed.
    """
    who, at, where = text.partition("@")
    scheme, colon, rest = who.partition(":")
    if colon and scheme in _SEED_SCHEMES:
        who = rest
    else:
        scheme = "iroh"
    try:
        parse_node_id(who)
        if not at:
            raise ConfigError("no address")
        if scheme != "ws" or "//" not in where:
            parse_listen(where)
    except (DecodeError, ConfigError) as error:
        raise ConfigError(
            f"{text[:160]!r} is no seed",
            code="config.seed",
            why=str(error) if at else "there is no @host:port after the node id",
            hint="on the other machine: agentmesh status   prints its seed, did:key:…@host:port",
        ) from error
    return text


def check_origin(text: str) -> str:
    """Return a URL that has scheme, host and perhaps a port, and nothing else. Raises ConfigError."""
    if not _ORIGIN.fullmatch(text):
        raise ConfigError(f"{text[:120]!r} is no address of a listener", hint="write https://host:port, without a path")
    return text


def check_endpoint(text: str) -> str:
    """Return where spans may go: "off", or an http or https URL without credentials. Raises ConfigError."""
    if text != "off" and not _ENDPOINT.fullmatch(text):
        raise ConfigError(
            "it is no address of a receiver",
            hint="write http://127.0.0.1:4318; credentials go into OTEL_EXPORTER_OTLP_HEADERS",
        )
    return text


def check_federation_seed(text: str) -> str:
    """Return a seed of a federation: ``URL``, or ``did:key:…@URL``. Raises ConfigError, DecodeError."""
    who, at, url = text.rpartition("@")
    if at:
        public_key_of(who)
    check_origin(url)
    return text


def set_value(home: Home, key: str, text: str | None, profile: str = "") -> bool:
    """Write one value to config.toml, or remove it when ``text`` is None; the file is replaced atomically.

    Returns:
        True if the old file held comments, which a rewrite loses: it was kept as ``config.toml.bak``.

    Raises:
        ConfigError: unknown key, wrong value, or a file that cannot be read. The file stays as it was.
        Full: the file cannot be written. It stays as it was.
    """
    import tomli_w

    row = row_of(key)
    key = row.key
    if key == "home":
        raise ConfigError("home cannot be set in config.toml, which lies inside it", hint="export AGENTMESH_HOME=DIR")
    text_before = _read_text(home.config)
    document = _parse_toml(home.config, text_before)
    section: dict[str, Any] = document
    if profile:
        section = document.setdefault("profile", {}).setdefault(profile, {})
    if text is None:
        section.pop(key, None)
    else:
        section[key] = msgspec.to_builtins(_convert(row, text, f"config set {key}"))
    rendered = tomli_w.dumps(document)
    entries = _entries(home.config, _parse_toml(home.config, rendered), rendered, profile)
    merged = {key: value for key, value, _ in entries}
    _check_together(_settings({"home": home.path, "name": "x", **merged}))
    home.prepare()
    had_comments = any(line.lstrip().startswith("#") for line in text_before.splitlines())
    if had_comments:
        write_atomic(home.config.with_suffix(".toml.bak"), text_before.encode())
    write_atomic(home.config, rendered.encode())
    return had_comments


def _from_env(environ: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    out: list[tuple[str, Any, str]] = []
    for row in table():
        if row.key != "home" and (text := environ.get(row.env)):
            out.append((row.key, _convert(row, text, f"environment {row.env}"), f"environment {row.env}"))
    return out


def _from_file(home: Home, profile: str) -> list[tuple[str, Any, str]]:
    text = _read_text(home.config)
    document = _parse_toml(home.config, text)
    return _entries(home.config, document, text, profile)


def _entries(path: Path, document: dict[str, Any], text: str, profile: str) -> list[tuple[str, Any, str]]:
    """Flatten a parsed config.toml: its own keys first, then those of the profile. Every profile is checked."""
    profiles: Any = document.pop("profile", {})
    try:
        by_name = msgspec.convert(profiles, dict[str, dict[str, Any]])
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{path}: profile must be a table of tables", why=str(error), hint="write [profile.NAME] and keys under it"
        ) from error
    if profile and profile not in by_name:
        import difflib  # as in ``errors``

        raise ConfigError(
            f"no profile {profile!r} in {path}",
            code="config.profile",
            hint=f"profiles there: {', '.join(sorted(by_name)) or 'none'}",
            extra={"did_you_mean": difflib.get_close_matches(profile, by_name)},
        )
    out: list[tuple[str, Any, str]] = []
    for name, section in (("", document), *by_name.items()):
        for key, value in section.items():
            line = _line_of(text, key, name)
            where = f"{path}{f' line {line}' if line else ''}{f' [profile.{name}]' if name else ''}"
            if key not in {row.key for row in table()}:
                raise unknown_key(key, where)
            if key == "home":
                raise ConfigError(
                    f"{where}: home cannot be set in config.toml, which lies inside it",
                    code="config.key",
                    hint="export AGENTMESH_HOME=DIR, or pass --home DIR",
                )
            converted = _convert(row_of(key), value, where)
            if name in ("", profile):
                out.append((key, converted, where))
    return out


def _convert(row: Row, value: Any, where: str) -> Any:
    """Check one value against the table. Text from environment and flags is read by the type of the setting."""
    if row.key == "home":
        return Home(str(value)).path
    try:
        if row.many and isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if row.default is True or row.default is False:
            value = _bool(value)
        if row.key == "capacity" and type(value) is int:
            value = str(value)
        number = isinstance(row.default, (int, float)) and not isinstance(row.default, bool)
        result = msgspec.convert(value, row.kind, strict=not (number and isinstance(value, str)))
        if row.key == "seeds":
            if len(result) > SEEDS_MAX:
                raise ConfigError(f"{len(result)} seeds, at most {SEEDS_MAX}")
            for seed in result:
                check_seed(seed)
        elif row.key == "grant_roots":
            for one in result:
                public_key_of(one)
        elif row.key in ("listen", "listen_tls", "listen_ws", "listen_udp"):
            parse_listen(result)
        elif row.key == "federation_seeds":
            for seed in result:
                check_federation_seed(seed)
        elif row.key == "federation_listen" and result:
            parse_listen(result)
        elif row.key == "federation_url" and result:
            check_origin(result)
        elif row.key == "require_credentials_of":
            for root in result:
                parse_node_id(root)
        elif row.key in _PATHS and result:
            result = _absolute(result)
        elif row.key == "embedder":
            check_name(result)
        elif row.key == "otel_endpoint" and result:
            check_endpoint(result)
        elif row.key == "transports" and (not result or len(set(result)) != len(result)):
            raise ConfigError("name at least one transport, each once")
        elif row.key == "site" and not _SITE.fullmatch(result):
            raise ConfigError("a site has 1 to 32 of a-z 0-9 . _ -, or is empty")
        elif row.key == "trust_roots":
            if len(result) > SEEDS_MAX:
                raise ConfigError(f"{len(result)} roots, at most {SEEDS_MAX}")
            for root in result:
                check_root(root)
        elif row.key == "bridges":
            if result:
                from agentmesh.adapters.bridges.spec import read_specs

                read_specs(result)
        elif row.key in ("critical", "bus") and result and result != "nats:own":
            check_engine(row.key, result)
        elif row.key == "nats_server" and result:
            check_nats_server(result)
        elif row.key == "nats_cluster":
            for one in result:
                check_nats_server(one)
        elif row.key == "trust_weights":
            trust_weights(result)
        elif row.key == "discover_weights":
            discover_weights(result)
        elif row.key == "name" and result and not is_name(result):
            raise ConfigError("a name has 1 to 64 letters, digits, - _ and inner dots")
    except (msgspec.ValidationError, ConfigError, DecodeError) as error:
        unit = f" ({row.knob.unit})" if row.knob.unit else ""
        shown = re.sub(r"//[^/]*@", "//…@", str(value))  # a password in an address
        raise ConfigError(
            f"{where}: {row.key} = {shown[:120]!r} is not allowed",
            code="config.value",
            why=(getattr(error, "why", None) or str(error)) + unit,
            hint=getattr(error, "hint", None) or f"agentmesh config explain {row.key}",
            extra={"key": row.key},
        ) from error
    return result


def _absolute(text: str) -> str:
    """Return a path that means the same wherever the daemon is started from. Raises ConfigError."""
    path = os.path.expanduser(text)
    if not os.path.isabs(path):
        raise ConfigError("a path here begins with / or ~", hint=os.path.abspath(path))
    return path


def _bool(value: Any) -> Any:
    if isinstance(value, str):
        low = value.strip().lower()
        if low in ("1", "true", "yes", "on"):
            return True
        if low in ("0", "false", "no", "off"):
            return False
    return value


def _settings(values: dict[str, Any]) -> Settings:
    """Build the struct from values that ``_convert`` has checked one by one."""
    return Settings(**values)


def _check_together(settings: Settings) -> None:
    if not settings.nats_server and "nats:own" in (settings.critical, settings.bus):
        raise ConfigError(
            "nats:own means the NATS server of this node, but nats_server is not set",
            code="config.value",
            hint="agentmesh config set nats_server 127.0.0.1:4222",
            extra={"key": "nats_server"},
        )
    if settings.ws_public_url and not settings.ws_public_url.startswith(("ws://", "wss://")):
        raise ConfigError(
            f"ws_public_url = {settings.ws_public_url[:120]!r} is no WebSocket URL",
            code="config.value",
            hint="write wss://host/path",
            extra={"key": "ws_public_url"},
        )


def _check_tls(settings: Settings) -> None:
    """Refuse half a CA network: what is set would guard nothing. Not judged while ``config set`` fills it in, one by one."""
    if bool(settings.tls_ca) != bool(settings.tls_cert) or (settings.tls_key and not settings.tls_cert):
        missing = "tls_cert" if not settings.tls_cert else "tls_ca"
        raise ConfigError(
            f"{missing} is not set",
            code="config.tls_incomplete",
            why="tls_ca and tls_cert belong together: who asks for certificates must show one",
            hint=f"agentmesh config explain {missing}",
            extra={"key": missing},
        )
    if settings.tls_ca and settings.tls_ca_only and "iroh" in settings.transports:
        raise ConfigError(
            "tls_ca is set, but transports has iroh",
            code="config.tls_iroh",
            why="iroh cannot ask a peer for a certificate, so any node could come in by it",
            hint="agentmesh config set transports tls,ws    or, to let it be open: agentmesh config set tls_ca_only off",
            extra={"key": "transports"},
        )


def _check_federation(settings: Settings) -> None:
    """Refuse a listener for partners that would be open and in the clear, or whose address nobody can know."""
    if not settings.federation_listen:
        return
    host, _ = parse_listen(settings.federation_listen)
    if not settings.federation_cert and host not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigError(
            "federation_listen is open to others, but federation_cert is not set",
            code="config.federation_plain",
            why="names of agents and partners would go over the network in the clear",
            hint="agentmesh config set federation_cert /path/cert.pem   or listen on 127.0.0.1 behind a proxy",
            extra={"key": "federation_cert"},
        )
    if not settings.federation_url and host in ("0.0.0.0", "::"):  # noqa: S104 compared, not bound
        raise ConfigError(
            f"federation_listen = {settings.federation_listen} is no address that partners use",
            code="config.federation_url",
            why="they sign for the address that they ask, and this node must know it",
            hint="agentmesh config set federation_url https://mesh.example:7443",
            extra={"key": "federation_url"},
        )


def _read_text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(CONFIG_BYTES_MAX + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise storage_error(error, path) from error
    if len(content) > CONFIG_BYTES_MAX:
        raise ConfigError(f"{path} is larger than {CONFIG_BYTES_MAX} bytes", code="config.file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text", code="config.file", why=str(error)) from error


def _parse_toml(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not valid TOML",
            code="config.file",
            why=str(error),
            hint=f"correct it by hand, or move it away: mv {path} {path}.broken",
        ) from error


def _line_of(text: str, key: str, profile: str) -> int:
    """Return the 1-based line that sets a key in its section, 0 if it is not written in the plain form."""
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\]]+?)\s*\]", line):
            section = header[1].replace('"', "")
        elif re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", line) and section == (
            f"profile.{profile}" if profile else ""
        ):
            return number
    return 0


def _bootstrap(home: Home) -> tuple[str, ...]:
    """Read ``bootstrap.json``: ``{"seeds": [...]}`` or a plain list of seeds (RQ0 §4.3)."""
    text = _read_text(home.bootstrap)
    if not text:
        return ()
    try:
        document: Any = msgspec.json.decode(text)
        seeds: Any = cast("dict[str, Any]", document)["seeds"] if isinstance(document, dict) else document
        checked = msgspec.convert(seeds, tuple[str, ...])
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError, RecursionError) as error:
        raise ConfigError(
            f"{home.bootstrap} cannot be read",
            code="config.bootstrap",
            why='it has no "seeds"' if isinstance(error, KeyError) else str(error),
            hint='write {"seeds": ["did:key:…@host:port"]}',
        ) from error
    if len(checked) > SEEDS_MAX:
        raise ConfigError(
            f"{home.bootstrap} holds {len(checked)} seeds, at most {SEEDS_MAX} are read", code="config.bootstrap"
        )
    for seed in checked:
        try:
            check_seed(seed)
        except ConfigError as error:
            raise ConfigError(
                f"{home.bootstrap}: {error.detail}", code="config.bootstrap", why=error.why, hint=error.hint
            ) from error
    return checked


def _host_name() -> str:
    """Return the host name made fit to be a node name."""
    name = re.sub(r"[^\w\-.]", "-", platform.node().split(".")[0]).strip("-._")[:64]
    return name if is_name(name) else "node"
