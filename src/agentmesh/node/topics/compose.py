"""The parts of topics put together for one node, and what the node does with them."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agentmesh.core.directory.messages import AgentChanged, AgentGone
from agentmesh.core.messages import Publish
from agentmesh.core.topics.intake import TOPIC, TopicHeard
from agentmesh.engines.base import TopicStore
from agentmesh.errors import MeshError
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.publication import Publication
from agentmesh.ids import NodeId, did_of
from agentmesh.net.base import Stream
from agentmesh.net.tasks import TaskScope
from agentmesh.node.killswitch import KillSwitch
from agentmesh.node.links import Peer
from agentmesh.node.mail.host import MailDesk
from agentmesh.node.mesh import Mesh
from agentmesh.node.registry import Registry
from agentmesh.node.resolve import Directory
from agentmesh.node.topics.asking import Asking
from agentmesh.node.topics.durable import Durable
from agentmesh.node.topics.fanout import Fanout
from agentmesh.node.topics.following import Following
from agentmesh.node.topics.letters import SCOPE, TopicLetters
from agentmesh.node.topics.presence import Presence
from agentmesh.node.topics.rulefile import RuleFile
from agentmesh.node.topics.serving import Serving
from agentmesh.node.topics.sync import RetainedSync
from agentmesh.node.topics.topics import Topics, presence_publication
from agentmesh.node.topics.who import Belonging, Who
from agentmesh.obs.metrics import Readings
from agentmesh.store.topics import RetainedStore
from agentmesh.wire import v1
from agentmesh.wire.message_views import MessageRequest, PublishRequest, SentView

if TYPE_CHECKING:
    from agentmesh.engines.sqlite_topics import SqliteTopicStore

RETAINED_FILE, DURABLE_FILE, RULES_FILE = "topics.sqlite", "durable.sqlite", "topics.toml"


def sqlite_store(path: Path) -> SqliteTopicStore:
    """Return the store of durable topics in a file of this machine, not open yet."""
    from agentmesh.engines.sqlite_topics import SCHEMA, VERSION, SqliteTopicStore
    from agentmesh.store.database import Database

    damaged = f"it holds durable topics: put a copy back, or move it away to begin anew:   mv {path} {path}.damaged"
    return SqliteTopicStore(lambda: Database(path, SCHEMA, VERSION, name="durable", damaged=damaged), f"sqlite:{path}")


class TopicParts:
    """Everything about topics at one node.

    Args:
        key: The node's key.
        home: Where its files are.
        mesh, registry, switch: Of the node.
        directory: All agents known.
        belonging: Says to which organisation somebody belongs.
        is_node: Says whether a did:key is that of a node that is known.
        refusal_of: Says why a key may do nothing here.
        note: Takes note of a change of the rules.
        bus: Makes the store of durable topics where several nodes share one; None: a file of this machine.
    """

    def __init__(
        self,
        key: KeyPair,
        home: Path,
        mesh: Mesh,
        registry: Registry,
        switch: KillSwitch,
        *,
        directory: Callable[[], Directory],
        belonging: Belonging,
        is_node: Callable[[str], bool],
        refusal_of: Callable[[str], MeshError | None],
        note: Callable[[str, str], Awaitable[None]],
        bus: Callable[[], TopicStore] | None = None,
    ) -> None:
        rng = random.Random(os.urandom(16))  # noqa: S311 jitter and names, not secrets
        self._mesh, self._key = mesh, key
        self.rules = RuleFile(home / RULES_FILE, self._rules_changed)
        self.retained = RetainedStore(home / RETAINED_FILE)
        self.who = Who(key, registry, directory, belonging, is_node)
        file = home / DURABLE_FILE
        self.durable = Durable(mesh.node_id, bus or (lambda: sqlite_store(file)), None if bus is not None else file)
        self.fanout = Fanout(lambda subject, names: self.following.may_follow(subject, names))
        self.asking = Asking(mesh.links, mesh.contact_of)
        self.following = Following(
            self.fanout,
            self.retained,
            self.rules,
            self.durable,
            self.who,
            self.asking,
            presence=self._present,
            rng=rng,
        )
        self.presence = Presence(mesh.brain.entry, lambda view: self.topics.presence_changed(view))
        scope = TaskScope("topics", tasks_max=512)
        self.topics = Topics(
            key,
            fanout=self.fanout,
            rules=self.rules,
            retained=self.retained,
            durable=self.durable,
            presence=self.presence,
            who=self.who,
            following=self.following,
            broadcast=lambda raw: mesh.feed(Publish(TOPIC, raw)),
            has_neighbours=lambda: bool(mesh.brain.neighbours()),
            refuse=switch.refuse,
            refusal_of=refusal_of,
            scope=scope,
            note=note,
        )
        self.serving = Serving(self.retained, self.durable, self.rules, self.who, refusal_of)
        self.sync = RetainedSync(
            self.asking,
            mesh.links,
            self.retained,
            take=self.topics.take_retained,
            on_misbehaved=mesh.note_misbehaviour,
            scope=scope,
            rng=rng,
        )
        mesh.hears[TopicHeard] = self.topics.hear
        mesh.hears[AgentChanged] = self.presence.changed
        mesh.hears[AgentGone] = self.presence.gone
        mesh.reviews.append(self.rules.refresh)
        mesh.watches.append(self.topics.warnings)

    def _rules_changed(self) -> None:
        self.fanout.forget()

    def _present(self) -> Iterator[Publication]:
        for view in self.presence.views():
            yield presence_publication(self._key, view)

    async def open(self) -> None:
        """Open what is kept and begin to ask neighbours."""
        await self.topics.open()
        self.sync.open()

    def write_with(self, desk: MailDesk) -> None:
        """Send what rules keep for named agents as mail, and take messages to ``topic:SUBJECT``."""
        self.topics.letters = TopicLetters(desk.room, self.topics.take_letter)
        desk.many[SCOPE] = self._publish_message

    async def _publish_message(self, request: MessageRequest, sender: bytes) -> SentView:
        """Publish what was sent as a message to a topic. Raises what ``Topics.publish`` does."""
        publish = PublishRequest(
            text=request.text,
            data=request.data,
            data_base64=request.data_base64,
            content_type=request.content_type,
            sender=did_of(sender),
            message_id=request.message_id,
            headers=request.headers,
        )
        view = await self.topics.publish(request.to.removeprefix(SCOPE), publish)
        now_us = time.time_ns() // 1_000
        return SentView(
            message_id=view.message_id, to=request.to, state="delivered", copies=view.subscribers, ts=now_us, tries=1
        )

    def on_up(self, peer: Peer) -> None:
        """Take note that a link to a peer is up."""
        self.sync.on_up(peer)

    async def serve(self, node: NodeId, stream: Stream, query: v1.TopicQuery) -> None:
        """Answer another node. Raises Closed."""
        await self.serving.serve(node, stream, query)

    def read(self, readings: Readings) -> None:
        """Read what is counted."""
        topics, fanout = self.topics, self.fanout
        readings.set("agentmesh_topic_publications_total", topics.published, "out")
        readings.set("agentmesh_topic_publications_total", topics.heard, "in")
        readings.set("agentmesh_topic_refused_total", topics.refused, "rules")
        readings.set("agentmesh_topic_refused_total", self._mesh.brain.topics.dropped, "rate")
        readings.set("agentmesh_topic_unflooded_total", topics.unflooded)
        readings.set("agentmesh_topic_deliveries_total", fanout.delivered)
        readings.set("agentmesh_topic_lost_total", fanout.lost)
        readings.set("agentmesh_topic_subscribers", len(fanout))
        readings.set("agentmesh_topic_retained", len(self.retained))
        readings.set("agentmesh_durable_topics", len(self.durable.all()))

    async def aclose(self) -> None:
        """Stop. Idempotent."""
        await self.topics.aclose()
