"""The shapes in which CLI and HTTP API show settings. As in ``wire.views``."""

from __future__ import annotations

from typing import Any

import msgspec


class SettingView(msgspec.Struct, kw_only=True):
    """One setting.

    Attributes:
        key: As in config.toml.
        value: Its value; credentials in addresses are left out.
        source: Where it comes from: "default", a flag, an environment variable, or file and line.
        default: Its default; null for the home.
        effect, when, origin: What it does, when to change it, and where its default comes from.
        unit: Unit of the value, "" for none.
        flag, env: Names of flag and environment variable.
    """

    key: str
    value: Any
    source: str
    default: Any
    effect: str
    when: str
    origin: str
    unit: str
    flag: str
    env: str


class SecretView(msgspec.Struct, kw_only=True):
    """Whether a secret is there; never the secret.

    Attributes:
        name: What it is.
        where: File or environment variable.
        is_set: Whether it is there.
        effect: What it is for.
    """

    name: str
    where: str
    is_set: bool
    effect: str


class ConfigView(msgspec.Struct, kw_only=True):
    """``GET /api/v1/config``: the settings with which the daemon runs.

    Attributes:
        settings: All, in the order of the table.
        count, digest: How many, and the digest over keys, values and sources; ``agentmesh config explain`` prints the same unless
            the daemon was started with flags, or something changed since.
        secrets: What is kept beside them.
        file: Path of config.toml.
        changed: Keys that would have another value if the daemon started now.
    """

    settings: list[SettingView]
    count: int
    digest: str
    secrets: list[SecretView] = []
    file: str = ""
    changed: list[str] = []
