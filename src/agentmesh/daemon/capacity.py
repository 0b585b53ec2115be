"""How many long links this machine offers to carry (setting ``capacity``)."""

from __future__ import annotations

import contextlib
import os

_GIB = 1024**3


def capacity_tier(wanted: str) -> int:
    """Return the tier 0 … 4 for the setting: the number itself, or for "auto" what cores and memory suggest."""
    return int(wanted) if wanted != "auto" else pick_tier(os.cpu_count() or 1, _memory_bytes())


def pick_tier(cores: int, memory_bytes: int) -> int:
    """Return 0, 1 or 2 for a machine. The tiers above are for a person to give: auto cannot see the network card.

    A guess: a small board carries 3 long links, a laptop 7, a server 15.
    """
    if cores >= 8 and memory_bytes >= 15 * _GIB:
        return 2
    return 1 if cores >= 2 and memory_bytes >= 2 * _GIB else 0


def _memory_bytes() -> int:
    with contextlib.suppress(OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0
