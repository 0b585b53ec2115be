"""Under which keys an agent is found: in the directory's index, at neighbours, in the DHT (docs/spec/directory.md §7)."""

from __future__ import annotations

from agentmesh.identity.manifest import Manifest
from agentmesh.ids import Key, capability_key, dht_key, public_key_of

#: Most keys of one manifest; skills and tags beyond are not indexed.
KEYS_MAX = 32


def search_keys(manifest: Manifest) -> tuple[Key, ...]:
    """Return the keys of a manifest, its own DHT key first, then its name, skill ids and tags; no doubles.

    A tombstone has its own DHT key only.
    """
    own = dht_key(public_key_of(manifest.agent_id))
    if manifest.tombstone:
        return (own,)
    found: dict[Key, None] = {own: None, capability_key(manifest.name): None}
    for skill in manifest.skills:
        tags = skill.get("tags", [])
        for text in (skill.get("id"), *(tags if isinstance(tags, list) else [])):  # pyright: ignore[reportUnknownVariableType]
            if len(found) >= KEYS_MAX:
                return tuple(found)
            if isinstance(text, str) and text:
                found[capability_key(text)] = None
    return tuple(found)
