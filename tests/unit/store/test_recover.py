"""What the log does at opening with whatever it finds on disk."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agentmesh.store.base import EventLogConfig
from agentmesh.store.eventlog import EventLog
from agentmesh.store.index import INDEX_VERSION
from agentmesh.wire.event import EVENT_BYTES_MAX, EventV1, encode_json

RUN = "a" * 32
SMALL = EventLogConfig(segment_bytes_max=1500)


def event(number: int, **fields: Any) -> EventV1:
    return EventV1(id=f"{number:032x}", ts=number, kind="message", run_id=RUN, lamport=number, **fields)


async def fill(directory: Path, count: int, config: EventLogConfig | None = None) -> None:
    log = await EventLog.open(directory, config=config)
    for start in range(1, count + 1, 5):
        await log.append_durable([event(n) for n in range(start, min(start + 5, count + 1))])
    await log.aclose()


async def opened(directory: Path, config: EventLogConfig | None = None) -> tuple[EventLog, list[int]]:
    log = await EventLog.open(directory, config=config)
    return log, [int(e.id, 16) for e in await log.run_events(RUN)]


def kept_aside(directory: Path) -> list[Path]:
    return list(directory.glob("torn-*.bin"))


async def test_a_healthy_log_is_opened_without_reading_it_again(tmp_path: Path) -> None:
    await fill(tmp_path, 20, SMALL)
    log, found = await opened(tmp_path, SMALL)
    assert found == list(range(1, 21))
    assert (log.report.sentences, log.report.rows_added, log.report.rebuilt) == ([], 0, False)
    await log.aclose()


async def test_a_torn_last_line_is_cut_kept_aside_counted_and_reported(tmp_path: Path) -> None:
    await fill(tmp_path, 3)
    path = tmp_path / "000001.jsonl"
    whole = path.read_bytes()
    torn = encode_json(event(4))[:-7]
    path.write_bytes(whole + torn)
    log, found = await opened(tmp_path)
    assert found == [1, 2, 3]
    assert log.report.torn_bytes == len(torn)
    assert "torn" in log.report.sentences[0]
    assert path.read_bytes() == whole
    assert [p.read_bytes() for p in kept_aside(tmp_path)] == [torn]
    assert await log.append_durable([event(4)]) == 4
    await log.aclose()
    log, found = await opened(tmp_path)
    assert (found, log.report.sentences) == ([1, 2, 3, 4], [])
    await log.aclose()


async def test_a_whole_last_line_without_its_newline_is_kept(tmp_path: Path) -> None:
    await fill(tmp_path, 3)
    path = tmp_path / "000001.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    log, found = await opened(tmp_path)
    assert found == [1, 2, 3]
    await log.append_durable([event(4)])
    assert path.read_bytes().count(b"\n") == 4
    await log.aclose()


async def test_zeros_left_by_a_dead_machine_are_cut_and_at_most_sixteen_torn_lines_are_kept(tmp_path: Path) -> None:
    await fill(tmp_path, 3)
    path = tmp_path / "000001.jsonl"
    for number in range(20):
        with path.open("ab") as file:
            file.write(bytes(200_000) if number == 19 else b"x" * (number + 1))
        log, found = await opened(tmp_path)
        assert found == [1, 2, 3, *range(4, 4 + number)]
        await log.append_durable([event(4 + number)])
        await log.aclose()
    kept = kept_aside(tmp_path)
    assert len(kept) == 16
    assert max(p.stat().st_size for p in kept) <= 64 * 1024


async def test_garbage_in_the_middle_is_skipped_counted_reported_and_never_deleted(tmp_path: Path) -> None:
    garbage = [b"not json", b'{"id":1}', b"\x00\xff\xfe", b"[" * 5000, b"", b"{}", b'"text"', b'{"event_type":[]}']
    lines = [encode_json(event(1)), *garbage, encode_json(event(2))]
    (tmp_path / "000001.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    log, found = await opened(tmp_path)
    assert found == [1, 2]
    assert log.report.garbage_lines == len(garbage) - 1, "an empty line is no garbage"
    assert any("unreadable" in sentence for sentence in log.report.sentences)
    await log.append_durable([event(3)])
    await log.aclose()
    assert (tmp_path / "000001.jsonl").read_bytes().startswith(b"\n".join(lines))
    log, found = await opened(tmp_path)
    assert (found, log.report.sentences) == ([1, 2, 3], []), "garbage once known is no news"
    await log.aclose()


async def test_a_line_longer_than_any_event_is_passed_over(tmp_path: Path) -> None:
    with (tmp_path / "000001.jsonl").open("wb") as file:
        file.write(
            encode_json(event(1)) + b"\n" + b"y" * (2 * EVENT_BYTES_MAX + 5) + b"\n" + encode_json(event(2)) + b"\n"
        )
    log, found = await opened(tmp_path)
    assert found == [1, 2]
    assert log.report.garbage_lines == 1
    await log.aclose()


async def test_older_records_are_promoted_and_get_positions_among_the_newer(tmp_path: Path) -> None:
    old = (
        b'{"ts":"2026-02-19T10:00:00+00:00","run_id":"old-run","event_type":"message","task_id":"t","step":"s","message":"hi"}\n'
        b'{"ts":1760000000.5,"run_id":"old-run","event_type":"tool","message":null,"metadata":{"k":1}}\n'
    )
    new = encode_json(EventV1(id="n", ts=1, kind="message", run_id="old-run", lamport=9, seq=7)) + b"\n"
    (tmp_path / "000001.jsonl").write_bytes(old + new + old[: old.index(b"\n") + 1].replace(b"hi", b"later"))
    log = await EventLog.open(tmp_path)
    assert log.report.promoted == 3
    found = await log.run_events("old-run")
    assert sorted((e.seq, e.kind) for e in found) == [(1, "message"), (2, "tool"), (7, "message"), (8, "message")]
    assert next(e for e in found if e.seq == 1).payload == {"text": "hi"}
    assert await log.resolve("last") == "old-run"
    assert log.append(event(1)) == 9
    ids = {e.seq: e.id for e in found}
    await log.aclose()
    (tmp_path / "index.sqlite").unlink()
    log = await EventLog.open(tmp_path)
    assert {e.seq: e.id for e in await log.run_events("old-run")} == ids, "a rebuilt index gives the same"
    await log.aclose()


@pytest.mark.parametrize(
    "damage", ["absent", "text", "empty", "halved", "holes", "older version", "newer version", "rows gone"]
)
async def test_a_damaged_index_is_rebuilt_from_the_jsonl_and_said_so(tmp_path: Path, damage: str) -> None:
    await fill(tmp_path, 200, SMALL)
    path = tmp_path / "index.sqlite"
    if damage == "absent":
        path.unlink()
    elif damage == "text":
        path.write_text("this is no database, it only looks long enough to be read as one" * 100)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "halved":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "holes":
        data = bytearray(path.read_bytes())
        for at in range(4096, len(data), 8192):
            data[at : at + 4096] = bytes(4096)
        path.write_bytes(data)
    else:
        db = sqlite3.connect(path)
        if damage == "rows gone":
            db.execute("DELETE FROM events WHERE seq IN (7, 8)")
        else:
            db.execute(f"PRAGMA user_version={INDEX_VERSION + (1 if damage == 'newer version' else -1)}")
        db.commit()
        db.close()
    log, found = await opened(tmp_path, SMALL)
    assert found == list(range(1, 201))
    assert log.report.rebuilt
    assert any("rebuilt" in sentence for sentence in log.report.sentences)
    assert await log.append_durable([event(201)]) == 201
    await log.aclose()


async def test_an_older_copy_of_the_index_is_brought_forward(tmp_path: Path) -> None:
    await fill(tmp_path, 20, SMALL)
    shutil.copy(tmp_path / "index.sqlite", tmp_path / "old")
    log = await EventLog.open(tmp_path, config=SMALL)
    await log.append_durable([event(n) for n in range(21, 41)])
    await log.aclose()
    shutil.move(tmp_path / "old", tmp_path / "index.sqlite")
    log, found = await opened(tmp_path, SMALL)
    assert found == list(range(1, 41))
    assert log.count == 40
    assert log.report.sentences
    await log.aclose()


async def test_rows_without_their_lines_are_removed_when_the_jsonl_is_the_older_one(tmp_path: Path) -> None:
    await fill(tmp_path, 10)
    path = tmp_path / "000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:6]))
    log, found = await opened(tmp_path)
    assert found == [1, 2, 3, 4, 5, 6]
    assert (log.report.rows_removed, log.report.rows_added) == (4, 0)
    assert "shorter" in log.report.sentences[0]
    assert await log.append_durable([event(11)]) == 7
    await log.aclose()


async def test_a_segment_that_is_gone_takes_its_rows_along(tmp_path: Path) -> None:
    await fill(tmp_path, 40, SMALL)
    (tmp_path / "000002.jsonl").unlink()
    log, found = await opened(tmp_path, SMALL)
    assert len(found) == 40 - log.report.rows_removed < 40
    assert "gone" in log.report.sentences[0]
    assert not log.report.rebuilt
    await log.aclose()


async def test_a_changed_closed_segment_leads_to_a_new_index(tmp_path: Path) -> None:
    await fill(tmp_path, 40, SMALL)
    path = tmp_path / "000001.jsonl"
    with path.open("ab") as file:
        file.write(encode_json(event(99)) + b"\n")
    log, found = await opened(tmp_path, SMALL)
    assert found == [*range(1, 41), 99]
    assert log.report.rebuilt
    follower = log.follow(0)
    seqs = [(await anext(follower)).seq for _ in range(41)]
    assert seqs == sorted(set(seqs))
    await log.aclose()


async def test_an_emptied_directory_starts_afresh_without_stale_rows(tmp_path: Path) -> None:
    await fill(tmp_path, 10)
    (tmp_path / "000001.jsonl").unlink()
    log, found = await opened(tmp_path)
    assert (found, log.count, log.last_seq) == ([], 0, 0)
    assert await log.append_durable([event(1)]) == 1
    await log.aclose()


async def test_a_line_that_claims_an_absurd_position_gets_the_next_one(tmp_path: Path) -> None:
    far = event(2)
    far.seq = 2**62
    (tmp_path / "000001.jsonl").write_bytes(encode_json(event(1)) + b"\n" + encode_json(far) + b"\n")
    log, found = await opened(tmp_path)
    assert (found, log.last_seq) == ([1, 2], 2)
    await log.aclose()


async def test_jsonl_files_that_are_no_segments_are_named(tmp_path: Path) -> None:
    (tmp_path / "old-log.jsonl").write_bytes(encode_json(event(1)) + b"\n")
    log, found = await opened(tmp_path)
    assert found == []
    assert "old-log.jsonl" in log.report.sentences[0]
    await log.aclose()


async def test_the_files_can_be_read_by_their_owner_only(tmp_path: Path) -> None:
    await fill(tmp_path / "events", 5)
    assert (tmp_path / "events").stat().st_mode & 0o077 == 0
    for path in (tmp_path / "events").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name
