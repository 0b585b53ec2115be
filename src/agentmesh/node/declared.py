"""What manifests declare of how their agents may be called: a share of calls, and what may safely run more than once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from agentmesh.core.balance.balance import WEIGHT_MAX
from agentmesh.identity.manifest import Manifest

_KEPT_MAX = 10_000
_SKILLS_MAX = 256


class Declaration(NamedTuple):
    """What one manifest says.

    Attributes:
        weight: Share of calls relative to other replicas, 1 … ``WEIGHT_MAX``.
        idempotent: True for every skill, or the ids of those that are.
    """

    weight: int
    idempotent: bool | frozenset[str]

    def may_repeat(self, skill: str | None) -> bool:
        """Say whether a call of that skill may run more than once."""
        return self.idempotent if isinstance(self.idempotent, bool) else skill is not None and skill in self.idempotent


class Declared:
    """Read manifests once; the strings of a stranger that make no sense count as not said."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[int, Declaration]] = {}

    def of(self, manifest: Manifest) -> Declaration:
        """Return what a manifest declares."""
        kept = self._kept.get(manifest.agent_id)
        if kept is None or kept[0] != manifest.seq:
            self._kept.pop(manifest.agent_id, None)
            while len(self._kept) >= _KEPT_MAX:
                del self._kept[next(iter(self._kept))]
            kept = self._kept[manifest.agent_id] = (manifest.seq, _read(manifest.params))
        return kept[1]


def _read(params: dict[str, Any]) -> Declaration:
    weight, said = params.get("weight"), params.get("idempotent")
    idempotent: bool | frozenset[str] = said is True
    if isinstance(said, list):
        skills = cast("Sequence[Any]", said)[:_SKILLS_MAX]
        idempotent = frozenset(skill for skill in skills if isinstance(skill, str))
    return Declaration(min(max(1, weight), WEIGHT_MAX) if type(weight) is int else 1, idempotent)
