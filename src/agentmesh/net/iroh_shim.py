"""Make iroh's generated Python hand bytes to the engine by one memory copy instead of one assignment per byte.

The wheel's generated ``_UniffiRustBufferBuilder.write`` loops over bytes in Python (n0-computer/iroh-ffi#229, fixed in
mozilla/uniffi-rs#2824, but not yet in the wheel): 3–6 MB/s. The replacement is installed only after it has proven
itself byte-exact on this very build, and not at all when the private names it needs have changed or upstream is fast by
itself. Without it everything works, slowly. Only ``net.iroh`` installs it; ``doctor`` reads ``report()``.
"""

from __future__ import annotations

import ctypes
import time
from types import ModuleType
from typing import Any, Literal, NamedTuple

#: Sizes that the self-test copies: around the builder's first allocation (16 bytes) and far beyond.
_TEST_SIZES = (0, 1, 15, 16, 17, 4096, 1024 * 1024)
_PROBE_BYTES = 64 * 1024
#: A copy of 64 KiB takes the byte loop 5–20 ms and a memory copy under 0.05 ms; in between we would not care.
_FAST_COPY_S = 0.001
_FOREIGN_ERRORS = (AttributeError, TypeError, ValueError, IndexError, OSError, RuntimeError, ctypes.ArgumentError)


class ShimReport(NamedTuple):
    """What became of the shim, for people: "installed", "unneeded" (upstream is fast) or "skipped" (and why)."""

    state: Literal["installed", "unneeded", "skipped", "not loaded"]
    note: str


_INSTALLED = ShimReport("installed", "bytes go to the engine by memory copy")
_report = ShimReport("not loaded", "the iroh engine has not been started")


def report() -> ShimReport:
    """Return what the last ``install`` decided."""
    return _report


def fast_write(builder: Any, value: bytes) -> None:
    """Append bytes to a builder's buffer with one memory copy. Stands in for the generated ``write``."""
    count = len(value)
    buffer: Any = builder.rbuf
    if buffer.len + count > buffer.capacity:
        buffer = builder.rbuf = buffer.reserve(buffer, count)
    if count:
        # bytes(…) copies only what is not bytes yet (a bytearray, a memoryview).
        ctypes.memmove(ctypes.addressof(buffer.data.contents) + buffer.len, bytes(value), count)
        buffer.len += count


def install(module: ModuleType) -> ShimReport:
    """Install the shim into ``iroh.iroh_ffi`` if it is needed and proven. Idempotent.

    Args:
        module: The generated module.

    Returns:
        What was done; ``report()`` returns the same later.
    """
    global _report
    builder: Any = getattr(module, "_UniffiRustBufferBuilder", None)
    if builder is not None and getattr(builder, "write", None) is fast_write:
        _report = _INSTALLED
        return _report
    _report = _decide(module, builder)
    if builder is not None and _report.state == "installed":
        builder.write = fast_write
    return _report


def _decide(module: ModuleType, builder: Any) -> ShimReport:
    buffer: Any = getattr(module, "_UniffiRustBuffer", None)
    if builder is None or buffer is None or not hasattr(builder, "write"):
        return ShimReport("skipped", "iroh's generated code has other names than the shim knows")
    fields: list[tuple[str, Any]] = list(getattr(buffer, "_fields_", ()))
    if [name for name, *_ in fields] != ["capacity", "len", "data"] or fields[2][1] is not ctypes.POINTER(
        ctypes.c_char
    ):
        return ShimReport("skipped", "iroh's buffer has another layout than the shim knows")
    try:
        if _copy_s(builder) < _FAST_COPY_S:
            return ShimReport("unneeded", "iroh's own copy is fast")
        trial: Any = type("_Trial", (builder,), {"write": fast_write})
        for size in _TEST_SIZES:
            sample = bytes(range(256)) * (size // 256 + 1)
            if not _is_exact(trial, sample[:size]):
                return ShimReport("skipped", f"the self-test failed at {size} bytes")
    except _FOREIGN_ERRORS as error:
        return ShimReport("skipped", f"the self-test failed: {type(error).__name__}: {error}")
    return _INSTALLED


def _is_exact(builder: Any, sample: bytes) -> bool:
    """Write a marker, the sample and a marker, and compare what the buffer holds."""
    built = builder()
    try:
        built.write(b"<")
        built.write(sample)
        built.write(b">")
        held: bytes = built.rbuf.data[0 : built.rbuf.len]
        return held == b"<" + sample + b">"
    finally:
        built.discard()


def _copy_s(builder: Any) -> float:
    """Return the best of three times that a builder's own ``write`` takes for 64 KiB, in seconds."""
    best = 60.0
    for _ in range(3):
        built = builder()
        try:
            begin = time.perf_counter()
            built.write(bytes(_PROBE_BYTES))
            best = min(best, time.perf_counter() - begin)
        finally:
            built.discard()
    return best
