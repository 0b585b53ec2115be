"""Knobs of federation pulls: effect, unit, when to change, origin of the default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FederationConfig:
    """Knobs.

    Attributes:
        interval_s: How often a seed is asked when nothing hints at news. Default 30: a partner that does not hint is half a
            minute behind at most.
        jitter: Part of that left to chance, so that the pullers of one seed do not come in step. Default 0.2.
        hint_gap_s: Least time between the end of a pull and the next one that a hint asks for. Default 0.2: changes arrive
            within a second, and who hints all the time costs five pulls a second at most.
        backoff_base_s, backoff_max_s: After a failure the next try comes after a random part of ``base · 2^n``, at most
            ``max`` (full jitter: Brooker 2015). Defaults 1 and 300.
        answer_s: A pull that is not answered within this counts as failed. Default 60: above every timeout of HTTP.
        page_limit: Entries asked for at once. Default 200: some 400 KB, verified in 0.1 s.
        round_pages_max, round_entries_max, round_bytes_max: What one round, from a cursor to its end, may take; beyond it
            the seed is given up until the longest backoff is over. Defaults 400 pages, 20 000 entries (twice what is held)
            and 128 MiB.
        entries_max: Agents held of one seed. Default 10 000 (design goal of one zone, as of the directory).
        floors_max: Agents of one seed that are gone and whose ``seq`` is remembered, so that an old record of them does not
            come back; the oldest goes first. Default 20 000.
        reasons_max: Different reasons of refusal that are counted. Default 32.
        seeds_max: Default 32 (guess).
    """

    interval_s: float = 30.0
    jitter: float = 0.2
    hint_gap_s: float = 0.2
    backoff_base_s: float = 1.0
    backoff_max_s: float = 300.0
    answer_s: float = 60.0
    page_limit: int = 200
    round_pages_max: int = 400
    round_entries_max: int = 20_000
    round_bytes_max: int = 128 * 1024 * 1024
    entries_max: int = 10_000
    floors_max: int = 20_000
    reasons_max: int = 32
    seeds_max: int = 32
