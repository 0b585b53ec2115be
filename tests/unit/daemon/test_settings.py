"""Settings: each source, its place in the order, and what a wrong value says."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.daemon.capacity import capacity_tier, pick_tier
from agentmesh.daemon.home import Home
from agentmesh.daemon.knob_table import show_value, table
from agentmesh.daemon.knobs import Settings
from agentmesh.daemon.settings import check_seed, load, parse_listen, set_value
from agentmesh.errors import ConfigError, Full, UsageError
from agentmesh.identity.node_record import node_body

SEED = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK@127.0.0.1:6374"


def config(home: Path, text: str) -> dict[str, str]:
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text(text, "utf-8")
    return {"AGENTMESH_HOME": str(home)}


def test_without_any_source_every_value_is_its_default(tmp_path: Path) -> None:
    loaded = load({}, {"AGENTMESH_HOME": str(tmp_path)})
    assert loaded.settings.port == 6374
    assert loaded.settings.transports == ("iroh",)
    assert loaded.settings.require_signed_registration is True
    assert loaded.settings.home == tmp_path
    assert {s for k, s in loaded.sources.items() if k != "home"} == {"default"}
    assert loaded.settings.name, "the host name stands in"


def test_flag_beats_environment_beats_profile_beats_file(tmp_path: Path) -> None:
    env = config(
        tmp_path, "port = 1111\nlog_level = 'debug'\nlinks_max = 5\n[profile.lab]\nport = 2222\nlinks_max = 6\n"
    )
    assert load({}, env).settings.port == 1111
    assert load({}, env, profile="lab").settings.port == 2222
    env["AGENTMESH_PORT"] = "3333"
    assert load({}, env, profile="lab").settings.port == 3333
    loaded = load({"port": 4444}, env, profile="lab")
    assert loaded.settings.port == 4444
    assert (loaded.settings.links_max, loaded.settings.log_level) == (6, "debug")
    assert loaded.sources["port"] == "flag --port"
    assert "line 6" in loaded.sources["links_max"]
    assert "[profile.lab]" in loaded.sources["links_max"]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("port = 'x'", "config.value", ["config.toml line 1", "port"]),
        ("\nport = 70000", "config.value", ["line 2", "port"]),
        ("prot = 1", "config.key", ["line 1", "'prot'"]),
        ("port = ", "config.file", ["not valid TOML"]),
        ("mdns = 'perhaps'", "config.value", ["mdns"]),
        ("transports = []", "config.value", ["transports"]),
        ("transports = ['smoke']", "config.value", ["transports"]),
        ("listen = 'nowhere'", "config.value", ["listen"]),
        ("seeds = ['me@here']", "config.value", ["seeds"]),
        ("lease_gone_s = 3", "config.value", ["lease_gone_s"]),
        ("home = '/tmp'", "config.key", ["home"]),
        ("otel_endpoint = 'collector:4318'", "config.value", ["otel_endpoint"]),
        ("otel_endpoint = 'http://me:pw@host'", "config.value", ["otel_endpoint"]),
        ("otel_content = 'some'", "config.value", ["otel_content"]),
        ("otel_sample = 2", "config.value", ["otel_sample"]),
        ("profile = 3", "config.invalid", ["profile"]),
        ("name = 'a b'", "config.value", ["name"]),
        ("[profile.x]\nprot = 1", "config.key", ["[profile.x]"]),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_next_step(
    tmp_path: Path, text: str, code: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, config(tmp_path, text))
    assert caught.value.code == code
    assert caught.value.hint
    for word in words:
        assert word in caught.value.detail


def test_an_unknown_key_names_near_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, config(tmp_path, "lease_gon = 3"))
    assert caught.value.extra["did_you_mean"][0] == "lease_gone_s"
    assert "lease_gone_s" in str(caught.value.hint)


def test_an_unknown_profile_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, config(tmp_path, "[profile.lab]\nport = 1"), profile="lap")
    assert caught.value.extra["did_you_mean"] == ["lab"]


@pytest.mark.parametrize("content", [f'{{"seeds": ["{SEED}"]}}', f'["{SEED}"]'])
def test_bootstrap_seeds_are_added_to_those_that_are_set(tmp_path: Path, content: str) -> None:
    other = SEED.replace("127.0.0.1", "192.0.2.1")
    env = config(tmp_path, f"seeds = ['{other}']")
    (tmp_path / "bootstrap.json").write_text(content)
    loaded = load({}, env)
    assert loaded.settings.seeds == (other, SEED)
    assert loaded.sources["seeds"].endswith("+ bootstrap.json")


@pytest.mark.parametrize("content", ["{", "{}", "3", '{"seeds": 3}', '["nobody@nowhere"]', "[" * 5000, "\udcff"])
def test_a_malformed_bootstrap_file_is_refused(tmp_path: Path, content: str) -> None:
    env = config(tmp_path, "")
    (tmp_path / "bootstrap.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        load({}, env)
    assert "bootstrap.json" in caught.value.detail


def test_a_config_larger_than_a_megabyte_is_not_parsed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="larger than"):
        load({}, config(tmp_path, "#" * 1_100_000))


def test_set_writes_a_value_that_load_reads_back(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    set_value(home, "seeds", SEED)
    set_value(home, "mdns", "off")
    set_value(home, "port", "7001", profile="lab")
    loaded = load({"home": home.path}, {}, profile="lab").settings
    assert (loaded.seeds, loaded.mdns, loaded.port) == ((SEED,), False, 7001)
    set_value(home, "mdns", None)
    assert load({"home": home.path}, {}).settings.mdns is True
    assert home.config.stat().st_mode & 0o077 == 0


def test_set_refuses_a_wrong_value_and_leaves_the_file_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    config(tmp_path, "port = 7001\n")
    for key, text in (("port", "many"), ("nothing", "1"), ("home", "/tmp"), ("lease_gone_s", "1")):
        with pytest.raises(ConfigError):
            set_value(home, key, text)
    assert home.config.read_text() == "port = 7001\n"


def test_set_keeps_a_copy_when_comments_would_be_lost(tmp_path: Path) -> None:
    home = Home(tmp_path)
    config(tmp_path, "# why\nport = 7001\n")
    assert set_value(home, "port", "7002") is True
    assert (tmp_path / "config.toml.bak").read_text() == "# why\nport = 7001\n"


@pytest.mark.parametrize("text", ["", "x", "host:", "host:99999", "::1:5", "[::1]", "a b:1"])
def test_a_bad_listen_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_listen(text)


def test_listen_addresses_are_split() -> None:
    assert parse_listen("0.0.0.0:6374") == ("0.0.0.0", 6374)
    assert parse_listen("[::]:0") == ("::", 0)


def test_seeds_of_every_transport_are_read() -> None:
    for seed in (SEED, f"tls:{SEED}", f"ws:{SEED.replace('127.0.0.1:6374', 'wss://host.example/mesh')}"):
        assert check_seed(seed) == seed
    for seed in ("", "x", SEED.split("@")[0], f"smoke:{SEED}", SEED + "0000"):
        with pytest.raises(ConfigError):
            check_seed(seed)


def test_every_setting_explains_itself() -> None:
    for row in table():
        assert len(row.knob.effect) > 20, row.key
        assert row.knob.when.endswith("."), row.key
        assert row.knob.origin, row.key
        assert (row.knob.unit != "") == row.key.endswith(("_s", "_d", "bytes_max")), row.key
    assert len(table()) == len(Settings.__struct_fields__)
    assert len({row.flag for row in table()}) == len(table())


def test_a_shown_value_is_read_back_as_the_same(tmp_path: Path) -> None:
    for row in table():
        if row.key == "home":
            continue
        env = {"AGENTMESH_HOME": str(tmp_path), row.env: show_value(row.default)}
        loaded = load({}, env).settings
        if row.key != "name":
            assert getattr(loaded, row.key) == row.default


def test_a_home_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "home_version").write_text("2\n")
    with pytest.raises(ConfigError) as caught:
        load({"home": tmp_path}, {})
    assert caught.value.code == "home.newer"
    assert [p.name for p in tmp_path.iterdir()] == ["home_version"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_home_is_an_error_with_the_next_step(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(Full) as caught:
            Home(tmp_path / "h").prepare()
    finally:
        tmp_path.chmod(0o700)
    assert caught.value.code == "store.read_only"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "store.full"),
        (errno.EDQUOT, "store.full"),
        (errno.EROFS, "store.read_only"),
        (errno.EIO, "store.failed"),
    ],
)
def test_a_disk_that_fails_is_an_error_that_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    home = Home(tmp_path)
    home.prepare()
    home.version_file.unlink()
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(Full) as caught:
        home.prepare()
    assert caught.value.code == code
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == [], "half a file was left"


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "h").write_text("")
    with pytest.raises(ConfigError):
        Home(tmp_path / "h").prepare()


def test_a_home_in_which_others_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "something").write_text("")
    with pytest.raises(ConfigError) as caught:
        Home(tmp_path).prepare()
    assert caught.value.code == "home.permissions"


@pytest.mark.parametrize(
    ("text", "want"), [("capacity = 3", "3"), ("capacity = '0'", "0"), ("capacity = 'auto'", "auto"), ("", "auto")]
)
def test_capacity_is_a_tier_or_auto(tmp_path: Path, text: str, want: str) -> None:
    assert load({}, config(tmp_path, text)).settings.capacity == want


@pytest.mark.parametrize(
    "text", ["capacity = 5", "capacity = true", "capacity = 'big'", "site = 'Über'", "site = 'a b'"]
)
def test_a_capacity_or_site_that_no_record_could_carry_is_refused_at_start(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, config(tmp_path, text))
    assert caught.value.code == "config.value"


@given(st.text(alphabet="aZ0._-é /\n", max_size=34))
def test_settings_and_node_records_agree_on_what_a_site_is(text: str) -> None:
    try:
        node_body(seq=1, iat=1, wire=1, addresses=(), site=text)
        fits_record = True
    except UsageError:
        fits_record = False
    with tempfile.TemporaryDirectory() as home:
        try:
            fits_settings = load({"site": text, "home": home}, {}).settings.site == text
        except ConfigError:
            fits_settings = False
    assert fits_settings == fits_record


@pytest.mark.parametrize(
    ("cores", "gib", "tier"), [(1, 64, 0), (4, 1, 0), (2, 4, 1), (64, 8, 1), (8, 16, 2), (256, 1024, 2)]
)
def test_auto_capacity_offers_what_the_machine_can_carry_and_never_the_top_tiers(
    cores: int, gib: int, tier: int
) -> None:
    assert pick_tier(cores, gib * 1024**3) == tier
    assert capacity_tier("4") == 4
    assert 0 <= capacity_tier("auto") <= 2


@pytest.mark.parametrize(
    "name", ["auto", "builtin", "minilm", "http://127.0.0.1:11434#nomic-embed-text", "https://x.test/v1#a/b:c"]
)
def test_an_embedder_is_one_of_ours_or_an_address(tmp_path: Path, name: str) -> None:
    assert load({"home": tmp_path, "embedder": name}, {}).settings.embedder == name


@pytest.mark.parametrize(
    "name", ["", "word2vec", "http://", "ftp://x", "http://u:p@h#m", "http://h?key=1#m", "http://h#a b"]
)
def test_an_embedder_that_nobody_could_open_is_refused_at_start(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"home": tmp_path, "embedder": name}, {})
    assert caught.value.code == "config.value"
    assert "u:p" not in str(caught.value.to_dict())


def test_models_lie_in_the_home_unless_a_directory_is_named(tmp_path: Path) -> None:
    assert load({"home": tmp_path}, {}).settings.models == tmp_path / "models"
    assert load({"home": tmp_path, "models_dir": "/srv/models"}, {}).settings.models == Path("/srv/models")
    with pytest.raises(ConfigError):
        load({"home": tmp_path, "models_dir": "models"}, {})
