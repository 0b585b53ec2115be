"""What encryption between agents costs: ``python -m bench.sealed`` prints microseconds per operation, one process, one core.

Sessions (handshake, 256-byte letters), sealed mail (1 KiB) and letters to a group (256 bytes); medians of several rounds.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

from agentmesh.identity.agreement import AgreementKey
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.sealed import seal, unseal
from agentmesh.identity.senderkey import CHAIN_BYTES, ReceivingChain, SendingChain
from agentmesh.identity.session import Channel, Initiator, respond

_ROUNDS = 7
_NOW = 1_800_000_000
_LETTER = os.urandom(256)
_AAD = bytes(25)


def timed(name: str, count: int, work: Callable[[], object]) -> None:
    """Print the median time of one of the ``count`` operations that ``work`` does."""
    rounds: list[float] = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        work()
        rounds.append((time.perf_counter() - begin) / count * 1e6)
    print(f"{name:<42} {statistics.median(rounds):8.2f} µs")


def main() -> None:
    """Measure and print."""
    alice, bob = KeyPair(os.urandom(32)), KeyPair(os.urandom(32))

    def shake() -> tuple[Channel, Channel]:
        initiator = Initiator(alice, bob.public, os.urandom(32), _NOW * 1000)
        answer, theirs, _ = respond(bob, initiator.offer, os.urandom(32), _NOW * 1000)
        return initiator.finish(answer), theirs

    ours, theirs = shake()
    timed("session: handshake, both sides", 50, lambda: [shake() for _ in range(50)])
    count = 20_000
    begin = iter(range(0, 1 << 30, count))
    sealed: list[bytes] = []

    def seal_letters() -> None:
        start = next(begin)
        sealed[:] = [ours.seal(seq, _AAD, _LETTER) for seq in range(start, start + count)]

    timed("session: seal 256 bytes", count, seal_letters)
    start = next(begin) - count
    timed("session: open 256 bytes", count, lambda: [theirs.open(start + n, _AAD, raw) for n, raw in enumerate(sealed)])

    key = AgreementKey(os.urandom(32), _NOW, _NOW + 86_400)
    body = os.urandom(1024)

    def wrap() -> bytes:
        return seal(body, sender=alice, recipient=bob.did, agreement=key.public, iat=_NOW)

    letter = wrap()
    timed("sealed mail: seal 1 KiB", 200, lambda: [wrap() for _ in range(200)])
    keys = {key.kid: key.secret}
    timed(
        "sealed mail: open 1 KiB",
        200,
        lambda: [unseal(letter, recipient=bob.did, keys=keys, now=_NOW) for _ in range(200)],
    )
    print(f"{'sealed mail: 1 KiB becomes':<42} {len(letter):8d} bytes")

    chain = SendingChain(alice, b"g" * 16, 1, os.urandom(CHAIN_BYTES + 32))
    letters: list[bytes] = []

    def speak() -> None:
        letters[:] = [chain.seal(_AAD, _LETTER) for _ in range(500)]

    timed("group: seal and sign 256 bytes", 500, speak)
    fresh = SendingChain(alice, b"g" * 16, 1, os.urandom(CHAIN_BYTES + 32))
    member = ReceivingChain(alice.public, b"g" * 16, 1, fresh.chain, *fresh.share)
    letters = [fresh.seal(_AAD, _LETTER) for _ in range(500)]
    timed("group: check and open 256 bytes", 500, lambda: [member.open(_AAD, raw) for raw in letters])


if __name__ == "__main__":
    main()
