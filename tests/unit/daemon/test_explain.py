"""Settings as CLI and API show them: where each value comes from, no secret, and what a new start would change."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from agentmesh.daemon.explain import config_view, running, secret_views
from agentmesh.daemon.home import Home
from agentmesh.daemon.knobs import Settings
from agentmesh.daemon.settings import load, set_value


def test_every_setting_is_shown_with_its_value_and_where_that_comes_from(tmp_path: Path) -> None:
    set_value(Home(tmp_path), "site", "berlin")
    loaded = load({"home": tmp_path, "port": "0"}, {"AGENTMESH_MDNS": "off"})
    view = config_view(loaded)
    shown = {one.key: one for one in view.settings}
    assert list(shown) == list(Settings.__struct_fields__)
    assert (view.count, view.file) == (len(shown), str(tmp_path / "config.toml"))
    assert (shown["port"].value, shown["port"].source) == (0, "flag --port")
    assert (shown["mdns"].value, shown["mdns"].source) == (False, "environment AGENTMESH_MDNS")
    assert (shown["site"].value, shown["site"].source) == ("berlin", f"{tmp_path / 'config.toml'} line 1")
    assert shown["log_level"].source == "default"
    assert all(one.effect and one.when and one.origin for one in view.settings)
    assert config_view(load({"home": tmp_path, "port": "0"}, {"AGENTMESH_MDNS": "off"})).digest == view.digest
    assert config_view(load({"home": tmp_path, "port": "1"}, {"AGENTMESH_MDNS": "off"})).digest != view.digest


def test_a_credential_in_an_address_and_what_lies_in_files_is_never_shown(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.api_token.write_text("hidden-token")
    url = "wss://anna:hidden-word@mesh.example/x?token=hidden-key&dim=8"
    view = config_view(
        load({"home": tmp_path, "ws_public_url": url}, {}), environ={"AGENTMESH_EMBEDDER_KEY": "hidden-env"}
    )
    assert "hidden" not in msgspec.json.encode(view).decode()
    shown = {one.key: one.value for one in view.settings}
    assert shown["ws_public_url"] == "wss://…@mesh.example/x?token=…&dim=8"
    there = {one.name: one.is_set for one in view.secrets}
    assert there == {
        "node key": False, "API token": True, "operator key": False, "root key": False, "embedder key": True,
    }  # fmt: skip
    assert not any(one.is_set for one in secret_views(Home(tmp_path / "none"), {}))


def test_a_running_node_says_which_settings_a_new_start_would_change(tmp_path: Path) -> None:
    show = running(load({"home": tmp_path, "port": "0"}), None)
    assert show().changed == []
    set_value(Home(tmp_path), "site", "berlin")
    set_value(Home(tmp_path), "port", "7000")  # the flag outweighs it
    view = show()
    assert view.changed == ["site"]
    assert next(one.value for one in view.settings if one.key == "site") == "", "what runs is what is shown"
    (tmp_path / "config.toml").write_text("= broken")
    assert show().changed == []
    assert json.loads(msgspec.json.encode(show()))["count"] == view.count
