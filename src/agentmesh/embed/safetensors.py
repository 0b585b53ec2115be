"""Tensors out of a safetensors file: eight bytes of length, a JSON header, then raw numbers, row by row, little-endian.

Our own reader and not the library, because the arrays are views of the very bytes whose SHA-256 was checked: no file that changes
between the check and the use, and one copy less of 90 MB. A file that is not exactly what it says is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Float32 = npt.NDArray[np.float32]

HEADER_BYTES_MAX = 1024 * 1024
TENSORS_MAX = 4096


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class NotTensors(Exception):
    """The bytes are no safetensors file, or not the tensors that were asked for; the text says why."""


def read_tensors(content: bytes | bytearray, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, Float32]:
    """Return the wanted float32 tensors by name, as views of ``content``.

    Args:
        content: A whole file.
        wanted: Name → shape. Others in the file are left alone, but must not overlap or leave gaps either.

    Raises:
        NotTensors: a length that does not fit, a header that is no header, tensors that overlap, leave gaps or lie outside,
            a missing one, another type or shape, or numbers that are not finite.
    """
    import numpy as np

    if sys.byteorder != "little":  # pragma: no cover - no such machine runs this
        raise NotTensors("the machine stores numbers the other way round")
    if len(content) < 8:
        raise NotTensors("it is shorter than its header")
    length = int.from_bytes(content[:8], "little")
    if length > min(HEADER_BYTES_MAX, len(content) - 8):
        raise NotTensors(f"its header claims {length} bytes")
    start = 8 + length
    try:
        entries = msgspec.json.decode(bytes(content[8:start]), type=dict[str, msgspec.Raw])
        entries.pop("__metadata__", None)
        tensors = {name: msgspec.json.decode(raw, type=_Tensor) for name, raw in entries.items()}
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise NotTensors(f"its header cannot be read: {error}") from error
    if len(tensors) > TENSORS_MAX:
        raise NotTensors(f"it claims {len(tensors)} tensors")
    end = 0
    for first, last in sorted(tensor.data_offsets for tensor in tensors.values()):
        if first != end or last < first:
            raise NotTensors("its tensors overlap or leave gaps")
        end = last
    if start + end != len(content):
        raise NotTensors(f"its tensors end at byte {start + end} of {len(content)}")
    found: dict[str, Float32] = {}
    for name, shape in wanted.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise NotTensors(f"it lacks {name}")
        first, last = tensor.data_offsets
        if tensor.dtype != "F32" or tuple(tensor.shape) != shape or last - first != 4 * prod(shape):
            raise NotTensors(f"{name} is {tensor.dtype} {tensor.shape}, F32 {list(shape)} is right")
        flat = np.frombuffer(content, dtype="<f4", count=prod(shape), offset=start + first)
        if not np.isfinite(flat).all():
            raise NotTensors(f"{name} holds numbers that are not finite")
        found[name] = flat.reshape(shape)
    return found
