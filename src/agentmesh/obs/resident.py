"""How much memory this process holds."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def rss_bytes() -> int:
    """Return the resident memory of this process, bytes; its peak where the system tells no more."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
