"""The daemon's log: one JSON object per line whatever is logged, private, bounded, and never in the way."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentmesh.errors import ConfigError, Full
from agentmesh.obs import log as module
from agentmesh.obs.log import JsonFormatter, setup_logging


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    level, own = root.level, logging.getLogger("agentmesh").level
    yield
    setup_logging(stderr=False)
    root.setLevel(level)
    logging.getLogger("agentmesh").setLevel(own)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_become_json_lines_with_time_level_logger_and_extras(tmp_path: Path) -> None:
    path = tmp_path / "daemon.log"
    setup_logging("info", file=path, stderr=False)
    logging.getLogger("agentmesh.node").info("peer %s\nis up", "é", extra={"peer": "did:key:x", "odd": {1, 2} - {2}})
    logging.getLogger("agentmesh.node").debug("not shown")
    logging.getLogger("other").info("not shown either")
    (found,) = lines(path)
    assert found["msg"] == "peer é\nis up"
    assert (found["level"], found["logger"], found["peer"]) == ("info", "agentmesh.node", "did:key:x")
    assert str(found["ts"]).endswith("+00:00")
    assert path.stat().st_mode & 0o077 == 0


def test_an_error_brings_its_code_and_trace(tmp_path: Path) -> None:
    path = tmp_path / "daemon.log"
    setup_logging(file=path, stderr=False)
    try:
        raise Full("no room")
    except Full:
        logging.getLogger("agentmesh").exception("cannot write")
    (found,) = lines(path)
    assert found["code"] == "store.full"
    assert "no room" in str(found["error"])


def test_hostile_texts_and_wrong_arguments_still_give_one_line(tmp_path: Path) -> None:
    path = tmp_path / "daemon.log"
    setup_logging(file=path, stderr=False)
    log = logging.getLogger("agentmesh")
    log.warning("\ud800 %s", "\x1b[31m")
    log.warning("x" * 100_000)
    found = lines(path)
    assert len(found) == 2
    assert len(str(found[1]["msg"])) == 8000
    wrong = logging.LogRecord("agentmesh", logging.WARNING, "", 0, "%d", ("no number",), None)
    assert "no number" in json.loads(JsonFormatter().format(wrong))["msg"]


def test_the_file_is_rotated_so_that_the_disk_does_not_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_BYTES_MAX", 2000)
    setup_logging(file=tmp_path / "daemon.log", stderr=False)
    for n in range(200):
        logging.getLogger("agentmesh").warning("line %d", n)
    files = sorted(p.name for p in tmp_path.iterdir())
    assert files == ["daemon.log", "daemon.log.1", "daemon.log.2", "daemon.log.3"]
    line = len((tmp_path / "daemon.log").read_bytes().splitlines(keepends=True)[-1])
    assert all(p.stat().st_size < 2000 + line for p in tmp_path.iterdir())
    assert lines(tmp_path / "daemon.log")[-1]["msg"] == "line 199"


def test_a_log_that_cannot_be_moved_aside_is_cut_so_that_the_disk_does_not_fill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(module, "LOG_BYTES_MAX", 2000)
    monkeypatch.setattr(module.os, "replace", refuse)
    setup_logging(file=tmp_path / "daemon.log", stderr=False)
    for n in range(200):
        logging.getLogger("agentmesh").warning("line %d", n)
    assert [p.name for p in tmp_path.iterdir()] == ["daemon.log"]
    assert (tmp_path / "daemon.log").stat().st_size < 2_500
    assert lines(tmp_path / "daemon.log")[-1]["msg"] == "line 199"


def test_a_log_that_somebody_moved_or_removed_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "daemon.log"
    setup_logging(file=path, stderr=False)
    log = logging.getLogger("agentmesh")
    log.warning("one")
    path.rename(tmp_path / "moved")
    log.warning("two")
    path.unlink()
    log.warning("three")
    assert [line["msg"] for line in lines(tmp_path / "moved")] == ["one"]
    assert [line["msg"] for line in lines(path)] == ["three"]
    assert path.stat().st_mode & 0o077 == 0


def test_a_log_that_cannot_be_written_stops_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup_logging(file=tmp_path / "daemon.log", stderr=False)
    (handler,) = [h for h in logging.getLogger().handlers if isinstance(h.formatter, JsonFormatter)]

    class Disk:
        def write(self, text: str) -> None:
            raise OSError(28, "no space left")

        def flush(self) -> None: ...

        def close(self) -> None: ...

        def seek(self, *_: int) -> None: ...

        def tell(self) -> int:
            return 0

        def fileno(self) -> int:
            return real.fileno()

    real = handler.stream  # type: ignore[attr-defined]
    before = module.Lost.lines
    monkeypatch.setattr(handler, "stream", Disk())
    logging.getLogger("agentmesh").warning("into the void")
    assert capsys.readouterr().err == ""
    assert module.Lost.lines == before + 1
    monkeypatch.setattr(handler, "stream", real)
    logging.getLogger("agentmesh").warning("there is room again")
    assert lines(tmp_path / "daemon.log")[-1]["msg"] == "there is room again"


def test_setting_up_again_replaces_what_was_set_up_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(file=tmp_path / "a.log", stderr=False)
    setup_logging(file=tmp_path / "b.log", stderr=True, style="text")
    logging.getLogger("agentmesh.net").warning("once")
    assert lines(tmp_path / "b.log")[0]["msg"] == "once"
    assert (tmp_path / "a.log").read_text() == ""
    assert capsys.readouterr().err.endswith("warning net: once\n")


def test_wrong_settings_are_refused_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        setup_logging("loud")
    assert refused.value.code == "log.level"
    with pytest.raises(ConfigError) as refused:
        setup_logging(file=tmp_path / "missing" / "daemon.log")
    assert refused.value.code == "log.file"
    assert refused.value.hint
