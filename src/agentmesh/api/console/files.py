"""The console's built files, out of the package: ``static/index.html`` and what it loads, by name.

Only names that match one pattern are looked up, each in its one folder, so that no spelling of a path leads elsewhere. What
is in ``assets/`` has the hash of its content in its name and never changes; nothing is kept in memory here.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import re
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

#: Largest file that is served, bytes; the whole build has about a million.
FILE_BYTES_MAX = 4 * 1024 * 1024
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".woff2": "font/woff2",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")
_ASSETS = "/assets/"


class File(NamedTuple):
    """One file as it is sent."""

    content: bytes
    type: str
    etag: str
    is_immutable: bool


class Files:
    """The build in a folder.

    Args:
        folder: Where it is; the package's own by default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder: Traversable | None = folder

    def read(self, path: str) -> File | None:
        """Return what is at a path of the site such as ``/assets/index-B2c.js``; None if nothing is.

        Blocks on the disk.
        """
        is_asset = path.startswith(_ASSETS)
        name = path[len(_ASSETS) :] if is_asset else path[1:]
        suffix = name[name.rfind(".") :]
        if not _NAME.fullmatch(name) or suffix not in TYPES:
            return None
        if self._folder is None:
            self._folder = importlib.resources.files("agentmesh.api").joinpath("static")
        place = self._folder.joinpath("assets", name) if is_asset else self._folder.joinpath(name)
        try:
            with place.open("rb") as file:
                content = file.read(FILE_BYTES_MAX + 1)
        except OSError:
            return None
        if len(content) > FILE_BYTES_MAX:
            return None
        return File(content, TYPES[suffix], f'"{hashlib.sha256(content).hexdigest()[:24]}"', is_asset)
