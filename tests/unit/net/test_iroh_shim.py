"""The memmove shim is installed only when it is needed and proven, and says what it did."""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import Any

import pytest

from agentmesh.net import iroh_shim
from agentmesh.net.iroh_shim import fast_write, install, report


class Buffer:
    """Stands in for the generated buffer: a block of memory with a length."""

    _fields_ = (("capacity", ctypes.c_uint64), ("len", ctypes.c_uint64), ("data", ctypes.POINTER(ctypes.c_char)))

    def __init__(self, capacity: int) -> None:
        self.block = ctypes.create_string_buffer(max(capacity, 1))
        self.capacity = capacity
        self.len = 0
        self.data = ctypes.cast(self.block, ctypes.POINTER(ctypes.c_char))

    @staticmethod
    def reserve(buffer: Any, additional: int) -> Any:
        grown = Buffer((buffer.len + additional) * 2)
        ctypes.memmove(grown.block, buffer.block, buffer.len)
        grown.len = buffer.len
        return grown


class SlowBuilder:
    """Stands in for the generated builder with its byte loop."""

    def __init__(self) -> None:
        self.rbuf: Any = Buffer(16)

    def write(self, value: bytes) -> None:
        if self.rbuf.len + len(value) > self.rbuf.capacity:
            self.rbuf = Buffer.reserve(self.rbuf, len(value))
        for at, byte in enumerate(value):
            self.rbuf.data[self.rbuf.len + at] = byte
        self.rbuf.len += len(value)

    def discard(self) -> None:
        self.rbuf = None


def module(builder: Any = None, buffer: Any = Buffer) -> ModuleType:
    made: Any = ModuleType("generated")
    made._UniffiRustBufferBuilder = builder or type("Builder", (SlowBuilder,), {})
    made._UniffiRustBuffer = buffer
    return made


@pytest.fixture(autouse=True)
def _keep_the_real_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iroh_shim, "_report", iroh_shim.ShimReport("not loaded", ""))


def test_a_byte_loop_is_replaced_after_the_self_test_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iroh_shim, "_FAST_COPY_S", 0.0)
    generated: Any = module()
    assert install(generated).state == "installed"
    assert generated._UniffiRustBufferBuilder.write is fast_write
    assert report() == install(generated)
    assert report().state == "installed"


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4096, 1024 * 1024])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_copy_is_exact_at_every_size_and_for_every_kind_of_bytes(size: int, kind: Any) -> None:
    sample = (bytes(range(256)) * (size // 256 + 1))[:size]
    builder = SlowBuilder()
    for part in (b"before", kind(sample), b"after"):
        fast_write(builder, part)
    assert builder.rbuf.data[0 : builder.rbuf.len] == b"before" + sample + b"after"


def test_it_stays_out_when_upstream_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iroh_shim, "_FAST_COPY_S", 60.0)
    generated: Any = module()
    before = generated._UniffiRustBufferBuilder.write
    assert install(generated).state == "unneeded"
    assert generated._UniffiRustBufferBuilder.write is before


def test_it_stays_out_when_names_or_layout_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iroh_shim, "_FAST_COPY_S", 0.0)
    assert install(ModuleType("empty")).state == "skipped"

    class OtherLayout(Buffer):
        _fields_ = (("len", ctypes.c_uint64), ("capacity", ctypes.c_uint64), ("data", ctypes.POINTER(ctypes.c_char)))

    other: Any = module(buffer=OtherLayout)
    assert install(other).state == "skipped"
    assert "layout" in report().note

    class OtherNames(SlowBuilder):
        def __init__(self) -> None:
            self.buffer: Any = Buffer(16)

        def write(self, value: bytes) -> None:
            self.buffer.len += len(value)

        def discard(self) -> None:
            pass

    renamed: Any = module(OtherNames)
    assert install(renamed).state == "skipped"
    assert renamed._UniffiRustBufferBuilder.write is not fast_write


def test_it_stays_out_when_the_self_test_finds_a_wrong_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iroh_shim, "_FAST_COPY_S", 0.0)

    class Lossy(Buffer):
        @staticmethod
        def reserve(buffer: Any, additional: int) -> Any:
            grown = Buffer.reserve(buffer, additional)
            ctypes.memset(grown.block, 0, 1)
            return grown

    class Builder(SlowBuilder):
        def __init__(self) -> None:
            self.rbuf = Lossy(16)

    generated: Any = module(Builder)
    assert install(generated).state == "skipped"
    assert "self-test failed at" in report().note


def test_the_real_engine_is_made_fast_or_is_fast() -> None:
    generated = pytest.importorskip("iroh.iroh_ffi")
    assert install(generated).state in ("installed", "unneeded")
    builder = generated._UniffiRustBufferBuilder()
    sample = bytes(range(256)) * 4096
    builder.write(sample)
    assert builder.rbuf.data[0 : builder.rbuf.len] == sample
    builder.discard()
