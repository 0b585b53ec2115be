"""Groups on disk: the newest statement, and the newest chains of each sender."""

from __future__ import annotations

from pathlib import Path

from agentmesh.store.groups import CHAINS_MAX, ChainRow, GroupStore

GROUP, OTHER = b"g" * 16, b"o" * 16


def row(sender: bytes = b"s" * 32, chain: int = 1, number: int = 0, group: bytes = GROUP) -> ChainRow:
    return ChainRow(group, sender, 1, bytes([chain]) * 8, number, bytes([number]) * 32)


def test_statements_and_chains_are_there_after_a_restart_as_they_were_kept_last(tmp_path: Path) -> None:
    path = tmp_path / "groups.sqlite"
    store = GroupStore.open(path)
    assert path.stat().st_mode & 0o777 == 0o600
    store.keep(GROUP, b"first", durable=True)
    store.keep(GROUP, b"second", durable=False)
    store.keep(OTHER, b"other", durable=True)
    store.keep_chains([row(number=1), row(number=9), row(b"t" * 32), row(group=OTHER)])
    store.close()
    store = GroupStore.open(path)
    assert store.groups() == [b"second", b"other"]
    assert store.chains(GROUP) == [row(number=9), row(b"t" * 32)]
    store.drop_chains(GROUP, [b"t" * 32])
    assert store.chains(GROUP) == [row(number=9)]
    store.drop(GROUP)
    assert (store.groups(), store.chains(GROUP), store.chains(OTHER)) == ([b"other"], [], [row(group=OTHER)])
    store.close()


def test_of_each_sender_the_newest_chains_are_kept(tmp_path: Path) -> None:
    store = GroupStore.open(tmp_path / "groups.sqlite")
    store.keep_chains([row(b"t" * 32), *(row(chain=n) for n in range(CHAINS_MAX + 3))])
    store.keep_chains([row(chain=3, number=5)])
    assert [(one.sender[:1], one.chain[0]) for one in store.chains(GROUP)] == [
        (b"t", 1),
        *((b"s", n) for n in range(3, CHAINS_MAX + 3)),
    ]
    store.close()
