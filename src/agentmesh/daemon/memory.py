"""Give memory back that start-up and bursts used (adr/0005-give-back-what-start-up-used.md).

Three things, Linux only where they need it: Python's own garbage; free heap that malloc keeps (``malloc_trim``); and pages of
program code that only start-up ran. The last are clean pages of library files: the kernel keeps them in its page cache, and a
page that is needed again comes back with a minor fault of well under a microsecond.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from typing import Any

#: When start-up is over, and how often the heap is trimmed afterwards, seconds.
_SETTLED_S, _TRIM_EVERY_S = 3.0, 60.0
_MADV_DONTNEED = 4
#: Young objects before a collection; the interpreter's 700 costs a busy daemon 7 % of its time (measured) to find nothing.
_GC_YOUNG, _GC_MIDDLE, _GC_OLD = 10_000, 20, 20


async def keep_small() -> None:
    """Give back what start-up used, once, then the free heap again and again. Runs until cancelled."""
    await asyncio.sleep(_SETTLED_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_YOUNG, _GC_MIDDLE, _GC_OLD)
    libc = _libc()
    if libc is None:
        return
    drop_startup_code(libc)
    while True:
        libc.malloc_trim(0)
        await asyncio.sleep(_TRIM_EVERY_S)


def _libc() -> Any:
    """Return glibc with what is used of it declared, None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.malloc_trim.argtypes = [ctypes.c_size_t]
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    except (OSError, AttributeError):
        return None  # musl has no malloc_trim
    return libc


def drop_startup_code(libc: Any) -> int:
    """Unmap the code pages of library files and return how many bytes of mappings were told so.

    Only ``r-xp`` mappings of files: they are never written, so nothing can be lost. Data, relocated tables and anonymous
    memory are left alone.
    """
    told = 0
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            lines = maps.read().splitlines()
    except OSError:
        return 0
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[1] == "r-xp" and fields[5].startswith("/"):
            begin, end = (int(text, 16) for text in fields[0].split("-"))
            if libc.madvise(begin, end - begin, _MADV_DONTNEED) == 0:
                told += end - begin
    return told
