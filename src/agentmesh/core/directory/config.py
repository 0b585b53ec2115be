"""What can be tuned about the directory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DirectoryConfig:
    """Knobs of the directory of agents (docs/spec/exchange.md §3).

    Attributes:
        require_signed: Refuse unsigned manifests. When off they are admitted, rank below every signed one and are shown
            as low trust (RQ0 §4.1). Default on.
        lease_renew_s: How often the owner renews the leases of its agents at all connected peers, and how often whole
            digests are compared. Raise it on metered links; keep 3 renewals within ``lease_gone_s``. Default 30 (RQ3, issue 2).
        lease_gone_s: An agent that nobody renewed for so long is dropped. Default 90 = 3 renewals.
        hop_age_s: Added to a lease's age whenever somebody other than the owner passes it on. Must exceed the usual
            one-way delay between two nodes, or an echo would look younger than its source and keep the dead alive.
            Default 1.0: above any sane delay, and 30 hops still fit between renewal and ``lease_gone_s``.
        news_gap_s: What changes within this time after a message is told in one message more, so that a thousand agents
            registered at once do not make a thousand messages. Default 0.05: far below the 3 s in which a newcomer's
            agents are to be seen, and 20 messages per second are well within what a peer accepts.
        relay_delay_s: Renewals heard from one peer are passed to the others together, after this long. Raising it saves
            messages and costs freshness; keep hops x delay far below ``lease_gone_s - lease_renew_s``. Default 0.5 (guess).
        sync_peers: With how many peers, in turn, whole digests are compared per ``lease_renew_s``. Raise it where
            messages get lost; traffic grows with directory size times this. Default 4 (guess).
        entries_max: Manifests and tombstones held. Default 10 000 (design goal of one zone; about 2.5 KB each).
        node_agents_max: Agents of one node. Default 1 000 (guess).
        replay_grace_s: An older record that arrives within this time of a newer one is a race, later it is a replay and
            held against the sender. Default 10 (guess: far above any delay on a live link).
        want_retry_s: A record asked for is asked for again after this long. Default 2 (guess).
        wants_max: Records being waited for that are remembered, only to avoid asking twice. Default 20 000 = twice
            ``entries_max``.
        records_bytes: Bytes of records put into one message, at least one record. Default 64 KiB: about 50 records,
            which take some 20 ms to verify, so that calls in flight hardly notice.
    """

    require_signed: bool = True
    lease_renew_s: float = 30.0
    lease_gone_s: float = 90.0
    hop_age_s: float = 1.0
    news_gap_s: float = 0.05
    relay_delay_s: float = 0.5
    sync_peers: int = 4
    entries_max: int = 10_000
    node_agents_max: int = 1_000
    replay_grace_s: float = 10.0
    want_retry_s: float = 2.0
    wants_max: int = 20_000
    records_bytes: int = 64 * 1024
