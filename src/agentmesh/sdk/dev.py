"""``agentmesh dev FILE``: run an agent file in a process of its own and start it anew whenever something beside it is saved.

A saved file that does not compile is reported and the running agent goes on. A reload first lets the old process withdraw
its agents, then starts the new one, so that no stale registration stays. A file that defines agents but never calls
``run`` is served all the same.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from agentmesh.errors import UsageError

#: Seconds between looks at the files.
POLL_INTERVAL_S = 0.3
#: How long the old process gets to withdraw its agents before it is killed.
STOP_TIMEOUT_S = 5.0
#: Most files watched; a directory with more is watched in part, and said so.
FILES_MAX = 2000
_SKIPPED = {"__pycache__", ".git", ".venv", "venv", "node_modules", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def run_dev(path: str | os.PathLike[str], *, stop: threading.Event | None = None) -> int:
    """Run an agent file with reload until Ctrl-C or SIGTERM; return the exit code, 0.

    Args:
        path: The file.
        stop: Ends it from another thread, for tests and embedding.

    Raises:
        UsageError: no such file, or not a Python file. Nothing was started.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file() or file.suffix != ".py":
        raise UsageError(
            f"{str(path)!r} is no Python file",
            code="dev.no_file",
            hint="agentmesh dev hello.py   with a file that exists",
        )
    ended = stop or threading.Event()
    restore = _on_signals(ended.set)
    runner = _Runner(file)
    try:
        runner.start()
        seen = _snapshot(file)
        while not ended.wait(POLL_INTERVAL_S):
            runner.report_exit()
            now = _snapshot(file)
            if now != seen:
                seen = now
                runner.reload()
    finally:
        runner.stop()
        restore()
    return 0


def _on_signals(stop: Callable[[], None]) -> Callable[[], None]:
    """Let SIGINT and SIGTERM end the runner; returns what restores the former handlers."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop()

    former = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    return restore


class _Runner:
    """The child process that runs the file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the file if it compiles; otherwise say what is wrong with it."""
        if not self._compiles():
            return
        # The pipe tells the child when this process dies, however it dies.
        self._child = subprocess.Popen(  # noqa: S603 - the user's own file, which is the point
            [sys.executable, "-c", "from agentmesh.sdk.dev import child_main; child_main()", str(self._file)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def reload(self) -> None:
        """Replace the process; the old one goes on when the new file does not compile."""
        if self._compiles():
            _say(f"{self._file.name} changed; starting it anew")
            self.stop()
            self.start()

    def stop(self) -> None:
        """Ask the process to withdraw its agents and end; kill it if it does not."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if child.stdin is not None:
            child.stdin.close()

    def report_exit(self) -> None:
        """Say once that the process ended by itself."""
        if self._child is not None and (code := self._child.poll()) is not None:
            _say(f"{self._file.name} ended with exit code {code}; waiting for a change")
            self.stop()

    def _compiles(self) -> bool:
        try:
            compile(self._file.read_bytes(), str(self._file), "exec")
        except (SyntaxError, ValueError) as error:
            print("".join(traceback.format_exception_only(error)), file=sys.stderr, end="")
            _say("not started; waiting for a change" if self._child is None else "the running version goes on")
            return False
        except OSError:
            return False  # between two saves of an editor
        return True


def _snapshot(file: Path) -> dict[str, tuple[int, int]]:
    """Return (modification time in ns, size) of the Python files in the file's directory and below."""
    seen: dict[str, tuple[int, int]] = {}
    for folder, folders, names in os.walk(file.parent):
        folders[:] = [f for f in folders if f not in _SKIPPED and not f.startswith(".")]
        for name in names:
            if not name.endswith(".py"):
                continue
            path = os.path.join(folder, name)
            try:
                status = os.stat(path)
            except OSError:
                continue
            seen[path] = (status.st_mtime_ns, status.st_size)
            if len(seen) >= FILES_MAX:
                return seen
    return seen


def _say(text: str) -> None:
    print(f"agentmesh dev: {text}", file=sys.stderr, flush=True)


def child_main() -> None:
    """Run the file named by the last argument as ``__main__``; serve its agents if it does not do so itself."""
    path = sys.argv[-1]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv[:] = [path]
    sys.path.insert(0, os.path.dirname(path))
    from agentmesh.sdk import process
    from agentmesh.sdk.agent import Agent, run

    names = runpy.run_path(path, run_name="__main__")
    agents = list({id(v): v for v in names.values() if isinstance(v, Agent) and v.skills}.values())
    if agents and not process.served():
        run(*agents)


def _end_with_parent() -> None:
    """End this process, agents withdrawn, when the runner is gone: its end of the pipe closes."""
    # Not through sys.stdin: a daemon thread that holds its lock would abort the interpreter's shutdown.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
