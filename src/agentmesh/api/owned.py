"""Messages, topics, state and locks as whoever asks may use them: all of them, or as a tenant only its own agents' messages."""

from __future__ import annotations

from collections.abc import Sequence

from agentmesh.api.backend import Backend, View
from agentmesh.api.messaging import Locks, Mail, State, Topics
from agentmesh.api.table import Ask
from agentmesh.errors import AgentNotFound, ReadOnly, Unauthorized, UsageError
from agentmesh.wire.message_views import AckView, DeadLetters, GroupView, InboxPage, MailView, MessageRequest, SentView


def mail_of(ask: Ask) -> Mail:
    """Return the courier: to the operator whole, to a tenant for its own agents only."""
    mail = ask.site.node.mail
    return TenantMail(ask.site.node, ask.backend, ask.rights.tenant) if ask.rights.tenant else mail


def topics_of(ask: Ask) -> Topics:
    """Return publish and subscribe. Raises Unauthorized (code "refused.tenant", HTTP 403) for a tenant."""
    _refuse_tenant(ask, "topics")
    return ask.site.node.topics


def state_of(ask: Ask) -> State:
    """Return shared state. Raises as ``topics_of``."""
    _refuse_tenant(ask, "shared state")
    return ask.site.node.state


def locks_of(ask: Ask) -> Locks:
    """Return the locks. Raises as ``topics_of``."""
    _refuse_tenant(ask, "locks")
    return ask.site.node.locks


def refuse_stopped(ask: Ask) -> None:
    """Raise ReadOnly while the kill switch is on; what is sent and published is refused by the node itself."""
    if ask.site.node.orders_view().read_only:
        raise ReadOnly(
            "the kill switch is on: this node is read-only",
            why="shared state is not changed and no lock is taken until the operator releases it",
            hint="agentmesh killswitch status",
        )


def _refuse_tenant(ask: Ask, what: str) -> None:
    if ask.rights.tenant:
        raise _not_for_tenants(what)


def _not_for_tenants(what: str) -> Unauthorized:
    return Unauthorized(
        f"tenants have no {what} of their own",
        code="refused.tenant",
        why="these are shared by the whole mesh in the node's name, and a tenant is not to see what others do there",
        hint="a node of one's own:   agentmesh up",
    )


class TenantMail:
    """``Mail`` for one tenant: it sends in the name of its agents and reads their inboxes.

    Args:
        node: The node.
        view: The node as the tenant sees it.
        tenant: Its name.
    """

    __slots__ = ("_mail", "_node", "_tenant", "_view")

    def __init__(self, node: Backend, view: View, tenant: str) -> None:
        self._node, self._view, self._tenant = node, view, tenant
        self._mail: Mail = node.mail

    def _own(self, ref: str) -> str:
        """Return the id of an agent of the tenant. Raises AgentNotFound, UsageError."""
        if not ref:
            raise UsageError(
                "a tenant sends and reads as one of its agents, not as the node",
                code="mail.sender",
                hint="name the agent: 'sender' of the message, or its inbox",
            )
        agent_id = self._view.agent(ref).agent.agent_id
        if self._node.tenant_of("", agent_id) != self._tenant:
            raise AgentNotFound(f"{ref[:80]!r} is no agent of this tenant")
        return agent_id

    async def send(self, request: MessageRequest) -> SentView:
        """Send as an agent of the tenant. Raises as ``Mail.send``, and Unauthorized for what goes to many."""
        if request.to == "*" or request.to.startswith(("group:", "topic:")):
            raise _not_for_tenants("groups and topics")
        request.sender = self._own(request.sender)
        await self._view.look_for(request.to)
        request.to = self._view.agent(request.to).agent.agent_id
        return await self._mail.send(request)

    async def inbox(self, agent: str, *, limit: int, wait_s: float, lease_s: float, peek: bool) -> InboxPage:
        """Read the inbox of an agent of the tenant. Raises as ``Mail.inbox``."""
        return await self._mail.inbox(self._own(agent), limit=limit, wait_s=wait_s, lease_s=lease_s, peek=peek)

    async def ack(self, agent: str, message_ids: Sequence[str], *, back: bool) -> AckView:
        """Acknowledge for an agent of the tenant. Raises as ``Mail.ack``."""
        return await self._mail.ack(self._own(agent), message_ids, back=back)

    # What is about the whole node

    async def sent(self, message_id: str) -> SentView:
        """Refuse: what was sent is listed for the node."""
        raise _not_for_tenants("list of what was sent")

    async def figures(self) -> MailView:
        """Refuse."""
        raise _not_for_tenants("courier")

    async def dead(self, limit: int, start: int) -> DeadLetters:
        """Refuse."""
        raise _not_for_tenants("dead letters")

    async def retry(self, message_id: str) -> SentView:
        """Refuse."""
        raise _not_for_tenants("dead letters")

    async def groups(self) -> list[GroupView]:
        """Refuse."""
        raise _not_for_tenants("groups")

    async def set_group(self, name: str, members: Sequence[str]) -> GroupView:
        """Refuse."""
        raise _not_for_tenants("groups")

    async def remove_group(self, name: str) -> GroupView:
        """Refuse."""
        raise _not_for_tenants("groups")
