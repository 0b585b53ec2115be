"""``python -m agentmesh.sim``: list, run and replay scenarios (docs/spec/simulator.md §9).

Exit codes: 0 = ran, 1 = something was violated, 2 = the arguments make no run. How long a run takes is the one thing
taken from outside, by ``timeit.default_timer``: the floors keep clocks out of this room, and here nothing decides by it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from timeit import default_timer
from typing import TextIO

import msgspec

from agentmesh.errors import MeshError
from agentmesh.sim.runner import Report, Run
from agentmesh.sim.scenario import Scenario, load, names
from agentmesh.sim.story import Story


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.verb == "list":
            return _list()
        if arguments.verb == "histories":
            return _histories(arguments)
        scenario = load(arguments.scenario, arguments.set)
        if arguments.verb == "replay":
            return _replay(scenario, arguments)
        return _run(scenario, arguments)
    except MeshError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m agentmesh.sim", description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="show the scenarios")
    histories = verbs.add_parser("histories", help="play clients of shared state and judge what they heard")
    histories.add_argument("--count", type=int, default=1000, help="how many histories (default 1000)")
    histories.add_argument("--seed", type=int, default=1, help="of the first; each has its own (default 1)")
    histories.add_argument("--kind", action="append", default=[], help="only of this kind; repeatable")
    histories.add_argument("--flaw", default="", help="break what is played on purpose, to see the judges at work")
    histories.add_argument("--json", action="store_true", help="print the summary as JSON")
    run = verbs.add_parser("run", help="run a scenario and print its figures")
    replay = verbs.add_parser("replay", help="run it again and tell the story of some nodes, or of a violation")
    for verb in (run, replay):
        verb.add_argument("scenario", metavar="SCENARIO")
        verb.add_argument("--nodes", type=int, help="how many (default: the scenario's)")
        verb.add_argument("--seed", type=int, default=1, help="same seed, same run (default 1)")
        verb.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="change a field, as links.loss=0.1; repeatable",
        )
    run.add_argument("--json", action="store_true", help="print the report as JSON")
    run.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, default=None, help="progress bar (default: on a terminal)"
    )
    replay.add_argument("--until", type=float, metavar="T", help="stop at this simulated second")
    replay.add_argument("--node", type=int, action="append", metavar="I", help="tell of this node; repeatable")
    return parser


def _list() -> int:
    for name in names():
        scenario = load(name)
        print(f"{name:18} {scenario.nodes:>6} nodes  {scenario.title}")
    return 0


def _histories(arguments: argparse.Namespace) -> int:
    from agentmesh.sim.histories.suite import KINDS, run

    begun_s = default_timer()
    summary = run(arguments.count, arguments.seed, tuple(arguments.kind), arguments.flaw)
    if arguments.json:
        print(msgspec.json.encode(summary._asdict()).decode())
        return 1 if summary.broken else 0
    for name, count in summary.histories.items():
        print(f"{name:10} {count:>6} histories, {summary.calls[name]:>8,} calls   {KINDS[name].title}")
    for name, seed, what in summary.wrong:
        print(f"  VIOLATION in {name}, seed {seed}: {what}")
    verdict = f"{summary.broken} with a violation" if summary.broken else "no violation"
    print(f"{sum(summary.histories.values())} histories in {default_timer() - begun_s:.1f} s: {verdict}")
    if summary.wrong:
        name, seed, _ = summary.wrong[0]
        flaw = f" --flaw {arguments.flaw!r}" if arguments.flaw else ""
        print(f"replay: python -m agentmesh.sim histories --count 1 --kind {name} --seed {seed}{flaw}")
    return 1 if summary.broken else 0


def _run(scenario: Scenario, arguments: argparse.Namespace) -> int:
    run = Run(scenario, scenario.nodes if arguments.nodes is None else arguments.nodes, arguments.seed)
    wanted = arguments.progress if arguments.progress is not None else sys.stderr.isatty()
    report = _with_bar(run) if wanted else run.execute(default_timer)
    if arguments.json:
        print(msgspec.json.encode(report).decode())
    else:
        show(report, sys.stdout)
    return 1 if report.violations else 0


def _with_bar(run: Run) -> Report:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[what]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(run.scenario.name, total=run.end_s, what="")

        def tell(simulated_s: float, events: int) -> None:
            bar.update(task, completed=simulated_s, what=f"{simulated_s:.0f} of {run.end_s:.0f} s, {events:,} events")

        return run.execute(default_timer, tell)


def _replay(scenario: Scenario, arguments: argparse.Namespace) -> int:
    run = Run(scenario, scenario.nodes if arguments.nodes is None else arguments.nodes, arguments.seed)
    chosen: list[int] = arguments.node or []
    for index in chosen:
        if not 0 <= index < len(run.world.nodes):
            print(f"error: there is no node {index}; they are 0 to {len(run.world.nodes) - 1}", file=sys.stderr)
            return 2
    story = Story(run.world, arguments.node, print)
    report = run.execute(default_timer, until_s=arguments.until)
    story.finish()
    show(report, sys.stdout)
    return 1 if report.violations else 0


def show(report: Report, out: TextIO) -> None:
    """Print a report for people."""
    tell: Callable[[str], None] = lambda text: print(text, file=out)  # noqa: E731
    tell(f"{report.scenario}: {report.nodes} nodes, seed {report.seed}, digest {report.digest}")
    tell(f"{report.simulated_s:.1f} s simulated in {report.wall_s:.1f} s, {report.events:,} events")
    for name, value in report.figures.items():
        goal = report.goals.get(name)
        verdict = ""
        if goal is not None:
            bounds = " and ".join(
                f"{'≤' if key == 'max' else '≥'} {goal[key]:g}" for key in ("max", "min") if key in goal
            )
            verdict = f"   goal {bounds}: {'met' if goal['met'] else 'NOT MET'}"
        tell(f"  {name:34} {value:>14,}{verdict}")
    for name in report.goals:
        if name not in report.figures:
            tell(f"  {name:34} {'not measured':>14}   goal: NOT MET")
    for note in report.notes[:10]:
        tell(f"  note: {note}")
    for violation in report.violations:
        where = f", node {violation['node']}" if "node" in violation else ""
        tell(f"  VIOLATION at {violation['at_s']} s{where}: {violation['what']}")
    if report.violations:
        tell(f"replay: python -m agentmesh.sim replay {report.scenario} --nodes {report.nodes} --seed {report.seed}")


if __name__ == "__main__":
    sys.exit(main())
