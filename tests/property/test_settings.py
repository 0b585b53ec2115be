"""Precedence: for any mix of sources, each value is that of the strongest source that has it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.daemon.knob_table import show_value
from agentmesh.daemon.settings import load

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "port": st.integers(0, 65535),
    "mdns": st.booleans(),
    "links_max": st.integers(1, 10_000),
    "call_timeout_s": st.floats(0.001, 86_400),
    "log_level": st.sampled_from(["debug", "info", "warning", "error"]),
    "transports": st.lists(st.sampled_from(["iroh", "tls", "ws"]), min_size=1, max_size=3, unique=True),
    "relays": st.lists(st.sampled_from(["r1", "r2", "r3"]), max_size=3, unique=True),
}
SOURCE = st.fixed_dictionaries({}, optional=VALUES)


@given(flags=SOURCE, env=SOURCE, profile=SOURCE, file=SOURCE)
def test_the_strongest_source_wins_for_every_key(
    flags: dict[str, Any], env: dict[str, Any], profile: dict[str, Any], file: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as home:
        document = {**file, "profile": {"p": profile}}
        (Path(home) / "config.toml").write_text(tomli_w.dumps(document), "utf-8")
        environ = {f"AGENTMESH_{k.upper()}": show_value(tuple(v) if isinstance(v, list) else v) for k, v in env.items()}
        loaded = load({**flags, "home": home}, environ, profile="p")
    # An empty variable counts as not given, as shells make them.
    given_env = {k: v for k, v in env.items() if v != []}
    for key in VALUES:
        for source, name in (
            (flags, "flag"),
            (given_env, "environment"),
            (profile, "[profile.p]"),
            (file, "config.toml"),
        ):
            if key in source:
                want = tuple(source[key]) if isinstance(source[key], list) else source[key]
                assert getattr(loaded.settings, key) == want
                assert name in loaded.sources[key]
                break
        else:
            assert loaded.sources[key] == "default"
