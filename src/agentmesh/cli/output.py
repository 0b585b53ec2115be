"""Everything a command prints: data to stdout, the rest to stderr, colour and spinners on a terminal only.

rich decides about colour (NO_COLOR, FORCE_COLOR, TERM=dumb) and loads only when colour is possible at all: a script that
pipes our output never pays for it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import msgspec

from agentmesh.cli import i18n
from agentmesh.cli.exits import exit_code
from agentmesh.errors import MeshError

#: How the parts of our output look, as rich styles.
STYLES = {
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
    "head": "bold",
    "dim": "dim",
    "name": "cyan",
    "plain": "",
}
_MARKS = {"ok": "✓", "warn": "!", "fail": "✗"}
#: A wait gets a status line after this many seconds, and says for how long after the second number (UX §2).
STATUS_AFTER_S, DETAIL_AFTER_S = 0.3, 2.0

Styled = str | tuple[str, str]


@dataclass
class Output:
    """What the global flags ask of the output, and the two streams.

    Attributes:
        json: One JSON object (or one per line for streams) instead of text.
        quiet: No hints and no progress; data and errors stay.
        verbose: 0 to 2; 2 shows tracebacks.
        color: False after ``--no-color``.
        lang: "en" or "zh".
        home: ``--home``, None if not given.
        profile: ``--profile``, "" if not given.
        timeout_s: ``--timeout``, None if not given.
        yes: Answer yes to every question.
        autostart: Offer to start the daemon.
    """

    json: bool = False
    quiet: bool = False
    verbose: int = 0
    color: bool = True
    lang: str = "en"
    home: str | None = None
    profile: str = ""
    timeout_s: float | None = None
    yes: bool = False
    autostart: bool = True
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)
    _consoles: dict[int, Any] = field(default_factory=dict[int, Any])
    _status_shown: bool = False

    @property
    def width(self) -> int:
        """Columns of the terminal that shows stdout; a large number when it is none, so that a pipe gets everything."""
        return shutil.get_terminal_size().columns if self.stdout.isatty() else 1_000

    def data(self, value: Any) -> None:
        """Print one JSON value on one line of stdout."""
        self.stdout.write(msgspec.json.encode(value).decode() + "\n")
        self.stdout.flush()

    def raw(self, text: str) -> None:
        """Write text to stdout as it is, at once: for streamed answers."""
        self.stdout.write(text)
        self.stdout.flush()

    def line(self, *parts: Styled) -> None:
        """Print a line of data to stdout; a part is a text or a (text, style name) pair."""
        self._write(self.stdout, parts)

    def note(self, *parts: Styled) -> None:
        """Print a line for people to stderr, unless quiet or JSON."""
        if not self.quiet and not self.json:
            self.clear_status()
            self._write(self.stderr, parts)

    def next(self, command: str, comment: str = "") -> None:
        """Name the next command, on stderr."""
        shown = self._at_home(command)
        self.note((f"{i18n.t('next:')} ", "dim"), shown, (f"   {comment}" if comment else "", "dim"))

    def listing(self, found: Sequence[Any], whole: msgspec.Struct, nothing: str, command: str) -> bool:
        """Answer with a list where that needs no table; True if there are rows to show.

        Args:
            found: What is listed.
            whole: The answer as JSON.
            nothing, command: What to say where nothing is, in the language of whoever reads it, and what to do next.
        """
        if self.json:
            self.data(whole)
        elif not found:
            self.note(nothing)
            self.next(command)
        return bool(found) and not self.json

    def check(self, mark: str, what: str, text: str) -> None:
        """Print one line of a check list to stdout: ✓ what  text. ``mark`` is ok, warn or fail."""
        self.line((f"{_MARKS[mark]} ", mark), pad(what, 12), text)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[Styled]]) -> None:
        """Print columns to stdout, padded by what a terminal shows (CJK is two cells wide)."""
        body = [list(row) for row in rows]
        widths = [max([cells(name), *(cells(_text(row[i])) for row in body)]) for i, name in enumerate(head)]
        self.line((_join([(name, widths[i]) for i, name in enumerate(head)]), "head"))
        for row in body:
            last = len(row) - 1
            self.line(
                *(
                    (pad(_text(cell), widths[i]) + "  " if i < last else _text(cell), _style(cell))
                    for i, cell in enumerate(row)
                )
            )

    def status(self, text: str) -> None:
        """Show one line about a wait, on a terminal only; the next line written replaces it."""
        if self.quiet or self.json or not self.stderr.isatty() or os.environ.get("TERM") == "dumb":
            return
        self.stderr.write("\r\x1b[2K" + text)
        self.stderr.flush()
        self._status_shown = True

    def clear_status(self) -> None:
        """Remove the status line, if one is shown."""
        if self._status_shown:
            self.stderr.write("\r\x1b[2K")
            self._status_shown = False

    def waiting(self, what: str) -> Callable[[float], None]:
        """Return a callback for waits: silent at first, then what it waits for, then also for how long."""

        def show(waited_s: float) -> None:
            if waited_s > DETAIL_AFTER_S:
                self.status(f"{what} … {waited_s:.0f} s")
            elif waited_s > STATUS_AFTER_S:
                self.status(f"{what} …")

        return show

    def problem(self, error: MeshError, trace: BaseException | None = None) -> int:
        """Print an error and return its exit code."""
        self.clear_status()
        if self.json:
            self.stderr.write(msgspec.json.encode({"error": error.to_dict()}).decode() + "\n")
        else:
            what, why, hint = i18n.error_lines(error)
            self._write(self.stderr, [(f"{i18n.t('error')}[{error.code}]", "fail"), f" {what}"])
            if why:
                self._write(self.stderr, [(i18n.t("why:") + " ", "dim"), why])
            if hint:
                self._write(self.stderr, [(i18n.t("next:") + " ", "dim"), self._at_home(hint)])
            log = error.extra.get("log")
            if isinstance(log, list) and log and not self.quiet:
                for entry in log:  # pyright: ignore[reportUnknownVariableType]
                    self._write(self.stderr, [("  | " + str(entry), "dim")])  # pyright: ignore[reportUnknownArgumentType]
        if self.verbose >= 2:
            traceback.print_exception(trace or error, file=self.stderr)
        self.stderr.flush()
        return exit_code(error)

    def confirm(self, question: str) -> bool:
        """Ask yes or no on a terminal; ``--yes`` answers yes, and without a terminal the answer is no."""
        if self.yes:
            return True
        if self.json or not (sys.stdin.isatty() and self.stderr.isatty()):
            return False
        self.clear_status()
        self.stderr.write(f"{question} [Y/n] ")
        self.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("", "y", "yes", "是", "j", "o")

    def _at_home(self, command: str) -> str:
        """Name the home in a command if this one was told it by flag, so that the next one reaches the same node."""
        if not self.home or "--home" in command:
            return command
        return re.sub(r"(^|&& )agentmesh ", rf"\1agentmesh --home {shlex.quote(self.home)} ", command)

    def _write(self, stream: TextIO, parts: Iterable[Styled]) -> None:
        console = self._console(stream)
        if console is None:
            stream.write("".join(_text(part) for part in parts).rstrip() + "\n")
        else:
            from rich.text import Text

            console.print(Text.assemble(*((_text(p), STYLES[_style(p)]) for p in parts)), soft_wrap=True)
        stream.flush()

    def _console(self, stream: TextIO) -> Any:
        """Return a rich console if this stream may be coloured at all, else None."""
        if not self.color or not (stream.isatty() or os.environ.get("FORCE_COLOR")):
            return None
        key = id(stream)
        if key not in self._consoles:
            from rich.console import Console

            self._consoles[key] = Console(file=stream, highlight=False, markup=False, emoji=False)
        return self._consoles[key]


def cells(text: str) -> int:
    """Return how many terminal cells a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1 for c in text
    )


def pad(text: str, width: int) -> str:
    """Fill a text with spaces to a width in cells."""
    return text + " " * max(0, width - cells(text))


def clip(text: str, width: int) -> str:
    """Cut a text to a width in cells, with an ellipsis, on one line; control characters become visible."""
    flat = "".join(c if c.isprintable() else "␤" if c == "\n" else "·" for c in text)
    if cells(flat) <= width:
        return flat
    out: list[str] = []
    used = 1
    for char in flat:
        used += cells(char)
        if used > width:
            break
        out.append(char)
    return "".join(out) + "…"


def printable(text: str) -> str:
    """Return text from afar fit for a terminal: line breaks and tabs stay, escape sequences lose their teeth."""
    return "".join(c if c.isprintable() or c in "\n\t" else "·" for c in text)


def age(seconds: float) -> str:
    """Say a duration as people do: 42 s, 3 min, 5 h, 2 d."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def clock(microseconds: int) -> str:
    """Return a wall-clock time of day in the local zone."""
    return time.strftime("%H:%M:%S", time.localtime(microseconds / 1_000_000))


def _text(part: Styled) -> str:
    return part if isinstance(part, str) else part[0]


def _style(part: Styled) -> str:
    return "plain" if isinstance(part, str) else part[1]


def _join(columns: Sequence[tuple[str, int]]) -> str:
    return "  ".join(pad(text, width) for text, width in columns).rstrip()
