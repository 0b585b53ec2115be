"""What is wanted, checked once: a request of any door becomes values that the index and the daemon can rely on. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from agentmesh.core.search.model import QUERY_CHARS_MAX, Filters
from agentmesh.core.search.rank import Weights
from agentmesh.errors import UsageError
from agentmesh.identity.budget import Budget
from agentmesh.wire.search_views import DiscoverFilters, DiscoverRequest, Scope
from agentmesh.wire.views import TrustTier

LIMIT_MAX = 1_000
NEAR_MAX = 100
TIME_MS_MAX = 30_000
_FILTER_CHARS_MAX = 256
_CONTEXT_WINDOW_MAX = 2**53
#: Signs that no person types; line breaks and tabs come with pasted text.
_BINARY = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Wanted(NamedTuple):
    """A request that makes sense.

    Attributes:
        query: At most ``QUERY_CHARS_MAX`` characters; "" lists by the filters alone.
        filters: What the index judges.
        trust_tier, healthy, node: What the daemon judges: at least this tier, checked and well, beside this node.
        weights: Scaled.
        limit, near: Most hits and near misses.
        scope: Whom to ask.
        time_s: Patience with the others.
        notes: What was not as it was asked, for people.
    """

    query: str
    filters: Filters
    trust_tier: TrustTier | str
    healthy: bool
    node: str
    weights: Weights
    limit: int
    near: int
    scope: Scope
    time_s: float
    notes: tuple[str, ...] = ()


def read_request(
    request: DiscoverRequest, weights: Weights, organisation_named: Callable[[str], str] = lambda name: name
) -> Wanted:
    """Check a request.

    Args:
        request: As it came.
        weights: The node's own mix, for requests that name none.
        organisation_named: Name of an organisation, or did:key → did:key, as far as it is known.

    Raises:
        UsageError: something is out of range or cannot be read (codes "discover.*"). No state changed.
    """
    if _BINARY.search(request.query):
        raise UsageError(
            "the query holds control characters",
            code="discover.query",
            why="it is binary, or was not decoded",
            hint='agentmesh discover "check a rental contract"',
        )
    query, notes = request.query.strip(), ()
    if len(query) > QUERY_CHARS_MAX:
        query = query[:QUERY_CHARS_MAX]
        notes = (f"only the first {QUERY_CHARS_MAX} characters of the query were read",)
    _check_range("limit", request.limit, 1, LIMIT_MAX, "discover.limit")
    _check_range("near", request.near, 0, NEAR_MAX, "discover.near")
    _check_range("time_ms", request.time_ms, 0, TIME_MS_MAX, "discover.time")
    filters = request.filters
    _check_range("context_window_min", filters.context_window_min, 0, _CONTEXT_WINDOW_MAX, "discover.context_window")
    for name in ("protocol", "tag", "skill", "model", "location", "organisation", "node"):
        text: str = getattr(filters, name)
        if len(text) > _FILTER_CHARS_MAX or _BINARY.search(text):
            raise UsageError(f"the filter {name!r} is too long or holds control characters", code="discover.filter")
    mix = weights if request.weights is None else Weights(*msgspec.structs.astuple(request.weights))
    return Wanted(
        query=query,
        filters=Filters(
            protocol=filters.protocol.strip(),
            tag=filters.tag.strip(),
            skill=filters.skill.strip(),
            model=filters.model.strip(),
            context_window_min=filters.context_window_min,
            price_micros_max=_price(filters),
            organisation=organisation_named(filters.organisation.strip()) if filters.organisation.strip() else "",
            location=filters.location.strip(),
        ),
        trust_tier=filters.trust_tier,
        healthy=filters.health == "healthy",
        node=filters.node.strip(),
        weights=mix.scaled(),
        limit=request.limit,
        near=request.near,
        scope=request.scope,
        time_s=request.time_ms / 1_000,
        notes=notes,
    )


def weights_of(text: str) -> Weights:
    """Return the mix that a text names, such as "0.7,0.2,0.1": text, trust, health.

    Raises:
        UsageError: it is no three numbers, or they make no mix (code "discover.weights").
    """
    try:
        numbers = [float(one) for one in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != len(Weights._fields):
        numbers = [-1.0]
    return Weights(*numbers).scaled()


def _check_range(name: str, value: int, low: int, high: int, code: str) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} is {str(value)[:40]}; it is a whole number from {low} to {high}", code=code)


def _price(filters: DiscoverFilters) -> int | None:
    """Return the most that one call may cost, in millionths of a US dollar; None for no bound."""
    bounds = [_micros(name, text) for name in ("price_max", "budget") if (text := getattr(filters, name).strip())]
    return min(bounds, default=None)


def _micros(name: str, text: str) -> int:
    try:
        amount = Budget.from_text(f"usd={text}").usd_micros if "," not in text else None
    except UsageError:
        amount = None
    if amount is None:
        raise UsageError(
            f"{name} is {text[:40]!r}, which is no amount of US dollars",
            code="discover.price",
            why="an amount has at most ten digits and six decimals",
            hint="write it as 0.05",
        )
    return amount
