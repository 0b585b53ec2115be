"""Settings as people see them: value, where it comes from, what it does. One list for ``agentmesh config explain`` and the API.

Secrets are files or environment variables beside the settings; here stands only whether they are there.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agentmesh.daemon.home import Home
from agentmesh.daemon.settings import Loaded, load
from agentmesh.errors import MeshError
from agentmesh.wire.config_views import ConfigView, SecretView, SettingView

#: What addresses may hold and nobody is shown: name and password, and values of such parameters.
_USERINFO = re.compile(r"//[^/@\s]*@")
_PARAMETER = re.compile(r"(?i)([?&](?:api[_-]?key|key|token|password|passwd|access_token)=)[^&#]*")


def setting_views(loaded: Loaded) -> list[SettingView]:
    """Return every setting with value, source and meaning, in the order of the table."""
    return [
        SettingView(
            key=row.key,
            value=_shown(value),
            source=source,
            default=row.default,
            effect=row.knob.effect,
            when=row.knob.when,
            origin=row.knob.origin,
            unit=row.knob.unit,
            flag=row.flag,
            env=row.env,
        )
        for row, value, source in loaded.explain()
    ]


def digest_of(settings: list[SettingView]) -> str:
    """Return the digest over keys, values and sources of settings."""
    told = [[one.key, one.value, one.source] for one in settings]
    text = hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()
    return f"{text[:4]}-{text[4:8]}"


def _shown(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_shown(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, str):
        return _PARAMETER.sub(r"\1…", _USERINFO.sub("//…@", value))
    return value


def secret_views(home: Home, environ: Mapping[str, str]) -> list[SecretView]:
    """Return which secrets of a home are there; none is read."""

    def file(name: str, path: Path, effect: str) -> SecretView:
        return SecretView(name=name, where=str(path), is_set=path.is_file(), effect=effect)

    return [
        file("node key", home.node_key, "Is this node: who has it can act as this node."),
        file("API token", home.api_token, "Opens everything in this node's HTTP API."),
        file("operator key", home.operator_key, "Stops nodes, releases them, and revokes keys."),
        file("root key", home.root_key, "Signs credentials of devices."),
        SecretView(
            name="embedder key",
            where="AGENTMESH_EMBEDDER_KEY",
            is_set=bool(environ.get("AGENTMESH_EMBEDDER_KEY")),
            effect="Is sent to the endpoint that the setting embedder names.",
        ),
    ]


def config_view(
    loaded: Loaded, *, changed: list[str] | None = None, environ: Mapping[str, str] | None = None
) -> ConfigView:
    """Return all settings, and which secrets lie beside them. Reads the directory, so not on the loop."""
    home = loaded.settings.paths
    settings = setting_views(loaded)
    return ConfigView(
        settings=settings,
        count=len(settings),
        digest=digest_of(settings),
        secrets=secret_views(home, os.environ if environ is None else environ),
        file=str(home.config),
        changed=changed or [],
    )


def running(loaded: Loaded, profile: str | None) -> Callable[[], ConfigView]:
    """Return what shows the settings of a daemon that was started with these, and which would be others by now."""

    def show() -> ConfigView:
        return config_view(loaded, changed=_changed(loaded, profile))

    return show


def _changed(loaded: Loaded, profile: str | None) -> list[str]:
    """Return the keys that would have another value after a start with the same flags; of a broken file, none are known."""
    try:
        now = load({"home": loaded.settings.home}, profile=profile)
    except MeshError:
        return []
    return [
        row.key
        for row, value, source in loaded.explain()
        if not source.startswith("flag ") and row.key != "home" and getattr(now.settings, row.key) != value
    ]
