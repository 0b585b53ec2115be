"""The audit log on disk: what is written survives, what is changed is found, and nothing runs unrecorded."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import Corrupt, DecodeError, Full, RecordNotFound, SignatureError, StoreError, UsageError
from agentmesh.identity.audit_record import body_of, read_record
from agentmesh.identity.checkpoint import read_checkpoint, sign_checkpoint
from agentmesh.identity.keys import KeyPair
from agentmesh.store import audit, audit_files, audit_read
from agentmesh.store.audit import AuditLog, time_of
from agentmesh.store.audit_check import check_log
from agentmesh.store.audit_files import AuditConfig
from agentmesh.store.audit_survey import Wanted, look_back, pieces
from agentmesh.wire.audit_views import AuditProof

KEY, OTHER = KeyPair(bytes([1]) * 32), KeyPair(bytes([2]) * 32)
SMALL = AuditConfig(segment_bytes_max=2_000, reserve_bytes=1 << 16)


def call(number: int, **members: Any) -> dict[str, Any]:
    given = {"task": f"task-{number:04d}", "txn": f"run-{number // 10}", "outcome": "completed", **members}
    return body_of(
        "call", "allowed", agent=OTHER.did, resource=KEY.did, time=time_of(1_800_000_000_000_000 + number), **given
    )


async def filled(directory: Path, count: int = 20, config: AuditConfig = SMALL) -> AuditLog:
    log = AuditLog.open(directory, KEY, config)
    for number in range(count):
        await log.write(call(number))
    return log


def lines(directory: Path) -> list[bytes]:
    return list(audit_files.records_from(directory, 0, 2**53))


async def test_what_was_written_is_there_after_a_restart_and_is_signed(tmp_path: Path) -> None:
    log = await filled(tmp_path / "audit")
    await log.aclose()
    assert len(list((tmp_path / "audit").glob("*.jsonl"))) > 3, "the log went over several segments"
    log = AuditLog.open(tmp_path / "audit", KEY, SMALL)
    assert log.refusal is None
    assert log.sentences == []
    assert await log.write(call(20)) == 20
    await log.aclose()
    records = [read_record(line) for line in lines(tmp_path / "audit")]
    assert [r.seq for r in records] == list(range(21))
    assert [r.data["task"] for r in records] == [f"task-{n:04d}" for n in range(21)]
    checked = check_log(tmp_path / "audit", node=KEY.did)
    assert (checked.size, checked.unsigned, checked.findings) == (21, 0, [])


async def test_many_that_wait_share_syncs_and_each_is_told_its_own_place(tmp_path: Path, monkeypatch: Any) -> None:
    log = await filled(tmp_path / "audit", 0)
    syncs = 0
    real = audit_files._sync  # pyright: ignore[reportPrivateUsage]

    def counting(fd: int) -> None:
        nonlocal syncs
        syncs += 1
        real(fd)

    monkeypatch.setattr(audit_files, "_sync", counting)
    places = await asyncio.gather(*(log.write(call(n)) for n in range(500)))
    assert sorted(places) == list(range(500))
    assert syncs < 100
    for place, raw in enumerate(lines(tmp_path / "audit")):
        assert places[int(read_record(raw).data["task"][5:])] == place
    await log.aclose()


async def test_records_that_nobody_waits_for_share_the_sync_of_one_that_is_waited_for(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(audit, "_LINGER_S", 3600.0)
    log = await filled(tmp_path / "audit", 1)
    syncs: list[int] = []
    real = audit_files._sync  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(audit_files, "_sync", lambda fd: (syncs.append(fd), real(fd)))
    for number in range(1, 4):
        log.write_soon(call(number), log.begin(call(number)))
    assert await log.write(call(4)) == 4
    assert len(syncs) == 1
    assert [read_record(raw).data["task"] for raw in lines(tmp_path / "audit")] == [f"task-{n:04d}" for n in range(5)]
    log.write_soon(call(5), log.begin(call(5)))
    await log.aclose()
    assert len(lines(tmp_path / "audit")) == 6


async def test_a_record_that_nobody_waits_for_is_written_all_the_same(tmp_path: Path) -> None:
    log = await filled(tmp_path / "audit", 0)
    log.write_soon(call(0), log.begin(call(0)))
    async with asyncio.timeout(10):
        while log.head is None or log.head.size < 1:  # noqa: ASYNC110 it is signed a moment after it is written, by a thread
            await asyncio.sleep(0.005)
    assert read_checkpoint((tmp_path / "audit" / "checkpoint").read_text(), node=KEY.did).size == 1
    await log.aclose()


async def test_what_was_settled_is_signed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(audit, "_SIGN_S", 3600.0)
    log = await filled(tmp_path / "audit", 3)
    await log.settle()
    assert read_checkpoint((tmp_path / "audit" / "checkpoint").read_text(), node=KEY.did).size == 3
    await log.aclose()


async def test_a_call_whose_record_did_not_leave_the_process_is_recorded_at_the_next_start(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(audit, "_LINGER_S", 3600.0)
    log = await filled(tmp_path / "audit", 1)
    odd = call(1, size=2**60)  # no record can hold that; what can be kept of it is
    log.write_soon(odd, log.begin(odd))
    log._later.clear()  # pyright: ignore[reportPrivateUsage]  # the process dies
    await log.aclose()
    log = AuditLog.open(tmp_path / "audit", KEY, SMALL)
    assert log.refusal is None
    data = read_record(lines(tmp_path / "audit")[-1]).data
    assert (data["task"], data["cut"]) == ("task-0001", True)
    await log.aclose()


# What is changed is found, and named


def _replace(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(line + b"\n" for line in change(path.read_bytes().splitlines())))


def segment_of(directory: Path, seq: int) -> tuple[Path, int]:
    first = max(n for n in audit_files.segments_of(directory) if n <= seq)
    return audit_files.segment_path(directory, first), seq - first


def change_one(directory: Path) -> None:
    path, at = segment_of(directory, 7)
    _replace(path, lambda ls: [ln.replace(b"completed", b"failed") if i == at else ln for i, ln in enumerate(ls)])


def drop_one(directory: Path) -> None:
    path, at = segment_of(directory, 7)
    _replace(path, lambda ls: [ln for i, ln in enumerate(ls) if i != at])


def swap_two(directory: Path) -> None:
    first = audit_files.segments_of(directory)[1]
    _replace(audit_files.segment_path(directory, first), lambda ls: [ls[1], ls[0], *ls[2:]])


def drop_last(directory: Path) -> None:
    firsts = [n for n in audit_files.segments_of(directory) if n < 20]
    _replace(audit_files.segment_path(directory, firsts[-1]), lambda ls: ls[:-1])


def drop_segment(directory: Path) -> None:
    audit_files.segment_path(directory, audit_files.segments_of(directory)[1]).unlink()


def double_one(directory: Path) -> None:
    path, at = segment_of(directory, 7)
    _replace(path, lambda ls: [*ls[: at + 1], *ls[at:]])


def empty_all(directory: Path) -> None:
    for path in directory.glob("*.jsonl"):
        path.unlink()
    audit_files.segment_path(directory, 0).touch()


def no_checkpoint(directory: Path) -> None:
    (directory / "checkpoint").unlink()


def foreign_checkpoint(directory: Path) -> None:
    (directory / "checkpoint").write_text(sign_checkpoint(OTHER, 20, bytes(32)).text)


def forged_checkpoint(directory: Path) -> None:
    forged = sign_checkpoint(OTHER, 20, bytes(32)).text.replace(OTHER.did, KEY.did)
    (directory / "checkpoint").write_text(forged)


def garbage(directory: Path) -> None:
    path, at = segment_of(directory, 7)
    _replace(path, lambda ls: [b"\x00\xff" if i == at else ln for i, ln in enumerate(ls)])


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (change_one, "record 7 was changed"),
        (drop_one, "record 7 is missing"),
        (swap_two, "moved"),
        (drop_last, "record 19 is missing"),
        (drop_segment, "should begin with record"),
        (double_one, "record 7 stands after record 7"),
        (empty_all, "records 0 to 19 are missing"),
        (no_checkpoint, "checkpoint is missing"),
        (foreign_checkpoint, "another node"),
        (forged_checkpoint, "does not hold"),
        (garbage, "record 7 was changed"),
    ],
)
async def test_each_way_to_falsify_a_log_is_found_and_named(
    tmp_path: Path, spoil: Callable[[Path], None], named: str
) -> None:
    directory = tmp_path / "audit"
    await (await filled(directory)).aclose()
    spoil(directory)
    found = [finding.text for finding in check_log(directory, node=KEY.did).findings]
    assert any(named in text for text in found), found


@pytest.mark.parametrize("spoil", [drop_last, empty_all, no_checkpoint, foreign_checkpoint, forged_checkpoint])
async def test_a_log_that_does_not_match_its_signature_allows_no_call_and_is_left_as_it_is(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    directory = tmp_path / "audit"
    await (await filled(directory)).aclose()
    spoil(directory)
    before = {path.name: path.read_bytes() for path in directory.glob("*.jsonl")}
    log = AuditLog.open(directory, KEY, SMALL)
    assert isinstance(log.refusal, Corrupt)
    assert log.head is None
    assert "agentmesh audit verify" in log.sentences[0]
    with pytest.raises(Corrupt) as error:
        log.begin(call(99))
    assert error.value.code == "audit.history"
    with pytest.raises(StoreError):
        await log.write(call(99))
    log.write_soon(call(99))
    await log.settle()
    await log.aclose()
    assert before == {path.name: path.read_bytes() for path in directory.glob("*.jsonl")}


async def test_a_changed_record_of_the_newest_segment_is_found_at_the_start(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    await (await filled(directory, 5, AuditConfig(reserve_bytes=1 << 16))).aclose()
    change = directory / "000000000000.jsonl"
    change.write_bytes(change.read_bytes().replace(b"task-0002", b"task-0009"))
    log = AuditLog.open(directory, KEY, SMALL)
    assert isinstance(log.refusal, Corrupt)
    await log.aclose()


async def test_yesterdays_copy_is_whole_by_itself_and_found_by_a_checkpoint_that_somebody_kept(tmp_path: Path) -> None:
    directory, copy = tmp_path / "audit", tmp_path / "yesterday"
    await (await filled(directory, 10)).aclose()
    shutil.copytree(directory, copy)
    log = AuditLog.open(directory, KEY, SMALL)
    await log.write(call(10))
    await log.aclose()
    pinned = read_checkpoint((directory / "checkpoint").read_text(), node=KEY.did)
    assert check_log(copy, node=KEY.did).findings == []
    found = check_log(copy, node=KEY.did, pinned=[pinned]).findings
    assert [f.text for f in found] == ["the first 11 records are not those that the node signed"]


async def test_the_hashes_are_derived_and_made_anew_when_they_are_lost_or_damaged(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    await (await filled(directory)).aclose()
    tree = (directory / "tree.bin").read_bytes()
    for damage in (b"", tree[:100], bytes(len(tree))):
        (directory / "tree.bin").write_bytes(damage)
        assert check_log(directory, node=KEY.did).findings == []
        assert audit_read.check_proof(audit_read.prove(directory, "3", node=KEY.did), node=KEY.did)[0].seq == 3
        log = AuditLog.open(directory, KEY, SMALL)
        assert log.refusal is None
        await log.aclose()
        assert (directory / "tree.bin").read_bytes() == tree


async def test_a_line_torn_in_a_crash_is_cut_and_kept_aside_and_the_log_goes_on(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    await (await filled(directory, 5)).aclose()
    last = audit_files.segment_path(directory, audit_files.segments_of(directory)[-1])
    with last.open("ab") as file:
        file.write(b'{"data":{"act')
    log = AuditLog.open(directory, KEY, SMALL)
    assert log.refusal is None
    assert "torn" in log.sentences[0]
    assert await log.write(call(5)) == 5
    await log.aclose()
    assert (directory / "torn.bin").read_bytes() == b'{"data":{"act'
    assert check_log(directory, node=KEY.did).findings == []


async def test_records_after_the_last_signature_are_kept_and_signed_at_the_next_start(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    log = await filled(directory, 5)
    await log.aclose()
    older = (directory / "checkpoint").read_bytes()
    log = AuditLog.open(directory, KEY, SMALL)
    await log.write(call(5))
    await log.aclose()
    (directory / "checkpoint").write_bytes(older)  # as if it had been killed before it could sign
    assert check_log(directory, node=KEY.did).unsigned == 1
    log = AuditLog.open(directory, KEY, SMALL)
    assert log.head is not None
    assert log.head.size == 6
    await log.aclose()


# Calls under way


async def test_a_call_that_the_process_did_not_live_to_record_is_recorded_at_the_next_start(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    log = await filled(directory, 3)
    done = log.begin(call(10, proof="p10"))
    log.begin(call(11, proof="p11"))
    await log.write(call(10, proof="p10"), done)
    shutil.copytree(directory, tmp_path / "killed")  # what a killed process leaves
    await log.aclose()
    log = AuditLog.open(tmp_path / "killed", KEY, SMALL)
    assert "1 calls were under way" in log.sentences[0]
    await log.aclose()
    records = [read_record(line) for line in lines(tmp_path / "killed")]
    assert [(r.data["task"], r.data["outcome"]) for r in records[3:]] == [
        ("task-0010", "completed"),
        ("task-0011", "interrupted"),
    ]
    log = AuditLog.open(tmp_path / "killed", KEY, SMALL)
    assert log.sentences == [], "it is recorded once"
    await log.aclose()


async def test_a_torn_or_foreign_journal_hides_no_other_call(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    log = await filled(directory, 1)
    log.begin(call(5))
    await log.aclose()
    with (directory / "open.jsonl").open("ab") as file:
        file.write(b'[]\n{"at":"x"}\n\xff\n{"n":1,"at":0,"body":{"da')
    log = AuditLog.open(directory, KEY, SMALL)
    await log.aclose()
    assert read_record(lines(directory)[-1]).data["outcome"] == "interrupted"


async def test_the_journal_stays_small_however_many_calls_end(tmp_path: Path) -> None:
    log = await filled(tmp_path / "audit", 0, AuditConfig(reserve_bytes=1 << 16))
    stays = log.begin(call(0, purpose="stays"))
    for number in range(1, 2_500):
        log.write_soon(call(number), log.begin(call(number, note="x" * 500)))
    await log.settle()
    await asyncio.sleep(0)
    assert (tmp_path / "audit" / "open.jsonl").stat().st_size < 1024 * 1024
    assert b"stays" in (tmp_path / "audit" / "open.jsonl").read_bytes()
    await log.write(call(0, purpose="stays"), stays)
    await log.aclose()


# A disk that refuses


class Disk:
    """A disk that is full while ``full`` is set; files that exist keep their space."""

    def __init__(self, monkeypatch: Any) -> None:
        self.full = False
        self.reserve_helps = True
        self.freed = False
        write, unlink = os.write, Path.unlink

        def writing(fd: int, data: Any) -> int:
            if self.full and not self.freed:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(fd, data)

        def unlinking(path: Path, missing_ok: bool = False) -> None:
            self.freed = self.freed or (path.name == "reserve.bin" and self.reserve_helps)
            unlink(path, missing_ok)

        def opening(path: Path, *args: Any, **kw: Any) -> Any:
            if self.full and path.name == "reserve.bin":
                raise OSError(errno.ENOSPC, "No space left on device")
            return opened(path, *args, **kw)

        opened = Path.open
        monkeypatch.setattr(os, "write", writing)
        monkeypatch.setattr(Path, "unlink", unlinking)
        monkeypatch.setattr(Path, "open", opening)


async def test_on_a_full_disk_running_calls_are_recorded_from_the_reserve_and_new_ones_refused(
    tmp_path: Path, monkeypatch: Any
) -> None:
    log = await filled(tmp_path / "audit", 1)
    disk = Disk(monkeypatch)
    running = log.begin(call(1))
    disk.full = True
    assert await log.write(call(1), running) == 1
    await asyncio.sleep(0)
    with pytest.raises(Full) as error:
        log.begin(call(2))
    assert error.value.code == "store.full"
    assert "calls are refused" in log.sentences[0]
    disk.full = False
    async with asyncio.timeout(10):
        while log.refusal is not None:  # noqa: ASYNC110 the writer tries again by itself
            await asyncio.sleep(0.02)
    assert await log.write(call(2), log.begin(call(2))) == 2
    await log.aclose()
    assert check_log(tmp_path / "audit", node=KEY.did).findings == []


async def test_a_record_that_the_disk_refuses_is_not_acknowledged_but_written_once_it_can_be(
    tmp_path: Path, monkeypatch: Any
) -> None:
    log = await filled(tmp_path / "audit", 1)
    disk = Disk(monkeypatch)
    running = log.begin(call(1))
    disk.full, disk.reserve_helps = True, False
    with pytest.raises(Full):
        await log.write(call(1), running)
    with pytest.raises(Full):
        log.begin(call(2))
    disk.full = False
    async with asyncio.timeout(10):
        while log.refusal is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await log.write(call(3)) == 2
    await log.aclose()
    tasks = [json.loads(line)["data"]["task"] for line in lines(tmp_path / "audit")]
    assert tasks == ["task-0000", "task-0001", "task-0003"]
    assert check_log(tmp_path / "audit", node=KEY.did).findings == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_directory_that_cannot_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    directory.mkdir(mode=0o500)
    with pytest.raises(Full):
        AuditLog.open(directory, KEY, SMALL)


async def test_a_record_that_cannot_be_written_as_it_is_leaves_a_shorter_one_and_no_gap(tmp_path: Path) -> None:
    log = await filled(tmp_path / "audit", 1)
    assert await log.write(call(1, many=["x" * 500] * 100)) == 1
    assert await log.write(call(2, half=0.5)) == 2
    assert await log.write(call(3)) == 3
    await log.aclose()
    cut = [read_record(line) for line in lines(tmp_path / "audit")]
    assert [r.data.get("cut") for r in cut] == [None, True, True, None]
    assert [r.data["task"] for r in cut] == [f"task-{n:04d}" for n in range(4)]


# Proofs


async def test_a_record_is_proven_with_nothing_but_the_id_of_its_node(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    await (await filled(directory)).aclose()
    for ref, seq in (("0", 0), ("task-0007", 7), ("last", 19), ("run-1", 19), ("19", 19)):
        proof = audit_read.prove(directory, ref, node=KEY.did)
        record, head = audit_read.check_proof(proof, node=KEY.did)
        assert (record.seq, head.size, head.node_id) == (seq, 20, KEY.did)
    for missing in ("20", "task-0099", "xyz"):
        with pytest.raises(RecordNotFound):
            audit_read.prove(directory, missing, node=KEY.did)


async def test_a_proof_with_anything_changed_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    await (await filled(directory)).aclose()
    good = audit_read.prove(directory, "7", node=KEY.did)
    changes: list[dict[str, Any]] = [
        {"record": good.record.replace("completed", "failed")},
        {"record": good.record + " "},
        {"record": "\ud800"},
        {"index": 8},
        {"size": 21},
        {"hashes": good.hashes[1:]},
        {"hashes": [*good.hashes[:-1], "AAAA"]},
        {"hashes": ["*"]},
        {"hashes": good.hashes * 100},
        {"checkpoint": sign_checkpoint(KEY, 20, bytes(32)).text},
        {"checkpoint": sign_checkpoint(OTHER, 20, bytes(32)).text},
        {"checkpoint": ""},
    ]
    for change in changes:
        members = {name: getattr(good, name) for name in good.__struct_fields__}
        with pytest.raises((DecodeError, SignatureError)):
            audit_read.check_proof(AuditProof(**{**members, **change}), node=None)
    with pytest.raises(SignatureError):
        audit_read.check_proof(good, node=OTHER.did)


async def test_nothing_is_proven_from_a_log_that_was_changed(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    await (await filled(directory)).aclose()
    change_one(directory)
    with pytest.raises(SignatureError):
        audit_read.prove(directory, "7", node=KEY.did)
    drop_last(directory)
    (directory / "tree.bin").unlink()
    with pytest.raises(SignatureError):
        audit_read.prove(directory, "0", node=KEY.did)


async def test_records_are_chosen_by_time_run_task_and_agent(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    log = await filled(directory)
    await log.write(body_of("register", "allowed", agent=KEY.did, resource="echo", time="2030-03-17T17:46:40.000000Z"))
    await log.aclose()
    assert [r.seq for r in audit_read.select(directory, wanted=Wanted(run="run-1"))] == list(range(10, 20))
    assert [r.seq for r in audit_read.select(directory, wanted=Wanted(task="task-0003"))] == [3]
    assert [r.seq for r in audit_read.select(directory, wanted=Wanted(since="2030"))] == [20]
    assert [r.seq for r in audit_read.select(directory, wanted=Wanted(agent="echo"))] == [20]
    assert len(list(audit_read.select(directory, wanted=Wanted(agent=OTHER.did)))) == 20
    assert [r.seq for r in audit_read.select(directory, start=5, end=7)] == [5, 6]


@pytest.mark.parametrize("looked_max", [1, 3, 7, 1000])
@pytest.mark.parametrize("limit", [1, 2, 5, 100])
async def test_pages_from_the_newest_end_hold_every_record_that_fits_once(
    tmp_path: Path, limit: int, looked_max: int
) -> None:
    directory = tmp_path / "audit"
    await (await filled(directory)).aclose()
    wanted = Wanted(run="run-1")
    found: list[int] = []
    matching, before = 0, 2**53
    while True:
        look = look_back(directory, wanted, limit=limit, before=before, looked_max=looked_max)
        assert look.end - look.begin <= looked_max, "one look is bounded"
        assert look.matching >= len(look.records)
        found += [record.seq for record in look.records]
        matching = max(matching, look.matching)
        if look.next is None:
            break
        assert look.next < before
        before = look.next
    assert found == list(range(19, 9, -1))
    assert matching == min(10, looked_max)


async def test_who_called_whom_is_chosen_by_side_result_action_and_window_and_two_readers_have_one_digest(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "audit"
    log = await filled(directory)
    odd = body_of(
        "call", "refused", agent=KEY.did, resource=OTHER.did, time="2030-03-17T17:46:40.000000Z", claimed="did:key:zNo",
        outcome="rejected", code="signature.invalid", name="far",
    )  # fmt: skip
    await log.write(odd)
    await log.aclose()

    def seqs(**wanted: str) -> list[int]:
        look = look_back(directory, Wanted(**wanted), limit=100)
        assert look.matching == len(look.records)
        lines_ = b"".join(pieces(directory, Wanted(**wanted))).splitlines()
        assert lines_ == [record.raw for record in reversed(look.records)], "the export is what is listed"
        return [record.seq for record in look.records]

    assert seqs(result="refused") == seqs(result="rejected") == seqs(result="signature.invalid") == [20]
    assert seqs(caller="did:key:zNo") == seqs(callee="far") == seqs(callee=OTHER.did[:30], since="2029") == [20]
    assert len(seqs(action="call")) == 21
    assert seqs(action="cal") == seqs(caller="did:key:zNobody") == []
    assert len(seqs(until="2029")) == 20
    one, two = (look_back(directory, Wanted(until="2029"), limit=limit) for limit in (1, 100))
    assert one.digest == two.digest != look_back(directory, Wanted(), limit=1).digest


async def test_what_is_no_record_is_passed_over_and_a_log_without_records_is_empty(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    await (await filled(directory, 3, AuditConfig(reserve_bytes=1 << 16))).aclose()
    segment = directory / "000000000000.jsonl"
    good = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(good[0] + b"[]\n{}\n\xff\n" + b"[" * 10_000 + b"\n" + good[2])
    look = look_back(directory, Wanted(), limit=10)
    assert ([record.seq for record in look.records], look.matching, look.next) == ([2, 0], 2, None)
    assert b"".join(pieces(directory, Wanted())) == good[0] + good[2]
    empty = tmp_path / "empty"
    empty.mkdir()
    look = look_back(empty, Wanted(), limit=10)
    assert (look.records, look.matching, look.begin, look.end, look.next) == ([], 0, 0, 0, None)
    assert list(pieces(empty, Wanted())) == []


def test_times_are_rfc_3339_in_utc() -> None:
    assert time_of(1_800_000_000_123_456) == "2027-01-15T08:00:00.123456Z"


def test_where_there_is_no_log_this_is_said(tmp_path: Path) -> None:
    for missing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError) as error:
            check_log(missing, node=None)
        assert error.value.code == "audit.none"
