"""Scenarios are data: TOML files of this package, one per question asked of the network (docs/spec/simulator.md §3).

All times are simulated seconds. A run has two parts: ``settle_s`` for the world to come up, then ``duration_s`` in which
faults happen and measures are taken; the ``at_s`` of a fault or measure counts from the end of settling and may be negative.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, Literal

import msgspec

from agentmesh.errors import UsageError

Latency = Literal["uniform", "lognormal", "fixed"]
Start = Literal["warm", "join"]
FaultKind = Literal[
    "crash", "restart", "pause", "partition", "churn", "skew", "slow", "leave", "loss", "duplicate", "reorder", "flip"
]
MeasureKind = Literal[
    "join",
    "broadcast",
    "detect",
    "partition",
    "lookup",
    "find",
    "replicas",
    "topology",
    "churn",
    "traffic",
    "orders",
    "mail",
    "state",
]
Check = Literal[
    "directories_equal",
    "nothing_missed",
    "no_false_deaths",
    "nothing_forged",
    "nothing_lost",
    "all_joined",
    "mail_balances",
    "state_agrees",
]


class Links(msgspec.Struct, forbid_unknown_fields=True):
    """What lies between the nodes.

    Attributes:
        latency: Distribution over pairs of the one-way delay. "uniform" between ``min_ms`` and ``max_ms``; "lognormal" with
            median ``median_ms`` and ``sigma``, cut at ``max_ms``; "fixed" = ``median_ms``.
        min_ms, max_ms, median_ms, sigma: See ``latency``. Default: the 10–50 ms of the issue.
        jitter: Share by which single packets stray from their pair's delay; never beyond ``min_ms`` and ``max_ms``. Guess.
        loss: Probability that a packet is lost.
        duplicate: Probability that a datagram arrives twice.
        reorder: Probability that a datagram is held up by up to four times its delay.
        flip: Probability that one bit of a packet changes. Authenticated encryption turns that into loss on a link.
        mode: What loss does to messages over links: "retransmit" = they come later (about 1.5 RTT + 30 ms per lost packet,
            doubling), as over QUIC and TCP; "lossy" = they are lost, harder than any transport we use.
        dial_timeout_s: A dial that is not answered fails after this (``NodeConfig.dial_timeout_s``).
        idle_timeout_s: A link whose other end is silent breaks after this (iroh's QUIC idle timeout; research §1.1).
    """

    latency: Latency = "uniform"
    min_ms: float = 10.0
    max_ms: float = 50.0
    median_ms: float = 25.0
    sigma: float = 0.5
    jitter: float = 0.05
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    flip: float = 0.0
    mode: Literal["retransmit", "lossy"] = "retransmit"
    dial_timeout_s: float = 5.0
    idle_timeout_s: float = 15.0


class Byzantine(msgspec.Struct, forbid_unknown_fields=True):
    """Nodes that run an honest brain and lie about what it says (``sim.byzantine``).

    Attributes:
        share: Of all nodes, chosen by chance.
        forge: Change a bit of signed records that they pass on.
        withhold: Do not pass broadcasts on, and answer lookups without values.
        flood: Bogus messages per second that each sends to peers it has links with.
        lie: Name only each other, whatever a lookup asks for.
        garble: Probability that a message of theirs has a flipped bit inside a correct envelope; needs real bytes.
    """

    share: float = 0.0
    forge: bool = False
    withhold: bool = False
    flood: float = 0.0
    lie: bool = False
    garble: float = 0.0


class World(msgspec.Struct, forbid_unknown_fields=True):
    """The nodes at the beginning.

    Attributes:
        start: "warm" = as if restarted: every node holds records of some others. "join" = one node is there, every other
            knows its address only.
        stored: Records of random other nodes that a warm node holds, besides its nearest ones. More = faster settling.
        nearest: Records of nodes with the nearest DHT keys that a warm node holds.
        boot_s: Nodes start spread over so many seconds.
        capacity: Shares of the capacity tiers 0 … 4. The default makes degrees 3/7/15/30/60 a power law of exponent 2.5
            (research: p2p-reliability §2.4).
        sites: Number of site labels; zones never span sites.
        agents: Share of nodes with an agent when the run begins.
        skills: Different capabilities among these agents.
        skew_s: Wall clocks stray by up to so many seconds either way.
        encoding: "sealed" = every packet is encoded, sent as bytes and decoded, every datagram in its signed envelope.
            "real" = the same, but the signature of a datagram that nobody damages is neither made nor checked: it would
            hold (100 µs each). "counted" = messages travel as objects, their size is counted. "auto" = real up to 256 nodes.
    """

    start: Start = "warm"
    stored: int = 24
    nearest: int = 24
    boot_s: float = 5.0
    capacity: tuple[float, float, float, float, float] = (0.7194, 0.1912, 0.0578, 0.0204, 0.0112)
    sites: int = 1
    agents: float = 0.0
    skills: int = 8
    skew_s: float = 0.0
    encoding: Literal["auto", "sealed", "real", "counted"] = "auto"


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """One thing that goes wrong.

    Attributes:
        kind: crash (power gone) · restart (of crashed nodes: a new brain, same key, stored contacts) · pause (inputs wait
            ``for_s``) · partition · churn (crash and later restart, ``per_min`` of all nodes a minute) · skew (wall clocks
            jump by up to ``amount`` s) · slow (delays × ``amount``, inputs late by ``lag_ms``) · leave (say goodbye) ·
            loss, duplicate, reorder, flip (the probability becomes ``amount`` for ``for_s``).
        at_s: When.
        share: Of the nodes alive that it strikes (of the crashed ones for restart), or by ``count``.
        count: How many nodes, instead of ``share``.
        for_s: How long it lasts; 0 = for good.
        every_s: Strike again at this interval, with other nodes; 0 = once.
        amount: See ``kind``.
        lag_ms: See ``kind`` slow.
        per_min: See ``kind`` churn.
        down_s: Churn: how long a node stays down.
        one_way: Partition: the minority hears the others, who do not hear it.
        hubs: Strike the nodes with the highest capacity first.
    """

    kind: FaultKind
    at_s: float = 0.0
    share: float = 0.0
    count: int = 0
    for_s: float = 0.0
    every_s: float = 0.0
    amount: float = 0.0
    lag_ms: float = 0.0
    per_min: float = 0.0
    down_s: float = 20.0
    one_way: bool = False
    hubs: bool = False


class Measure(msgspec.Struct, forbid_unknown_fields=True):
    """One thing that is measured (``sim.probes``).

    Attributes:
        kind: Which measure.
        at_s: When it begins.
        count: How often: broadcasts, lookups, newcomers, crashes, records.
        interval_s: Between two of them.
        deadline_s: What did not happen by then is missed.
        warmup: So many at first are not counted.
    """

    kind: MeasureKind
    at_s: float = 0.0
    count: int = 10
    interval_s: float = 1.0
    deadline_s: float = 10.0
    warmup: int = 0


class Goal(msgspec.Struct, forbid_unknown_fields=True):
    """A bound on a figure; a figure beyond it is reported, but is no violation."""

    max: float | None = None
    min: float | None = None


class Scenario(msgspec.Struct, forbid_unknown_fields=True):
    """One scenario file.

    Attributes:
        title: One line for ``list``.
        nodes: How many unless ``--nodes`` says otherwise.
        settle_s, duration_s: See the module text.
        world, links, byzantine, faults, measures: What is there, what goes wrong, what is measured.
        checks: What must hold at the end; a breach is a violation (``sim.checks``).
        goals: Bounds on figures by name.
        brain: Settings of machines that differ from the daemon's defaults, ``{machine = {field = value}}``.
        name: The file's name; set by ``load``.
    """

    title: str
    nodes: int = 100
    settle_s: float = 30.0
    duration_s: float = 30.0
    world: World = msgspec.field(default_factory=World)
    links: Links = msgspec.field(default_factory=Links)
    byzantine: Byzantine = msgspec.field(default_factory=Byzantine)
    faults: list[Fault] = []
    measures: list[Measure] = []
    checks: list[Check] = []
    goals: dict[str, Goal] = {}
    brain: dict[str, dict[str, Any]] = {}
    name: str = ""


def names() -> list[str]:
    """Return the names of all scenarios, sorted."""
    folder = resources.files("agentmesh.sim") / "scenarios"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load(name: str, settings: list[str] | None = None) -> Scenario:
    """Read a scenario.

    Args:
        name: Without ".toml".
        settings: Changes as ``key=value``, keys dotted ("links.loss=0.1", "measures.0.count=5"), values in TOML.

    Raises:
        UsageError: there is no such scenario (code "sim.scenario"), or a field or setting is wrong (code "sim.field").
    """
    if name not in names():
        raise UsageError(f"there is no scenario {name!r}; there are: {', '.join(names())}", code="sim.scenario")
    text = (resources.files("agentmesh.sim") / "scenarios" / f"{name}.toml").read_text("utf-8")
    return parse(text, name, settings)


def parse(text: str, name: str, settings: list[str] | None = None) -> Scenario:
    """Read a scenario from TOML text. Raises UsageError (code "sim.field")."""
    try:
        tree: dict[str, Any] = msgspec.toml.decode(text.encode())
        for setting in settings or []:
            _change(tree, setting)
        scenario = msgspec.convert(tree, Scenario)
    except msgspec.ValidationError as error:
        raise UsageError(f"scenario {name!r}: {error}", code="sim.field") from error
    except msgspec.DecodeError as error:
        raise UsageError(f"scenario {name!r} is not TOML: {error}", code="sim.field") from error
    scenario.name = name
    _check(scenario)
    return scenario


def _change(tree: dict[str, Any], setting: str) -> None:
    path, equals, text = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UsageError(f"{setting!r} is not of the form key=value", code="sim.field")
    try:
        value = msgspec.toml.decode(f"value = {text}".encode())["value"]
    except msgspec.DecodeError:
        value = text
    place: Any = tree
    for key in keys[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else _item(place, key, setting)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if isinstance(place, list):
        place[int(keys[-1])] = _item(place, keys[-1], setting) and value
    elif isinstance(place, dict):
        place[keys[-1]] = value
    else:
        raise UsageError(f"{setting!r}: there is nothing of that name", code="sim.field")


def _item(place: Any, key: str, setting: str) -> Any:
    if isinstance(place, list) and key.isdigit() and int(key) < len(place):  # pyright: ignore[reportUnknownArgumentType]
        return place[int(key)]  # pyright: ignore[reportUnknownVariableType]
    raise UsageError(f"{setting!r}: there is nothing of that name", code="sim.field")


def _check(scenario: Scenario) -> None:
    """Raise UsageError for numbers that make no world."""
    links, world = scenario.links, scenario.world
    shares = {
        "links.loss": links.loss,
        "links.duplicate": links.duplicate,
        "links.reorder": links.reorder,
        "links.flip": links.flip,
        "links.jitter": links.jitter,
        "byzantine.share": scenario.byzantine.share,
        "byzantine.garble": scenario.byzantine.garble,
        "world.agents": world.agents,
        **{f"faults.{i}.share": fault.share for i, fault in enumerate(scenario.faults)},
    }
    for field, share in shares.items():
        if not 0 <= share <= 1:
            raise UsageError(f"scenario {scenario.name!r}: {field} = {share} is no share of 1", code="sim.field")
    if links.loss > 0.9:
        raise UsageError("nothing works when more than 90 % is lost; links.loss is at most 0.9", code="sim.field")
    if not 0 < links.min_ms <= links.max_ms:
        raise UsageError("links.min_ms and links.max_ms must be rising and above 0", code="sim.field")
    if scenario.settle_s < 0 or scenario.duration_s <= 0:
        raise UsageError("settle_s and duration_s must be positive", code="sim.field")
    if sum(world.capacity) <= 0 or min(world.capacity) < 0:
        raise UsageError("world.capacity has shares, none of them negative", code="sim.field")
    if world.sites < 1 or world.skills < 1:
        raise UsageError("world.sites and world.skills are at least 1", code="sim.field")
    for index, fault in enumerate(scenario.faults):
        if fault.at_s < -scenario.settle_s:
            raise UsageError(f"faults.{index}.at_s lies before the beginning", code="sim.field")
