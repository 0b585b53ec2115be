"""``agentmesh config show|explain|set|unset|path``: settings, where each value comes from, and how to change it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output
from agentmesh.cli.verb import built, group, new_app, verb

_OPTIONS = {"help_option_names": ["-h", "--help"]}


def _keys(incomplete: str) -> list[str]:
    from agentmesh.daemon.knob_table import table

    return [row.key for row in table() if row.key.startswith(incomplete)]


def show(out: Output) -> None:
    """Print every setting with its present value.

    \b
    agentmesh config show
    """
    from agentmesh.daemon.knob_table import show_value

    loaded = _load(out)
    if out.json:
        out.data({entry.row.key: _plain(entry.value) for entry in loaded.explain()})
        return
    for entry in loaded.explain():
        out.line((entry.row.key, "name"), f" = {show_value(entry.value)}")


def explain(
    out: Output,
    key: Annotated[str, typer.Argument(help="One setting; all when left out.", autocompletion=_keys)] = "",
) -> None:
    """Print what each setting does, its value, and where that comes from.

    \b
    agentmesh config explain
    agentmesh config explain port
    """
    from agentmesh.daemon.knob_table import row_of, show_value

    if key:
        row_of(key)
    loaded = _load(out)
    entries = [entry for entry in loaded.explain() if not key or entry.row.key == row_of(key).key]
    if out.json:
        from agentmesh.daemon.explain import config_view

        view = config_view(loaded)
        out.data(view if not key else {"settings": [one for one in view.settings if one.key == row_of(key).key]})
        return
    from agentmesh.daemon.explain import digest_of, setting_views

    for entry in entries:
        row = entry.row
        unit = f" {row.knob.unit}" if row.knob.unit else ""
        out.line((row.key, "name"), f" = {show_value(entry.value)}{unit}", (f"   from {entry.source}", "dim"))
        out.line(f"    {row.knob.effect}")
        if key or out.verbose:
            out.line(f"    change it: {row.knob.when}")
            default = "" if row.default is None else show_value(row.default) or "empty"
            out.line(f"    default: {default}{' - ' if default else ''}{row.knob.origin}")
            out.line(
                f"    set it: {row.flag} · {row.env}"
                + ("" if row.key == "home" else f" · agentmesh config set {row.key} …")
            )
    if not key:
        out.note(
            i18n.t("{count} settings · digest {digest}", count=len(entries), digest=digest_of(setting_views(loaded)))
        )


def set_(
    out: Output,
    key: Annotated[str, typer.Argument(help="The setting.", autocompletion=_keys)],
    value: Annotated[str, typer.Argument(help="Its value; lists are separated by commas.")],
) -> None:
    """Write a setting to config.toml.

    \b
    agentmesh config set mdns off
    agentmesh config set seeds did:key:z6Mk…@192.0.2.7:6374
    """
    _change(out, key, value)


def unset(out: Output, key: Annotated[str, typer.Argument(help="The setting.", autocompletion=_keys)]) -> None:
    """Remove a setting from config.toml, so that its default holds.

    \b
    agentmesh config unset mdns
    """
    _change(out, key, None)


def path(out: Output) -> None:
    """Print where config.toml is.

    \b
    agentmesh config path
    """
    from agentmesh.cli.connect import home_of

    file = home_of(out).config
    if out.json:
        out.data({"path": str(file), "exists": file.exists()})
    else:
        out.line(str(file))


def _change(out: Output, key: str, value: str | None) -> None:
    from agentmesh.cli.connect import home_of
    from agentmesh.daemon import lock
    from agentmesh.daemon.settings import set_value

    home = home_of(out)
    lost_comments = set_value(home, key, value, out.profile)
    if out.json:
        out.data({"key": key, "value": value, "path": str(home.config), "profile": out.profile or None})
        return
    what = i18n.t("removed") if value is None else f"{i18n.t('set')}  {value}"
    out.check("ok", key, f"{what}   {home.config}")
    if lost_comments:
        kept = home.config.with_suffix(".toml.bak")
        out.note(("! ", "warn"), i18n.t("comments were lost; the old file is kept as {path}", path=kept))
    if lock.running(home) is not None:
        out.next("agentmesh down && agentmesh up", i18n.t("it takes effect when the node starts again"))


def _load(out: Output) -> Any:
    from agentmesh.daemon.settings import load

    return load({"home": out.home} if out.home else {}, profile=out.profile or None)


def _plain(value: Any) -> Any:
    from pathlib import Path

    return str(value) if isinstance(value, Path) else value


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    app.callback(invoke_without_command=True, help="Show, explain and change settings.")(group(show))
    for name, body in (("show", show), ("explain", explain), ("set", set_), ("unset", unset), ("path", path)):
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
