"""Measure the console in Debian's Chromium at real daemons on loopback: opening, timelines, live load, topology, sizes.

    python -m bench console                 # everything; the soak takes five minutes
    python -m bench console --soak-s 30     # a shorter soak
    python -m bench console --only timeline,open
    python -m bench console --write         # and renew docs/reference/console-figures.md

Times are taken in the page: from the click to the mark that the page sets after the frame in which the rows were painted.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import re
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bench.__main__ import RESULTS, ROOT, cell, machine
from bench.console import load
from bench.idle import memory_mb
from tests.support.browser import Desk, chromium, login_link
from tests.support.daemons import Daemon, Mesh, wait_until
from tests.support.plain import plain_agent

PAGE = ROOT / "docs" / "reference" / "console-figures.md"
STATIC = ROOT / "src" / "agentmesh" / "api" / "static"
SOAK_S = 300.0
_REPEATS = 5


class Figure(NamedTuple):
    """One line of the table."""

    what: str
    value: float | int | str
    unit: str = ""
    goal: str = ""


def opening(browser: Any, node: Daemon) -> list[Figure]:
    """Open the console cold, with a processor four times slower."""
    paints: list[float] = []
    for _ in range(_REPEATS):
        with Desk(browser, node) as desk:
            session = desk.context.new_cdp_session(desk.page)
            session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
            desk.page.goto(login_link(node))
            desk.live()
            paints.append(
                desk.page.evaluate(
                    "() => new Promise(go => { new PerformanceObserver(list => go(list.getEntries().at(-1).startTime))"
                    ".observe({ type: 'largest-contentful-paint', buffered: true }) })"
                )
            )
    return [
        Figure(
            "largest paint of a cold open, CPU 4× slower, median of 5",
            round(statistics.median(paints)),
            "ms",
            "≤ 1,000",
        )
    ]


def timelines(browser: Any, node: Daemon) -> list[Figure]:
    """Open runs of three sizes, from the click to the painted rows; scroll the largest."""
    found: list[Figure] = []
    goals = {1_000: "≤ 300", 10_000: "≤ 1,000", 100_000: "≤ 1,000"}
    times: list[float] = []
    for count, goal in goals.items():
        load.store(node, load.events(load.run_id(f"timeline-{count}"), count))
        times = [_opened(browser, node, count) for _ in range(_REPEATS)]
        what = "first window" if count == 100_000 else "rows painted"
        found.append(
            Figure(
                f"timeline of {count:,} events, click to {what}, median of 5",
                round(statistics.median(times)),
                "ms",
                goal,
            )
        )
    times.clear()
    for _ in range(3):
        node.aclose()
        node.open()
        times.append(_opened(browser, node, 100_000))
    what = "timeline of 100,000 events, click to first window at a daemon that has just started, median of 3"
    found.append(Figure(what, round(statistics.median(times)), "ms", "≤ 1,000"))
    with Desk(browser, node).login() as desk:
        run = load.run_id("timeline-100000")
        begin_s = time.monotonic()
        desk.open(f"#/runs/{run}", "[data-seq]")
        desk.page.wait_for_function("() => performance.getEntriesByName('agentmesh:timeline-painted').length")
        found.append(
            Figure("timeline of 100,000 events, all rows loaded", round(time.monotonic() - begin_s, 1), "s", "≤ 4")
        )
        found += _scroll(desk)
    return found


def _opened(browser: Any, node: Daemon, count: int) -> float:
    """Return how long a timeline takes from the click to its first rows, milliseconds."""
    with Desk(browser, node).login() as desk:
        desk.open("#/runs")
        desk.page.evaluate("() => performance.clearMarks()")
        place = f"#/runs/{load.run_id(f'timeline-{count}')}"
        begin = desk.page.evaluate("to => { const t = performance.now(); location.hash = to; return t }", place)
        mark = desk.page.wait_for_function(
            "() => performance.getEntriesByName('agentmesh:first-window').at(-1)?.startTime"
        )
        return float(mark.json_value() - begin)


def _scroll(desk: Desk) -> list[Figure]:
    """Scroll a long timeline for four seconds and count frames and elements."""
    seen = desk.page.evaluate(
        """async () => {
          let box = document.querySelector('[data-seq]')
          while (box && box.scrollHeight <= box.clientHeight + 50) box = box.parentElement
          const frames = []
          let most = 0, last = performance.now()
          const begin = last
          while (last - begin < 4000) {
            const now = await new Promise(requestAnimationFrame)
            frames.push(now - last)
            last = now
            box.scrollTop += 240
            most = Math.max(most, document.getElementsByTagName('*').length)
          }
          frames.sort((a, b) => a - b)
          return { fps: 1000 * frames.length / (last - begin), p95: frames[Math.floor(frames.length * 0.95)], most }
        }"""
    )
    return [
        Figure("scrolling 100,000 rows", round(seen["fps"], 1), "frames/s", "≥ 50"),
        Figure("scrolling 100,000 rows, p95 of a frame", round(seen["p95"], 1), "ms"),
        Figure("elements in the page while scrolling", seen["most"], "", "≤ 2,500"),
    ]


def latency(browser: Any, node: Daemon) -> list[Figure]:
    """Store single events and see when they stand on the page."""
    run = load.run_id("latency")
    made = load.events(run, 160, tasks=4)
    load.store(node, made[:60])
    waits: list[float] = []
    with Desk(browser, node).login() as desk:
        desk.open(f"#/runs/{run}?view=full&follow=1", "[data-seq]")
        desk.page.evaluate(
            """() => {
              window.seen = {}
              const look = () => {
                for (const one of document.querySelectorAll('[data-seq]')) window.seen[one.dataset.seq] ??= Date.now()
              }
              const what = { subtree: true, childList: true, attributes: true, attributeFilter: ['data-seq'] }
              new MutationObserver(look).observe(document.body, what)
            }"""
        )
        for event in made[60:]:
            event["ts"] = int(time.time() * 1e6)
            sent_ms = time.time() * 1000
            seq = node.post("/api/v1/events", {"events": [event]})["last_seq"]
            at = desk.page.wait_for_function("seq => window.seen[seq]", arg=str(seq))
            waits.append(at.json_value() - sent_ms)
    waits.sort()
    return [
        Figure("event stored to row on the screen, p50", round(waits[len(waits) // 2]), "ms"),
        Figure("event stored to row on the screen, p95", round(waits[int(len(waits) * 0.95)]), "ms", "≤ 300"),
    ]


def soak(browser: Any, node: Daemon, seconds: float) -> list[Figure]:
    """Follow one run with a hundred open tasks and a thousand events a second."""
    run = load.run_id(f"soak-{time.time()}")
    load.store(node, load.events(run, 100, tasks=100))
    with Desk(browser, node).login() as desk:
        page = desk.page
        desk.open(f"#/runs/{run}?view=full&follow=1", "[data-seq]")
        session = desk.context.new_cdp_session(page)
        page.evaluate(
            "() => { window.long = []; new PerformanceObserver(list => { for (const one of list.getEntries())"
            " window.long.push(one.duration) }).observe({ type: 'longtask' }) }"
        )

        def heap_mb() -> float:
            session.send("HeapProfiler.collectGarbage")
            return session.send("Runtime.getHeapUsage")["usedSize"] / 1e6

        before_mb, memory = heap_mb(), memory_mb(node.pid)["rss"]
        with load.Pour(node, run, per_s=1_000, tasks=100) as pour:
            # Every ten seconds a look, so that the driver's own queue of messages is drained as well.
            for _ in range(max(1, round(seconds / 10))):
                page.wait_for_timeout(min(10.0, seconds) * 1000)
        total = 100 + pour.stored

        def shown() -> bool:
            digits = re.findall(r"\d+", page.locator(".foot").inner_text())
            return digits[:2] == [str(total), str(total)]

        wait_until(shown, f"the page to show {total} events", 60)
        long = page.evaluate("window.long")
        kept = node.get(f"/api/v1/runs/{run}/rows?limit=1")["count"]
        after_mb = heap_mb()
        return [
            Figure(f"{pour.stored:,} events live, 100 open tasks", round(pour.stored / seconds), "events/s", "1,000"),
            Figure("longest task of the page meanwhile", round(max(long, default=0)), "ms", "≤ 200"),
            Figure("tasks of the page over 50 ms", len(long)),
            Figure("growth of the page's heap after collection", round(after_mb - before_mb, 1), "MB", "≤ 50"),
            Figure("events lost", total - kept, "", "0"),
            Figure("growth of the daemon's resident memory", round(memory_mb(node.pid)["rss"] - memory, 1), "MB"),
        ]


def topology(browser: Any, mesh: Mesh) -> list[Figure]:
    """Draw 300 agents, then 1,000 with 5,000 edges."""
    found: list[Figure] = []
    with plain_agent() as agent:
        for count, edges, goal in ((300, 300, "≤ 1,000"), (1_000, 5_000, "≤ 2,000")):
            node = mesh.node(f"topology-{count}")
            names = [f"agent-{number:04}" for number in range(count)]
            for name in names:
                node.post("/api/v1/agents", {"url": f"{agent}/{name}", "door": "http", "name": name})
            for number in range(edges):
                caller = number % count
                callee = (caller + 1 + number // count * 37 + number % 29) % count
                node.post("/api/v1/calls", {"to": names[callee], "from_agent": names[caller], "text": "hello"})
            times: list[float] = []
            for _ in range(3):
                with Desk(browser, node).login() as desk:
                    begin = desk.page.evaluate(
                        "() => { const t = performance.now(); location.hash = '#/topology?open=all&window=60'; return t }"
                    )
                    mark = desk.page.wait_for_function(
                        "() => performance.getEntriesByName('topology-drawn').at(-1)?.startTime",
                        timeout=60_000,
                    )
                    times.append(mark.json_value() - begin)
            seen = node.get("/api/v1/topology?window=3600")
            what = f"topology, {len(seen['agents']):,} agents and {len(seen['edges']):,} edges: first stable drawing"
            found.append(Figure(f"{what} (software GL), median of 3", round(statistics.median(times)), "ms", goal))
            node.aclose()
            mesh.daemons.remove(node)
    return found


def sizes() -> list[Figure]:
    """Weigh the build."""
    files = {str(path.relative_to(STATIC)): path.read_bytes() for path in STATIC.rglob("*") if path.is_file()}
    first = list(re.findall(r'(?:src|href)="/([^"]+)"', files["index.html"].decode()))
    first += [name for name in files if re.fullmatch(r"assets/(Home|Page)-[^/]*\.(js|css)", name)]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    sent = sum(len(gzip.compress(files[name], 9)) for name in {"index.html", *first})
    return [
        Figure("first route, gzipped", round(sent / 1000, 1), "kB", "≤ 90"),
        Figure("all files, zipped", round(packed.tell() / 1000, 1), "kB", "≤ 400"),
    ]


def run(only: list[str], soak_s: float = SOAK_S) -> list[Figure]:
    """Measure what is named, everything by default."""
    found: list[Figure] = sizes() if not only or "sizes" in only else []
    with tempfile.TemporaryDirectory() as temp, contextlib.ExitStack() as stack:
        mesh = Mesh(Path(temp))
        stack.callback(mesh.aclose)
        browser = stack.enter_context(chromium())
        node = mesh.node("console")
        parts: dict[str, Callable[[], list[Figure]]] = {
            "open": lambda: opening(browser, node),
            "timeline": lambda: timelines(browser, node),
            "latency": lambda: latency(browser, node),
            "topology": lambda: topology(browser, mesh),
            "soak": lambda: soak(browser, node, soak_s),
        }
        for name, part in parts.items():
            if not only or name in only:
                print(f"{name} …", file=sys.stderr)
                found += part()
    return found


def table(found: list[Figure]) -> str:
    """Return the figures as a table of Markdown."""
    lines = ["| what | measured | goal |", "|---|---|---|"]
    lines += [f"| {one.what} | {cell(one.value)} {one.unit}".rstrip() + f" | {one.goal} |" for one in found]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Measure, print, and with ``--write`` renew the page."""
    reader = argparse.ArgumentParser(prog="python -m bench console", description=__doc__.splitlines()[0])
    reader.add_argument(
        "--only", default="", help="parts, separated by commas: open, timeline, latency, topology, soak, sizes"
    )
    reader.add_argument("--soak-s", type=float, default=SOAK_S)
    reader.add_argument("--write", action="store_true")
    reader.add_argument("--json", action="store_true")
    given = reader.parse_args(arguments)
    only = [name for name in given.only.split(",") if name]
    found = run(only, given.soak_s)
    result = {"name": "console", "machine": machine(), "figures": [one._asdict() for one in found]}
    print(json.dumps(result, indent=2, ensure_ascii=False) if given.json else table(found))
    if given.write:
        kept = RESULTS / "console.json"
        if only and kept.exists():
            by_name = {one["what"]: one for one in json.loads(kept.read_text("utf-8"))["figures"]}
            by_name.update({one["what"]: one for one in result["figures"]})
            result["figures"] = list(by_name.values())
        kept.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
        _write(result)
    return 0


def _write(result: dict[str, Any]) -> None:
    """Put the table between the marks of the page."""
    on = result["machine"]
    head = f"Measured on {on['cores']} cores ({on['cpu']}), {on['kernel']}, {on['python']}, headless Chromium without a GPU."
    body = table([Figure(**one) for one in result["figures"]])
    text = PAGE.read_text("utf-8")
    text = re.sub(
        r"(<!-- figures -->\n).*?(<!-- end -->)", lambda at: f"{at[1]}{head}\n\n{body}\n{at[2]}", text, flags=re.DOTALL
    )
    PAGE.write_text(text, "utf-8")
