"""The table of settings: each field of ``Settings`` says what it does, when to change it and where its default comes from.

Everything else is drawn from it: parsing, names of environment variables, flags of ``agentmeshd start``,
``agentmesh config explain`` and ``docs/reference/configuration.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from agentmesh.core.balance.config import Strategy
from agentmesh.daemon.home import Home
from agentmesh.daemon.knob import (
    Capacity,
    Count,
    DiscoverAsk,
    Knob,
    Level,
    LowTrust,
    PolicyMode,
    Port,
    Scheme,
    Seconds,
    Share,
    Switch,
)
from agentmesh.daemon.knob_engines import Bus, Critical, NatsCluster, NatsSecret, NatsServer


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set. Each field carries a ``Knob``; see the module docstring for the sources."""

    home: Annotated[
        Path,
        Knob(
            effect="Directory of identity, token, events and state; one home is one node.",
            when="To run several nodes on one machine. Not allowed in config.toml, which lies inside it.",
            origin="the platform's user data directory",
        ),
    ]
    name: Annotated[
        str,
        Knob(
            effect="Name of this node, as people see it and type it in agent@node.",
            when="When host names repeat or say nothing.",
            origin="the host name",
        ),
    ] = ""
    port: Annotated[
        Port,
        Knob(
            effect="HTTP port on 127.0.0.1 and ::1 for CLI, SDK and A2A clients; 0 takes any free one.",
            when="When another program owns it for good; a port that is taken only now is stepped over.",
            origin="MESH on a telephone keypad",
        ),
    ] = 6374
    port_strict: Annotated[
        bool,
        Knob(
            effect="Fail when the port is taken instead of taking the next free one.",
            when="When other programs have the port written down.",
            origin="off, so that a second node just starts",
        ),
    ] = False
    transports: Annotated[
        tuple[Scheme, ...],
        Knob(
            effect="Ways to reach other nodes, most wanted first: iroh (QUIC over UDP), tls (TCP), ws (WebSocket).",
            when="Add tls or ws where UDP is blocked or no iroh wheel exists.",
            origin="iroh needs no open port and finds its way through NAT",
        ),
    ] = ("iroh",)
    listen: Annotated[
        str,
        Knob(
            effect="Address and UDP port of iroh; the next free port when taken.",
            when="127.0.0.1:0 keeps the node on this machine; a fixed port helps a firewall rule.",
            origin="same number as the HTTP port, so there is one to remember",
        ),
    ] = "0.0.0.0:6374"
    listen_tls: Annotated[
        str,
        Knob(
            effect="Address and TCP port of the tls transport, if it is in transports.",
            when="As for listen.",
            origin="one above listen",
        ),
    ] = "0.0.0.0:6375"
    listen_ws: Annotated[
        str,
        Knob(
            effect="Address and TCP port of the ws transport, if it is in transports.",
            when="As for listen; behind a reverse proxy bind 127.0.0.1.",
            origin="two above listen",
        ),
    ] = "0.0.0.0:6376"
    listen_udp: Annotated[
        str,
        Knob(
            effect="IP address and UDP port for signed control packets (probes, lookups); the next free port when taken.",
            when="As for listen. Where it is blocked the packets go over links, which costs more.",
            origin="UDP 6374 is taken by iroh; the number of listen_ws, whose port is TCP",
        ),
    ] = "0.0.0.0:6376"
    ws_public_url: Annotated[
        str,
        Knob(
            effect="URL under which others reach the ws transport, such as wss://host/mesh; empty: by address.",
            when="When a reverse proxy stands in front of it.",
            origin="empty: most nodes have no proxy",
        ),
    ] = ""
    tls_ca: Annotated[
        str,
        Knob(
            effect="PEM file of CA certificates, and revocation lists if any: only nodes with a certificate issued by one of "
            "them come in, over tls and ws. Read again when it changes.",
            when="When an organisation runs its own CA; set tls_cert and tls_key too, and transports to tls,ws.",
            origin="empty: the node's key is its identity, no CA is needed",
        ),
    ] = ""
    tls_cert: Annotated[
        str,
        Knob(
            effect="PEM file of this node's certificate and of those between it and its CA; good for client and server.",
            when="With tls_ca. Read again when it changes, and on SIGHUP.",
            origin="empty, as tls_ca is",
        ),
    ] = ""
    tls_key: Annotated[
        str,
        Knob(
            effect="PEM file of the private key of tls_cert, without passphrase; empty: it stands in tls_cert.",
            when="With tls_ca. Others must not be able to read it.",
            origin="empty, as tls_ca is",
        ),
    ] = ""
    tls_ca_only: Annotated[
        bool,
        Knob(
            effect="With tls_ca: refuse iroh in transports and open no UDP port, since neither can ask for certificates.",
            when="Off while a network moves over to its CA; until then any node can come in by iroh.",
            origin="on: a door beside the guarded one is no guard",
        ),
    ] = True
    require_credentials_of: Annotated[
        tuple[str, ...],
        Knob(
            effect="Serve only nodes with a device credential of one of these roots (did:key:…), and open no UDP port, since "
            "datagrams show none.",
            when="When nodes of an operator are to be among themselves; 'agentmesh identity root show' prints the root.",
            origin="none: anybody may come, the key alone says who",
        ),
    ] = ()
    root_key: Annotated[
        str,
        Knob(
            effect="File of the root key, if this node may renew its own device credential with it.",
            when="On a machine that is trusted like the root itself; elsewhere bring it a new credential each day.",
            origin="empty: a root key is kept cold",
        ),
    ] = ""
    mdns: Annotated[
        bool,
        Knob(
            effect="Announce this node on the LAN and look for others; a hint about addresses, never trust.",
            when="Off on networks where multicast is unwelcome, and in containers.",
            origin="RQ0 §4: nodes on one LAN find each other by themselves",
        ),
    ] = True
    seeds: Annotated[
        tuple[str, ...],
        Knob(
            effect="Nodes to connect to at start: did:key:…@host:port, with iroh:, tls: or ws: before it if need be.",
            when="When nodes are not on one LAN; one seed is enough, peers pass on the rest.",
            origin="none: nothing is contacted unless asked",
            flag="seed",
        ),
    ] = ()
    relays: Annotated[
        tuple[str, ...],
        Knob(
            effect="URLs of iroh relays for peers that no direct path reaches.",
            when="When nodes sit behind NATs that do not let them meet; run your own.",
            origin="none: no outside service is used unless asked",
            flag="relay",
        ),
    ] = ()
    site: Annotated[
        str,
        Knob(
            effect="Label of the place this node is in; nodes of one site form zones, and zones never span sites.",
            when="When machines stand in several places with slow or costly links between: the same label on each of one place.",
            origin="empty: all nodes without a label are one site",
        ),
    ] = ""
    capacity: Annotated[
        Capacity,
        Knob(
            effect="How many long links this node carries for the mesh: tier 0 to 4 stands for 3, 7, 15, 30 or 60; auto decides "
            "by cores and memory.",
            when="0 on a laptop or a paid link; 3 or 4 on a well connected server that is always on.",
            origin="auto: a person should not need to know",
        ),
    ] = "auto"
    require_signed_registration: Annotated[
        bool,
        Knob(
            effect="Refuse agents whose manifest is not signed, here and from peers.",
            when="Off admits them as low trust, for experiments.",
            origin="RQ0 §4.1",
        ),
    ] = True
    policy: Annotated[
        PolicyMode,
        Knob(
            effect="Who may call the agents here when no rule in policies/ speaks of it. open: everybody; closed: one's own "
            "organisation; strict: nobody but the person at this node; auto: open until there is a policy file, then closed.",
            when="open ends the warning in status if everybody may call; closed before strangers can reach the node; strict to "
            "permit each call by a rule.",
            origin="auto: the first day needs no rules, and the first rule closes the node to strangers",
        ),
    ] = "auto"
    health_interval_s: Annotated[
        Seconds,
        Knob(
            effect="Time between health checks of each local agent.",
            when="Raise it when agents pay for every request.",
            origin="RQ2: 10 s",
            unit="s",
        ),
    ] = 10.0
    lease_gone_s: Annotated[
        float,
        Knob(
            effect="The agents of a node that died are listed as unhealthy for this long, then dropped from the directory.",
            when="Raise it where nodes are often away for minutes.",
            origin="RQ1: 90 s",
            unit="s",
        ),
        msgspec.Meta(ge=10, le=86_400),
    ] = 90.0
    call_timeout_s: Annotated[
        Seconds,
        Knob(
            effect="Time that a whole call may take when the caller names none.",
            when="Raise it for agents that think long; a caller can always name its own.",
            origin="a guess: a minute is what a person waits",
            unit="s",
        ),
    ] = 60.0
    balance: Annotated[
        Strategy,
        Knob(
            effect="How calls are spread over the replicas of an agent: latency, least-connections, round-robin, weighted (as "
            "manifests say) or sticky (by conversation); auto is sticky for calls of a conversation and latency for others.",
            when="round-robin where every call costs the same, weighted where machines differ and you know by how much; a "
            "caller can name another for one call.",
            origin="auto: P2C over peak EWMA is what Finagle and linkerd settled on",
        ),
    ] = "auto"
    agent_concurrency_max: Annotated[
        Count,
        Knob(
            effect="Calls running at once per local agent that declares no limit itself; more of them wait.",
            when="Lower it for agents that share one GPU.",
            origin="a guess: enough for 64 callers with several calls each",
        ),
    ] = 256
    agent_queue_max: Annotated[
        int,
        Knob(
            effect="Calls that may wait for room at one local agent; more are refused as busy. 0: none waits.",
            when="Lower it where callers have other replicas; raise it, and agent_queue_wait_s, for batches.",
            origin="a guess: at ten calls a second and the wait below, as many as get their turn",
        ),
        msgspec.Meta(ge=0, le=100_000),
    ] = 100
    agent_queue_wait_s: Annotated[
        float,
        Knob(
            effect="Longest time that a call waits for room at a local agent before it is refused as busy.",
            when="Raise it for agents whose calls take minutes.",
            origin="a guess: a person still waits so long",
            unit="s",
        ),
        msgspec.Meta(gt=0, le=3_600),
    ] = 10.0
    links_max: Annotated[
        Count,
        Knob(
            effect="Connections to peers at once, both directions; more are refused.",
            when="Raise it on a node that many use as seed; each costs about 100 kB.",
            origin="a guess: a LAN or a team",
        ),
    ] = 256
    trust_roots: Annotated[
        tuple[str, ...],
        Knob(
            effect="Node ids (did:key:…) of your other nodes: trusted beforehand, and their word about others counts in full.",
            when="When you run several nodes; the more are named, the less a single one that is broken into can do.",
            origin="none: a node trusts itself",
            flag="trust-root",
        ),
    ] = ()
    trust_half_life_d: Annotated[
        float,
        Knob(
            effect="Evidence for and against others counts half after this many days.",
            when="Raise it where agents are called rarely, lower it where they change often.",
            origin="a guess: a month of good work outweighs a bad day",
            unit="days",
        ),
        msgspec.Meta(ge=0.01, le=3_650),
    ] = 30.0
    trust_weights: Annotated[
        tuple[str, ...],
        Knob(
            effect="What single kinds of evidence weigh, as kind=number, such as failed=-2; docs/spec/trust.md lists all kinds.",
            when="When something is worse, or more harmless, in your mesh than in others.",
            origin="none: the weights of docs/spec/trust.md §2",
            flag="trust-weight",
        ),
    ] = ()
    discover_ask: Annotated[
        DiscoverAsk,
        Knob(
            effect="Whom 'agentmesh discover' asks beyond this node's own directory. mesh: zone mates, long links and seeds get "
            "the text of the query, the DHT its words; off: nobody.",
            when="off where what is looked for is a secret; --local does the same for one query.",
            origin="mesh: a directory holds 10,000 agents, the mesh more",
        ),
    ] = "mesh"
    discover_weights: Annotated[
        str,
        Knob(
            effect="What counts how much in the score of discovery: how well the text fits, trust, health; scaled to a sum of 1.",
            when="More trust where agents of strangers are about. A query can bring its own (--weights).",
            origin="a guess: between two that fit alike, conduct and health decide",
        ),
    ] = "0.7,0.2,0.1"
    operators: Annotated[
        tuple[str, ...],
        Knob(
            effect="did:keys of the operators whose signed orders (kill switch, lists, revoked keys) this node obeys.",
            when="On every machine that one person is to be able to stop; agentmesh operator show prints the key.",
            origin="empty: the operator whose key is in this home, if there is one",
            flag="operator",
        ),
    ] = ()
    bridges: Annotated[
        tuple[str, ...],
        Knob(
            effect="Other registries that agents cross to and from: etcd://HOST:PORT/PREFIX or consul://HOST:PORT/, with "
            "?way=in, out or both, and further options (docs/howto/bridges.md).",
            when="When agents are registered in etcd or Consul already, or programs outside the mesh look for yours there; "
            "agentmesh bridge add writes it.",
            origin="none: nothing is contacted unless asked",
            flag="bridge",
        ),
    ] = ()
    critical: Critical = ""
    bus: Bus = ""
    nats_server: NatsServer = ""
    nats_cluster: NatsCluster = ()
    nats_secret: NatsSecret = ""
    events_bytes_max: Annotated[
        int,
        Knob(
            effect="Size of the event log above which its oldest whole segments (64 MB) are dropped; 0 keeps everything.",
            when="Raise it on a large disk, or set 0 where every run must stay.",
            origin="a guess: about ten million events",
            unit="bytes",
        ),
        msgspec.Meta(ge=0),
    ] = 4 * 1024**3
    a2a_open: Annotated[
        bool,
        Knob(
            effect="Let A2A clients on this machine call without a credential; off: they bring an API key, a JWT or the token.",
            when="Off on a machine that several people share.",
            origin="on, so that unmodified A2A clients work on day one",
        ),
    ] = True
    otel_endpoint: Annotated[
        str,
        Knob(
            effect="Where spans of calls go by OTLP over HTTP, such as http://127.0.0.1:4318; empty: where the standard variable "
            "OTEL_EXPORTER_OTLP_ENDPOINT says, else nowhere; off: nowhere.",
            when="When there is a collector or a tracing backend (docs/howto/opentelemetry.md). Needs pip install "
            "'agentmeshd[otel]'.",
            origin="empty: nothing leaves the machine unless asked",
        ),
    ] = ""
    otel_content: Annotated[
        Switch,
        Knob(
            effect="Whether spans carry what was asked and answered. on: everybody who can read the traces can read that.",
            when="on while hunting a fault, with a backend that may hold such data.",
            origin="off: prompts and answers are nobody else's business",
        ),
    ] = "off"
    otel_sample: Annotated[
        Share,
        Knob(
            effect="Share of the traces that begin at this node which are sampled, 0 to 1. In others whoever began them decides.",
            when="Lower it where there are more calls than the backend should hold.",
            origin="1: each of them",
        ),
    ] = 1.0
    metrics_open: Annotated[
        bool,
        Knob(
            effect="Show /metrics to programs on this machine that bring no credential; off: they need the scope read.",
            when="On for a scraper on this machine that cannot send an Authorization header.",
            origin="off: the figures name the agents here, and other users of the machine need not know them",
        ),
    ] = False
    grant_roots: Annotated[
        tuple[str, ...],
        Knob(
            effect="did:keys of others whose grants count at the agents beside this node.",
            when="When people or agents elsewhere may let others call agents here in their name. This node's own key and that of "
            "the called agent always count.",
            origin="none: authority begins with the owner",
            flag="grant-root",
        ),
    ] = ()
    embedder: Annotated[
        str,
        Knob(
            effect="What tells which agents a need means: builtin (words and concepts, no model), minilm (a local sentence "
            "model, English), http(s)://…#MODEL (an OpenAI-compatible endpoint such as Ollama or vLLM), or auto: minilm if "
            "'agentmesh models install' brought it, else builtin.",
            when="An endpoint with a strong multilingual model, where there is one; builtin to spend no memory. What cannot be "
            "opened is replaced by builtin, and searches say so.",
            origin="auto: works at once, and better once the model is there",
        ),
    ] = "auto"
    embedder_model: Annotated[
        str,
        Knob(
            effect="Name of the model at the endpoint, if its address in embedder names none.",
            when="When it is long, or set apart from the address.",
            origin="empty: it stands after # in the address",
        ),
    ] = ""
    embedder_key_file: Annotated[
        str,
        Knob(
            effect="File with the API key of the endpoint, readable by its owner only; without it AGENTMESH_EMBEDDER_KEY counts.",
            when="When the endpoint wants a key. It is sent to that endpoint only, and never without TLS to another machine.",
            origin="empty: Ollama and vLLM on one's own machine want none",
        ),
    ] = ""
    models_dir: Annotated[
        str,
        Knob(
            effect="Directory of local models; empty: models/ in the home.",
            when="When several nodes on one machine are to share one copy (90 MB).",
            origin="empty, so that a home holds all that its node needs",
        ),
    ] = ""
    federation_seeds: Annotated[
        tuple[str, ...],
        Knob(
            effect="Meshes that show agents to this one: URL, or did:key:…@URL if that key must answer there.",
            when="When a partner shows you agents. More can be said of each seed in federation.toml.",
            origin="nobody",
        ),
    ] = ()
    federation_listen: Annotated[
        str,
        Knob(
            effect="host:port where partners pull what federation.toml shows them, and hint at changes; empty: nowhere.",
            when="To show agents to partners. Plain HTTP on loopback behind a proxy, else with federation_cert.",
            origin="off: a port for others is opened on purpose",
        ),
    ] = ""
    federation_url: Annotated[
        str,
        Knob(
            effect="What partners call the listener: https://host:port. Proofs made for another address are refused.",
            when="Behind a proxy, or when federation_listen is no address that partners use.",
            origin="made of federation_listen",
        ),
    ] = ""
    federation_cert: Annotated[
        str,
        Knob(
            effect="PEM file with the listener's certificate chain, and its key unless federation_key has it.",
            when="Whenever partners reach the listener without a proxy of yours in between.",
            origin="none: plain HTTP, on loopback only",
        ),
    ] = ""
    federation_key: Annotated[
        str,
        Knob(
            effect="PEM file with the key of federation_cert.",
            when="When it is in a file of its own.",
            origin="in federation_cert",
        ),
    ] = ""
    federation_ca: Annotated[
        str,
        Knob(
            effect="PEM file with the authorities that certificates of seeds and hinted partners must be of.",
            when="When partners have certificates of a private authority.",
            origin="those of this machine",
        ),
    ] = ""
    federation_interval_s: Annotated[
        Seconds,
        Knob(
            effect="How often seeds are asked for changes when they do not hint.",
            when="Lower where no hints reach this node.",
            origin="half a minute behind is little for agents that come and go by hand",
            unit="s",
        ),
    ] = 30.0
    federation_trust_min: Annotated[
        Share,
        Knob(
            effect="Least trust of a federated agent, 0 to 1; below it, federation_low says what becomes of it.",
            when="When a partner's agents disappoint. 'agentmesh trust AGENT' shows the score.",
            origin="0: nobody knows a newcomer, and policy decides about calls anyway",
        ),
    ] = 0.0
    federation_low: Annotated[
        LowTrust,
        Knob(
            effect="What becomes of a federated agent below federation_trust_min: drop, or mark it as low trust.",
            when="mark to see them all.",
            origin="drop: what is not trusted is not offered",
        ),
    ] = "drop"
    log_level: Annotated[
        Level,
        Knob(
            effect="What daemon.log tells: debug, info, warning or error.",
            when="debug while hunting a fault.",
            origin="info: a few lines per minute",
        ),
    ] = "info"

    log_calls: Annotated[
        bool,
        Knob(
            effect="Write a line into daemon.log for each call that is over: who, whom, which trace, budget, result, time; "
            "never what was said (docs/reference/logs.md).",
            when="Off where there are thousands of calls a second and the event log is enough.",
            origin="on: the log is where people look first",
        ),
    ] = True

    @property
    def paths(self) -> Home:
        """The files in the home directory."""
        return Home(self.home)

    @property
    def models(self) -> Path:
        """The directory of local models."""
        return Path(self.models_dir) if self.models_dir else self.paths.models
