"""The page shows what the command line says: the same events in the same order, count and digest, also while more arrive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.console.stage import MARKS, MARKUP
from tests.support.browser import Desk, needs_browser
from tests.support.daemons import Daemon, Mesh, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), needs_browser()]

BEGIN_US = 1_800_000_000_000_000
TEXTS = (MARKUP, MARKS.encode("utf-8", "replace").decode(), "line\nline", "好", "x" * 5_000)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    mesh = Mesh(tmp_path_factory.mktemp("parity"))
    try:
        yield mesh.node("parity")
    finally:
        mesh.aclose()


@pytest.fixture(scope="module")
def desk(node: Daemon, browser: Any) -> Iterator[Desk]:
    with Desk(browser, node).login() as one:
        yield one


@st.composite
def traces(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    """Events of one run in batches as they might arrive: ties, clocks that jump, calls below calls, hostile texts."""
    run = draw(st.integers(1, 2**120)).to_bytes(16, "big").hex()
    event = st.fixed_dictionaries(
        {
            "id": st.integers(1, 2**62).map(lambda n: f"{n:032x}"),
            "ts": st.sampled_from([0, BEGIN_US, BEGIN_US + 1, BEGIN_US + 90_000_000, BEGIN_US - 3_600_000_000]),
            "kind": st.sampled_from(["status", "message", "tool", "error", "reasoning"]),
            "run_id": st.just(run),
            "task_id": st.sampled_from(["t1", "t2", "t3", None]),
            "parent_task_id": st.sampled_from(["t1", None]),
            "agent": st.sampled_from(["calc", MARKUP[:60], None]),
            "lamport": st.integers(0, 5),
            "payload": st.fixed_dictionaries(
                {"state": st.sampled_from(["working", "failed"]), "text": st.sampled_from(TEXTS)}
            ),
        }
    )
    batch = st.lists(event, min_size=1, max_size=60, unique_by=lambda one: one["id"])
    return draw(st.lists(batch, min_size=1, max_size=3))


def shown(desk: Desk) -> list[int]:
    """Return the positions of all rows of the timeline as they stand on the page, from the first to the last."""
    return desk.page.evaluate(
        """async () => {
          const seen = new Map()
          let box = document.querySelector('[data-seq]')
          while (box && getComputedStyle(box).overflowY !== 'auto') box = box.parentElement
          const look = () => {
            for (const one of document.querySelectorAll('[data-seq]')) {
              seen.set(one.getBoundingClientRect().top + box.scrollTop, Number(one.dataset.seq))
            }
          }
          box.scrollTop = 0
          for (;;) {
            for (let n = 0; n < 3; n++) await new Promise(requestAnimationFrame)
            look()
            const before = box.scrollTop
            box.scrollTop += box.clientHeight / 2
            if (box.scrollTop === before) break
          }
          return [...seen].sort((a, b) => a[0] - b[0]).map(one => one[1])
        }"""
    )


@given(traces())
@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
def test_page_and_command_line_tell_the_same_list_count_and_digest(
    node: Daemon, desk: Desk, batches: list[list[dict[str, Any]]]
) -> None:
    run = batches[0][0]["run_id"]
    for number, batch in enumerate(batches):
        node.post("/api/v1/events", {"events": batch})
        if number == 0:
            desk.open(f"#/runs/{run}?view=full", "[data-seq]")
        said = node.cli("trace", run, "--json").json()
        foot = wait_until(
            lambda said=said: foot if (foot := footer(desk))[0] == said["count"] else None,
            f"the page to show {said['count']} events",
            60,
        )
        assert foot == (said["count"], said["count"], said["digest"])
        assert shown(desk) == [event["seq"] for event in said["events"]]
    assert desk.page.evaluate("window.pwned") is None


def footer(desk: Desk) -> tuple[int, int, str]:
    """Return what the foot of the timeline says: events shown, events of the run, digest."""
    place = desk.page.locator(".foot")
    counts = re.findall(r"\d+", place.inner_text())
    return int(counts[0]), int(counts[1]), str(place.get_attribute("data-digest"))


def test_a_payload_of_megabytes_and_markup_is_shown_as_what_it_is(node: Daemon, desk: Desk) -> None:
    run = f"{7:032x}"
    event = {
        "id": f"{8:032x}",
        "ts": BEGIN_US,
        "kind": "message",
        "run_id": run,
        "task_id": "t1",
        "payload": {
            "role": "agent",
            "parts": [{"text": MARKUP + MARKS.encode("utf-8", "replace").decode() + "z" * 5_000_000}],
        },
    }
    seq = node.post("/api/v1/events", {"events": [event]})["last_seq"]
    desk.open(f"#/runs/{run}?event={seq}", "[data-seq]")
    desk.page.get_by_text("<script>window.pwned=1</script>").first.wait_for()
    assert desk.page.evaluate("window.pwned") is None
    assert desk.page.evaluate("document.body.innerText.length") < 1_000_000
    desk.page.keyboard.press("Escape")
    wait_until(lambda: "event=" not in desk.page.url, "the drawer to close")
