"""Settings of one node, as the node itself sees them (``daemon/settings.py`` fills them from file, environment and flags)."""

from __future__ import annotations

from dataclasses import dataclass

from agentmesh.core.balance.config import Strategy


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Limits and intervals of a node.

    Attributes:
        name: Node name shown to people and used in ``agent@node``; the host name by default.
        version: AgentMesh version told to peers.
        require_signed_registration: Refuse unsigned agents here and from peers (RQ0 §4.1). Off: they are admitted as low trust.
        health_interval_s: Seconds between health checks of a local agent (RQ2: 10). An unhealthy one is checked five times
            as often, so that it is back soon.
        ephemeral_lease_s: An SDK agent that has not renewed for this long and fails its check is withdrawn. Three renewals.
        manifest_life_s: Lifetime of a signed manifest; re-signed when a quarter is left. A day: long enough for a laptop
            that sleeps, short enough to end a stolen card.
        call_timeout_s: Default whole-call timeout, seconds.
        balance: How calls are spread over the replicas of an agent, when the caller does not say (docs/explain/balancing.md).
        accept_timeout_s: How long the callee's node may take to accept before another replica is tried, if there is one. It
            answers before it runs anything, so 1 s is many round trips even over a bad mobile link (design goal: a call is
            rerouted within 1 s). A node that was silent is asked last for a while.
        dial_timeout_s: How long one dial may take, handshake included.
        trace_timeout_s: How long one peer may take to answer a trace query.
        calls_max: Calls running at once on this node, both directions; more are refused as busy.
        agent_concurrency_max: Calls running at once per local agent unless its manifest declares ``concurrency_limit``.
        agent_queue_max: Calls that may wait for room at one agent; more are refused as busy. 0: none waits.
        agent_queue_wait_s: Longest wait of one of them.
        call_events_max, call_bytes_max: What one call may produce before it is stopped as a flood.
        hops_max: Longest chain of calls.
        finished_max: Finished calls whose result is kept in memory for a retry with the same task id (each holds its events).
        links_max: Most links at once, both directions.
        agents_max: Most local agents.
        grant_roots: did:keys of others whose grants count at the agents beside this node.
        site: Label of the place this node belongs to; zones never span sites. "" = the common one.
        policy: What holds for calls that no rule of ``policies/`` speaks of: "auto", "open", "closed" or "strict".
        trust_roots: Other nodes of the same operator, trusted beforehand (docs/spec/trust.md).
        operators: did:keys of the operators whose orders this node obeys.
        discover_asks: Whether queries of discovery may be told to other nodes.
        discover_weights: The mix of a score: text, trust, health.
        embedder, embedder_model, embedder_key_file: By what meaning is compared (``embed.choose``).
        models_dir: Where local models are; "": in the home.
        trace_share: Share of the traces that begin at this node which are marked as sampled, 0 … 1.
        log_calls: Whether each call leaves a line in the log.
        capacity: Tier 0 … 4: how many long links it carries for others (docs/spec/overlay.md).
    """

    name: str = "node"
    version: str = ""
    require_signed_registration: bool = True
    health_interval_s: float = 10.0
    ephemeral_lease_s: float = 30.0
    manifest_life_s: int = 86_400
    call_timeout_s: float = 60.0
    balance: Strategy = "auto"
    accept_timeout_s: float = 1.0
    dial_timeout_s: float = 5.0
    trace_timeout_s: float = 1.5
    calls_max: int = 2_000
    agent_concurrency_max: int = 256
    agent_queue_max: int = 100
    agent_queue_wait_s: float = 10.0
    call_events_max: int = 100_000
    call_bytes_max: int = 64 * 1024 * 1024
    hops_max: int = 16
    finished_max: int = 256
    links_max: int = 256
    agents_max: int = 1_000
    grant_roots: tuple[str, ...] = ()
    site: str = ""
    operators: tuple[str, ...] = ()
    capacity: int = 0
    policy: str = "auto"
    trust_roots: tuple[str, ...] = ()
    discover_asks: bool = True
    discover_weights: tuple[float, float, float] = (0.7, 0.2, 0.1)
    embedder: str = "builtin"
    embedder_model: str = ""
    embedder_key_file: str = ""
    models_dir: str = ""
    log_calls: bool = True
    trace_share: float = 1.0
