"""Which embedder answers: by the name that was configured, and what steps in where that one cannot.

    builtin            no model, no library, always there
    minilm             the local sentence model, if its files and libraries are here
    http(s)://…#model  an OpenAI-compatible endpoint, such as Ollama or vLLM
    auto               minilm if it is here, else builtin

Whoever wants an error uses ``open_embedder``; whoever wants an answer uses ``choose``, which says in words what it did instead.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from agentmesh.embed.base import Embedder
from agentmesh.embed.models import LIBRARIES_COMMAND, MINILM, is_present, models_in
from agentmesh.errors import ConfigError, MeshError

NAMES = ("auto", "builtin", MINILM.name)
NAME_CHARS_MAX = 512


class Chosen(NamedTuple):
    """What answers.

    Attributes:
        embedder: The embedder, open.
        wanted: The name that was configured.
        fallback: One sentence for people: why another one answers; "" if it is the wanted one.
        hint: The command that would change that, "" if there is none.
    """

    embedder: Embedder
    wanted: str
    fallback: str = ""
    hint: str = ""


class Source(NamedTuple):
    """Where an embedder finds what it needs.

    Attributes:
        models: The directory of local models.
        model: Name of the model at an endpoint, if its address names none.
        key_file: File with the endpoint's API key, "" for none.
        environ: The environment, which may hold that key.
    """

    models: Path
    model: str = ""
    key_file: str = ""
    environ: Mapping[str, str] = os.environ


def is_endpoint(name: str) -> bool:
    """Say whether a name is the address of an endpoint."""
    return name.startswith(("http://", "https://"))


def check_name(name: str) -> str:
    """Return the name of an embedder if it can be one; opens nothing.

    Raises:
        ConfigError: it is neither one of ours nor an address that can be read. No state changed.
    """
    if is_endpoint(name) and len(name) <= NAME_CHARS_MAX:
        from agentmesh.embed.endpoint import parse_address

        parse_address(name)
    elif name not in NAMES:
        raise ConfigError(
            f"no embedder {name[:60]!r}",
            code="embed.unknown",
            why=f"known are: {', '.join(NAMES)}, and the http(s) address of an endpoint",
            hint="agentmesh config explain embedder",
        )
    return name


def open_embedder(
    name: str,
    home: Path,
    *,
    models: Path | None = None,
    model: str = "",
    key_file: str = "",
    environ: Mapping[str, str] | None = None,
) -> Embedder:
    """Open exactly the embedder of that name; "auto" is whichever of minilm and builtin works.

    An endpoint is not asked anything yet.

    Args:
        name: See the module's docstring.
        home: Home of the node; its models are below.
        models: Directory of local models, if not that of the home.
        model: Name of the model at an endpoint, if the address names none.
        key_file: File with the endpoint's API key (mode 0600), if it wants one.
        environ: The environment; ``os.environ`` when left out.

    Raises:
        ConfigError: an unknown name, a missing or broken model, a missing library, a key that others can read (codes "embed.*").
    """
    source = Source(models or models_in(home), model, key_file, os.environ if environ is None else environ)
    return choose(name, source).embedder if name == "auto" else _open(name, source)


def choose(name: str, source: Source) -> Chosen:
    """Open the embedder of that name, or the built-in one where it cannot be. Never fails for want of a model or an endpoint.

    Raises:
        RecordNotFound, ConfigError: the built-in embedder itself cannot be opened: the installation is broken.
    """
    if name == "auto":
        if not is_present(MINILM, source.models):
            why = f"the model {MINILM.name} is not installed, so needs in other words are found less often"
            return Chosen(_builtin(), name, why, f"agentmesh models install {MINILM.name}")
        if missing := _missing_libraries():
            why = f"the model {MINILM.name} is installed, but not what runs it: {', '.join(missing)}"
            return Chosen(_builtin(), name, why, LIBRARIES_COMMAND)
    if name == "builtin":
        return Chosen(_builtin(), name)
    try:
        return Chosen(_open(MINILM.name if name == "auto" else name, source), name)
    except MeshError as error:
        why = error.detail + (f": {error.why}" if error.why else "")
        return Chosen(_builtin(), name, why, error.hint or "")


def _open(name: str, source: Source) -> Embedder:
    check_name(name)
    if name == "builtin":
        return _builtin()
    if name == MINILM.name:
        from agentmesh.embed.minilm import MiniLM

        return MiniLM(source.models)
    from agentmesh.embed.endpoint import Endpoint, read_key

    return Endpoint(name, model=source.model, key=read_key(source.key_file, source.environ))


def _missing_libraries() -> list[str]:
    from agentmesh.embed.minilm import missing_libraries

    return missing_libraries()


def _builtin() -> Embedder:
    from agentmesh.embed.builtin import BuiltinEmbedder

    return BuiltinEmbedder()
