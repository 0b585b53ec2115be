"""The agreement keys of the agents beside this node: named in their manifests, and used to open mail that others carried."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from agentmesh.errors import MeshError
from agentmesh.identity.agreement import PARAM, agreement_param
from agentmesh.store.agreements import AgreementFile


class Agreements:
    """Keep one file of keys per agent, opened on first use.

    An agent whose file cannot be used stays reachable by sessions; only nothing is sealed to it. So nothing here stops a
    registration: what went wrong is a warning.

    Args:
        warnings: Sentences for ``status.warnings``; each is added once.
    """

    def __init__(self, warnings: list[str]) -> None:
        self._warnings = warnings
        self._files: dict[Path, AgreementFile] = {}

    def named(self, params: dict[str, Any], path: Path | None, life_s: int) -> dict[str, Any]:
        """Return the members of a manifest's extension with the agent's current key, and never with anybody else's.

        Args:
            params: The other members.
            path: The agent's file; None if nothing shall be sealed to it.
            life_s: How long the manifest will be valid.
        """
        rest = {name: value for name, value in params.items() if name != PARAM}
        if path is None:
            return rest
        try:
            key = self._file(path).current(int(time.time()), life_s)
        except MeshError as error:
            self._warn(f"no mail can be sealed to agent {path.stem!r}: {error}")
            return rest
        return {**rest, PARAM: agreement_param(key.public)}

    def secrets(self, path: Path) -> dict[str, bytes]:
        """Return an agent's private keys by kid; none if its file cannot be used."""
        try:
            return self._file(path).secrets(int(time.time()))
        except MeshError as error:
            self._warn(f"mail for agent {path.stem!r} cannot be opened: {error}")
            return {}

    def forget(self, path: Path) -> None:
        """Close an agent's file; it stays on disk, for when the agent comes back."""
        self._files.pop(path, None)

    def _file(self, path: Path) -> AgreementFile:
        return self._files.setdefault(path, AgreementFile(path))

    def _warn(self, text: str) -> None:
        if text not in self._warnings:
            self._warnings.append(text)
