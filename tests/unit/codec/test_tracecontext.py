"""W3C Trace Context: what is read, what is dropped, and that what is written is read again."""

from __future__ import annotations

import string

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agentmesh.codec.tracecontext import (
    SAMPLED,
    STATE_CHARS_MAX,
    STATE_MEMBERS_MAX,
    TraceContext,
    begin_trace,
    in_headers,
    is_span_id,
    read_state,
    read_trace,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def hexes(width: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=width, max_size=width).filter(lambda text: text.strip("0") != "")


keys = st.from_regex(r"[a-z][a-z0-9_\-*/]{0,20}(@[a-z][a-z0-9]{0,5})?", fullmatch=True)
values = st.text("".join(c for c in string.printable[:95] if c not in ",= "), min_size=1, max_size=40)
states = st.dictionaries(keys, values, max_size=STATE_MEMBERS_MAX).map(
    lambda members: ",".join(f"{key}={value}" for key, value in members.items())
)


@given(hexes(32), hexes(16), st.integers(0, 255), states)
def test_a_trace_context_reads_back_as_it_was_written(trace_id: str, span_id: str, flags: int, state: str) -> None:
    read = read_trace(f"00-{trace_id}-{span_id}-{flags:02x}", state)
    assert read is not None
    assert (read.trace_id, read.span_id, read.sampled) == (trace_id, span_id, bool(flags & SAMPLED))
    assert read.flags == flags & 3
    again = read_trace(read.traceparent, read.state)
    assert again == read


@given(st.text(max_size=200), st.text(max_size=700))
@example("ff-" + GOOD[3:], "")
@example(GOOD + "\n", "a=1")
def test_any_text_is_read_or_dropped_and_what_is_passed_on_is_within_the_rules(parent: str, state: str) -> None:
    for read in (read_trace(parent, state), read_trace(GOOD, state)):
        if read is None:
            continue
        assert len(read.traceparent) == 55
        assert len(read.state) <= STATE_CHARS_MAX
        assert len([m for m in read.state.split(",") if m]) <= STATE_MEMBERS_MAX
        assert read.state.isascii()
        assert read.state.isprintable()
        assert read_trace(read.traceparent, read.state) == read


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"0-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.what",
        f"00-{TRACE}-{SPAN}-01\r\nX-Evil: 1",
        f"00-{TRACE}-{SPAN}-0١",
        GOOD + " " * 2000,
    ],
)
def test_what_is_no_traceparent_is_dropped(bad: str) -> None:
    assert read_trace(bad, "a=1") is None


@pytest.mark.parametrize("later", [f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-the-future-adds", f" {GOOD}\t"])
def test_a_later_version_is_read_as_far_as_this_one_knows_it_and_passed_on_as_version_00(later: str) -> None:
    read = read_trace(later)
    assert read is not None
    assert read.traceparent == GOOD


@pytest.mark.parametrize(
    ("state", "passed"),
    [
        (None, ""),
        ("foo=1,bar=2", "foo=1,bar=2"),
        (" foo=1 ,, \tbar=2,", "foo=1,bar=2"),
        ("fw529a3039@dt=FfD,1t@sys=x", "fw529a3039@dt=FfD,1t@sys=x"),
        ("foo=1,foo=2", ""),
        ("foo=1,Bar=2", ""),
        ("foo=1=2", ""),
        ("foo", ""),
        ("foo=", ""),
        ("foo= ", ""),
        ("foo=\x7f", ""),
        ("foo=ä", ""),
        ("1foo=x", ""),
        ("a" * 257 + "=x", ""),
        ("a=" + "x" * 257, ""),
        ("x" * 100_000, ""),
    ],
)
def test_a_tracestate_with_a_member_that_makes_no_sense_is_dropped_alone(state: str | None, passed: str) -> None:
    read = read_trace(GOOD, state)
    assert read is not None
    assert read.state == passed


_KEY = string.ascii_lowercase + string.digits + "_-*/"
_VALUE = "".join(chr(n) for n in range(0x20, 0x7F) if chr(n) not in ",=")


@pytest.mark.parametrize(
    ("state", "passes"),
    [
        (f"{_KEY}={_VALUE}", True),
        (f"{_KEY}@a-z0-9_-*/={_VALUE}", True),
        (f"foo=1,{'z' * 256}=1", True),
        (f"foo=1,{'z' * 257}=1", False),
        (f"foo=1,{'t' * 241}@{'v' * 14}=1", True),
        (f"foo=1,{'t' * 242}@v=1", False),
        (f"foo=1,t@{'v' * 15}=1", False),
        (",".join(f"bar{n:02}={n:02}" for n in range(32)), True),
        (",".join(f"bar{n:02}={n:02}" for n in range(33)), False),
        ("foo@=1,bar=2", False),
        ("@foo=1,bar=2", False),
        ("foo@@bar=1,bar=2", False),
        ("foo@bar@baz=1,bar=2", False),
        ("foo =1", False),
        ("foo.bar=1", False),
        ("foo=,bar=3", False),
    ],
)
def test_the_limits_of_a_tracestate_are_those_of_the_recommendation(state: str, passes: bool) -> None:
    """The cases of the W3C's own harness, at its strict level."""
    assert read_state(state) == (state if passes else "")


def test_the_headers_of_a_request_are_joined_and_two_parents_are_none() -> None:
    parent, state = (b"traceparent", GOOD.encode()), (b"tracestate", b"foo=1")
    assert in_headers([parent, state, (b"host", b"x"), (b"tracestate", b""), (b"tracestate", b"bar=2")]) == (
        GOOD,
        "foo=1,,bar=2",
    )
    assert in_headers([parent, parent, state]) == (None, "")
    assert in_headers([state]) == (None, "")


def test_too_much_tracestate_loses_its_last_members_whole() -> None:
    long = read_state(",".join(f"k{n}={'v' * 200}" for n in range(4)))
    assert [m.partition("=")[0] for m in long.split(",")] == ["k0", "k1"]


@given(hexes(32), hexes(16), hexes(16))
def test_a_child_stays_in_the_trace_and_names_its_parent(trace_id: str, span_id: str, child_id: str) -> None:
    parent = TraceContext(trace_id, span_id, 1, "a=1")
    child = parent.child(child_id)
    assert child == (trace_id, child_id, 1, "a=1", span_id)


@given(hexes(32))
def test_a_trace_that_begins_with_a_run_has_the_runs_id(run_id: str) -> None:
    assert begin_trace(run_id, SPAN).trace_id == run_id


@given(st.text(max_size=128))
@example("0" * 32)
@example("A" * 32)
@example("r9")
def test_a_run_whose_id_is_no_trace_id_still_has_one_that_every_node_works_out_alike(run_id: str) -> None:
    assume(not (len(run_id) == 32 and run_id.strip("0123456789abcdef") == "" and run_id.strip("0")))
    one, other = begin_trace(run_id, SPAN), begin_trace(run_id, "1" * 16)
    assert one.trace_id == other.trace_id
    assert read_trace(one.traceparent) == one


def test_a_share_of_the_traces_is_sampled_and_the_trace_id_alone_decides() -> None:
    runs = [f"{n * 0x9E3779B97F4A7C15F39CC0605CEDC834 % 2**128:032x}" for n in range(1, 2001)]
    sampled = [begin_trace(run, SPAN, 0.25).sampled for run in runs]
    assert sampled == [begin_trace(run, "2" * 16, 0.25).sampled for run in runs]
    assert 400 < sum(sampled) < 600
    assert all(begin_trace(run, SPAN, 1.0).sampled for run in runs)
    assert not any(begin_trace(run, SPAN, 0.0).sampled for run in runs)


def test_only_sixteen_lower_case_hex_digits_are_a_span() -> None:
    assert is_span_id(SPAN)
    assert not any(is_span_id(bad) for bad in ("0" * 16, SPAN.upper(), SPAN + "0", None, 7))
