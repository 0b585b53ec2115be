"""From text to vector, behind one Protocol (RQ0 §4.3). Runs in the search process, never on the daemon's event loop.

Two kinds of vector, because the built-in embedder needs no numpy: a dense one is a list of numbers, a sparse one names its
features. Both are of length 1, so the dot product of two is their cosine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

#: One text as numbers: dense (one figure for each dimension, always the same number) or sparse (feature → figure above 0).
Dense = Sequence[float]
Sparse = Mapping[str, float]
Role = Literal["passage", "query"]


class Embedder(Protocol):
    """Turns texts into vectors.

    Attributes:
        name: As people choose it: "builtin", "minilm", or the address of an endpoint.
        version: Changes when the same text would get another vector; vectors of two versions are never compared.
        dims: Length of a dense vector; 0 if the vectors are sparse.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def dims(self) -> int: ...

    def embed(self, texts: Sequence[str], role: Role) -> list[Dense | Sparse]:
        """Return one vector for each text, in their order.

        The same text and role give the same vector. Texts are cut at what the model takes; an empty one, or one of which nothing
        is understood, gives a vector of zeros (dense) or without features (sparse).

        Args:
            texts: Any strings.
            role: What they are: some models treat a question unlike what it is asked about.

        Raises:
            ConfigError: the model's files are missing or broken, or the endpoint is not what was configured (codes "embed.*").
            Unreached: the endpoint does not answer in time.
            PeerError: it answers something else than vectors of the agreed length.
        """
        ...

    def close(self) -> None:
        """Let go of the model. Idempotent."""
        ...
