"""all-MiniLM-L6-v2 by numpy alone: BERT with six layers in float32, mean over the tokens, length 1. No torch, no network.

The forward pass is that of "BERT: Pre-training of Deep Bidirectional Transformers" (Devlin et al., 2018) with the shapes of
this one model; pooling and the limit of 256 tokens are those of sentence-transformers. ``tests/contract/test_embedders.py``
compares it with the similarities which that library's manual prints.

numpy and tokenizers load with the first ``MiniLM``, which therefore belongs in the search process only.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agentmesh.embed.base import Dense, Role, Sparse
from agentmesh.embed.models import LIBRARIES_COMMAND, MINILM, broken, read_file
from agentmesh.embed.safetensors import NotTensors, read_tensors
from agentmesh.errors import Closed, ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Float32 = npt.NDArray[np.float32]

LAYERS, HEADS, WIDTH, INNER, VOCABULARY, POSITIONS = 6, 12, 384, 1536, 30_522, 512
#: What the model was trained for, special tokens included; more of a text says little about it.
TOKENS_MAX = 256
#: More of a text is cut off before it is even split: no 256 tokens are that long, blanks aside.
TEXT_CHARS_MAX = 8_192
#: Texts of one forward pass, and their tokens with padding: bounds its memory at about 100 MB (see ``_forward``).
BATCH_TEXTS_MAX, BATCH_TOKENS_MAX = 64, 2_048
#: Threads of the matrix library. One is enough for a query, and the agents beside it want the other cores: on two busy cores a
#: second thread made a query take seven times as long (473 ms, not 64), since the threads wait for each other by spinning.
THREADS = 1
#: Counts changes of this file after which the same text gets another vector.
_REVISION = 1
_CLS, _SEP, _UNKNOWN = 101, 102, 100
_EPSILON = 1e-12


def _shapes() -> dict[str, tuple[int, ...]]:
    """Return every tensor that the forward pass needs, with its shape."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        for name, rows, columns in (
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", INNER, WIDTH),
            ("output.dense", WIDTH, INNER),
        ):
            shapes[f"encoder.layer.{layer}.{name}.weight"] = (rows, columns)
            shapes[f"encoder.layer.{layer}.{name}.bias"] = (rows,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"encoder.layer.{layer}.{name}.weight"] = (WIDTH,)
            shapes[f"encoder.layer.{layer}.{name}.bias"] = (WIDTH,)
    return shapes


SHAPES = _shapes()


def missing_libraries() -> list[str]:
    """Return the names of the libraries that a model needs and that are not installed here. Loads none of them."""
    from importlib.util import find_spec

    return [name for name in ("numpy", "tokenizers") if find_spec(name) is None]


class _Weights(NamedTuple):
    """The tensors before the first layer, by their own names, and those of each layer, by ours."""

    embeddings: dict[str, Float32]
    layers: list[dict[str, Float32]]


class MiniLM:
    """The model, loaded. Its methods may be called from several threads.

    Args:
        models: The directory that holds ``minilm/``.

    Raises:
        ConfigError: "embed.library" (numpy or tokenizers is missing or does not load), "embed.model_missing",
            "embed.model_broken".
    """

    name = MINILM.name
    version = f"{MINILM.name}-{MINILM.files[0].sha256[:12]}-{_REVISION}"
    dims = MINILM.dims

    def __init__(self, models: Path) -> None:
        # They count only for the one who loads the library first, and whoever set them knows better.
        for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
            os.environ.setdefault(variable, str(THREADS))
        try:
            import numpy as np
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ConfigError(
                f"{error.name or 'a library'} is not installed, which the model {MINILM.name} needs",
                code="embed.library",
                why=str(error),
                hint=LIBRARIES_COMMAND,
            ) from error
        self._np = np
        weights, vocabulary = MINILM.files
        directory = models / MINILM.name
        try:
            tensors = read_tensors(read_file(MINILM, weights, models), SHAPES)
        except NotTensors as error:
            raise broken(MINILM, directory / weights.name, str(error)) from error
        try:
            tokenizer: Any = Tokenizer.from_str(read_file(MINILM, vocabulary, models).decode("utf-8"))
        except ConfigError:
            raise
        except Exception as error:  # the library has no other for what it cannot read
            raise broken(MINILM, directory / vocabulary.name, str(error)[:200]) from error
        tokenizer.no_padding()
        tokenizer.enable_truncation(TOKENS_MAX)
        tokenizer.encode_special_tokens = True  # "[SEP]" in a text is what somebody wrote, no command
        self._tokenizer = tokenizer
        self._weights: _Weights | None = self._fused(tensors)

    def embed(self, texts: Sequence[str], role: Role) -> list[Dense | Sparse]:
        """Return one vector of 384 numbers for each text; the role does not matter to this model.

        The same text gives the same vector up to the rounding of float32, about 1e-6, whatever it was embedded together with.

        Raises:
            Closed: after ``close``. No state changed.
        """
        weights = self._weights
        if weights is None:
            raise Closed("the model was closed", code="embed.closed")
        vectors: list[Dense | Sparse] = [array("f", bytes(4 * WIDTH)) for _ in texts]
        tokens = self._tokens(texts)
        order = sorted((index for index, ids in enumerate(tokens) if ids), key=lambda index: len(tokens[index]))
        begin = 0
        while begin < len(order):
            end, longest = begin, 0
            while end < len(order) and end - begin < BATCH_TEXTS_MAX:
                longest = len(tokens[order[end]])
                if end > begin and longest * (end - begin + 1) > BATCH_TOKENS_MAX:
                    break
                end += 1
            batch = order[begin:end]
            for index, row in zip(batch, self._forward(weights, [tokens[index] for index in batch]), strict=True):
                vectors[index] = array("f", row.tobytes())
            begin = end
        return vectors

    def close(self) -> None:
        """Let go of the weights. Idempotent."""
        self._weights = None

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, none if nothing in it is understood."""
        # A lone surrogate is no character, and the tokenizer takes none.
        clean = [text[:TEXT_CHARS_MAX].encode("utf-8", "replace").decode() for text in texts]
        encoded = self._tokenizer.encode_batch_fast(clean)
        found: list[list[int]] = [item.ids for item in encoded]
        return [ids if any(token not in (_CLS, _SEP, _UNKNOWN) for token in ids) else [] for ids in found]

    def _fused(self, tensors: dict[str, Float32]) -> _Weights:
        """Return the weights as the forward pass multiplies by them: three projections in one, the scale folded in.

        Each lies in memory in the order in which it is read: for a short query, where moving weights is most of the work, that is
        4 ms of 11. All are copies, so that the file's bytes can go.
        """
        np = self._np
        scale = np.float32(1.0 / math.sqrt(WIDTH // HEADS))
        layers: list[dict[str, Float32]] = []
        for number in range(LAYERS):
            own = {name.split(".", 3)[3]: tensor for name, tensor in tensors.items() if f"layer.{number}." in name}
            query, key, value = (own[f"attention.self.{part}.weight"] for part in ("query", "key", "value"))
            biases = [own[f"attention.self.{part}.bias"] for part in ("query", "key", "value")]
            layer = {
                "qkv": np.ascontiguousarray(np.concatenate([query * scale, key, value]).T),
                "qkv_bias": np.concatenate([biases[0] * scale, *biases[1:]]),
            }
            for short, name in (("out", "attention.output"), ("up", "intermediate"), ("down", "output")):
                layer[short] = np.ascontiguousarray(own[f"{name}.dense.weight"].T)
                layer[short + "_bias"] = own[f"{name}.dense.bias"].copy()
            for short, name in (("mid", "attention.output"), ("end", "output")):
                layer[short + "_scale"] = own[f"{name}.LayerNorm.weight"].copy()
                layer[short + "_shift"] = own[f"{name}.LayerNorm.bias"].copy()
            layers.append(layer)
        return _Weights(
            {name: tensor.copy() for name, tensor in tensors.items() if name.startswith("embeddings.")}, layers
        )

    def _forward(self, weights: _Weights, batch: list[list[int]]) -> Float32:
        """Return one vector for each list of token ids: (texts, 384), rows of length 1."""
        np, tensors = self._np, weights.embeddings
        count, longest = len(batch), max(map(len, batch))
        ids = np.zeros((count, longest), dtype=np.intp)
        there = np.zeros((count, longest), dtype=np.float32)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            there[row, : len(tokens)] = 1.0
        state = tensors["embeddings.word_embeddings.weight"][ids]
        state += tensors["embeddings.position_embeddings.weight"][:longest]
        state += tensors["embeddings.token_type_embeddings.weight"][0]
        state = state.reshape(count * longest, WIDTH)
        self._normalise(state, tensors["embeddings.LayerNorm.weight"], tensors["embeddings.LayerNorm.bias"])
        # Padding is no token: nobody may look at it. None is there if all texts are of one length, as with a single query.
        hidden = None if there.all() else ((there - 1.0) * np.float32(1e9)).reshape(count, 1, 1, longest)
        for layer in weights.layers:
            state = self._layer(state, layer, count, longest, hidden)
        pooled = np.einsum("tlw,tl->tw", state.reshape(count, longest, WIDTH), there)
        pooled /= np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), _EPSILON)
        return pooled

    def _layer(
        self, state: Float32, layer: dict[str, Float32], count: int, longest: int, hidden: Float32 | None
    ) -> Float32:
        np = self._np
        mixed = state @ layer["qkv"]
        mixed += layer["qkv_bias"]
        query, key, value = mixed.reshape(count, longest, 3, HEADS, WIDTH // HEADS).transpose(2, 0, 3, 1, 4)
        look = query @ key.swapaxes(-1, -2)
        if hidden is not None:
            look += hidden
        look -= look.max(axis=-1, keepdims=True)
        np.exp(look, out=look)
        look /= look.sum(axis=-1, keepdims=True)
        seen = (look @ value).transpose(0, 2, 1, 3).reshape(count * longest, WIDTH)
        middle = seen @ layer["out"]
        middle += layer["out_bias"]
        middle += state
        self._normalise(middle, layer["mid_scale"], layer["mid_shift"])
        wide = middle @ layer["up"]
        wide += layer["up_bias"]
        self._gelu(wide)
        end = wide @ layer["down"]
        end += layer["down_bias"]
        end += middle
        self._normalise(end, layer["end_scale"], layer["end_shift"])
        return end

    def _normalise(self, state: Float32, scale: Float32, shift: Float32) -> None:
        """Bring each row to mean 0 and variance 1, then scale and shift it; in place."""
        np = self._np
        state -= state.mean(axis=-1, keepdims=True)
        variance = np.einsum("tw,tw->t", state, state)[:, None] / np.float32(WIDTH)
        state /= np.sqrt(variance + np.float32(_EPSILON))
        state *= scale
        state += shift

    def _gelu(self, x: Float32) -> None:
        """x·Φ(x) in place. numpy has no erf: that of Abramowitz & Stegun 7.1.26 is off by 1.5e-7 at most, as float32 is."""
        np = self._np
        z = np.abs(x)
        z *= np.float32(math.sqrt(0.5))
        t = np.float32(1.0) / (np.float32(1.0) + np.float32(0.3275911) * z)
        poly = t * np.float32(1.061405429)
        for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
            poly += np.float32(factor)
            poly *= t
        np.square(z, out=z)
        np.negative(z, out=z)
        np.exp(z, out=z)
        poly *= z  # 1 - erf(|x|/√2)
        poly *= np.float32(0.5)
        # Φ(x) is 1 - poly above zero and poly below.
        np.copyto(poly, np.float32(1.0) - poly, where=x > 0)
        x *= poly
