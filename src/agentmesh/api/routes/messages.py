"""Routes of messages: send, what became of it, inboxes, dead letters, groups (docs/spec/mail.md)."""

from __future__ import annotations

from agentmesh.api.owned import mail_of
from agentmesh.api.table import Ask, Param, RouteRow
from agentmesh.api.waiting import unless_gone
from agentmesh.errors import (
    AgentNotFound,
    Busy,
    Full,
    LimitError,
    RecordNotFound,
    UsageError,
)
from agentmesh.wire.message_limits import (
    ACKS_MAX,
    INBOX_WAIT_S_MAX,
    LEASE_S,
    LEASE_S_MAX,
    MESSAGE_BODY_BYTES_MAX,
    NODE,
)
from agentmesh.wire.message_views import (
    AckRequest,
    AckView,
    DeadLetters,
    GroupList,
    GroupRequest,
    GroupView,
    InboxPage,
    MailView,
    MessageRequest,
    SentView,
)


async def send_message(ask: Ask) -> SentView:
    """Answer ``POST /api/v1/messages``."""
    return await mail_of(ask).send(ask.body)


async def show_mail(ask: Ask) -> MailView:
    """Answer ``GET /api/v1/messages``."""
    return await mail_of(ask).figures()


async def show_message(ask: Ask) -> SentView:
    """Answer ``GET /api/v1/messages/{message_id}``."""
    return await mail_of(ask).sent(ask.path["message_id"])


async def list_dead(ask: Ask) -> DeadLetters:
    """Answer ``GET /api/v1/messages/dead``."""
    return await mail_of(ask).dead(ask.query["limit"], ask.query["start"])


async def retry_message(ask: Ask) -> SentView:
    """Answer ``POST /api/v1/messages/{message_id}/retry``."""
    return await mail_of(ask).retry(ask.path["message_id"])


async def read_inbox(ask: Ask) -> InboxPage:
    """Answer ``GET /api/v1/inbox/{agent}``."""
    query, agent, mail = ask.query, _agent(ask), mail_of(ask)
    peek: bool = query["peek"]
    reading = mail.inbox(
        agent, limit=query["limit"], wait_s=query["wait_s"], lease_s=float(query["lease_s"]), peek=peek
    )

    async def undo(page: InboxPage) -> None:
        if page.messages and not peek:
            await mail.ack(agent, [message.message_id for message in page.messages], back=True)

    return await (unless_gone(ask, reading, undo) if query["wait_s"] else reading)


async def ack_messages(ask: Ask) -> AckView:
    """Answer ``POST /api/v1/inbox/{agent}/ack``."""
    request: AckRequest = ask.body
    if not 0 < len(request.message_ids) <= ACKS_MAX:
        raise UsageError(f"1 to {ACKS_MAX} messages are acknowledged at a time", code="mail.ack")
    return await mail_of(ask).ack(_agent(ask), request.message_ids, back=request.back)


async def list_groups(ask: Ask) -> GroupList:
    """Answer ``GET /api/v1/groups``."""
    return GroupList(groups=await mail_of(ask).groups())


async def set_group(ask: Ask) -> GroupView:
    """Answer ``PUT /api/v1/groups/{name}``."""
    request: GroupRequest = ask.body
    return await mail_of(ask).set_group(ask.path["name"], request.members)


async def remove_group(ask: Ask) -> GroupView:
    """Answer ``DELETE /api/v1/groups/{name}``."""
    return await mail_of(ask).remove_group(ask.path["name"])


def _agent(ask: Ask) -> str:
    agent = ask.path["agent"]
    return "" if agent == NODE else agent


_WHO = {"agent": f"Name or id of an agent of this node; {NODE} for the node itself."}
_ID = {"message_id": "UUID of the message."}

ROWS = (
    RouteRow(
        "POST",
        "/api/v1/messages",
        send_message,
        "Send a message to an agent, a group, a topic or all; it is kept until it is delivered or its time is over",
        SentView,
        MessageRequest,
        (AgentNotFound, UsageError, LimitError, Busy, Full),
        body_bytes_max=MESSAGE_BODY_BYTES_MAX,
        scope="message",
    ),
    RouteRow(
        "GET",
        "/api/v1/messages",
        show_mail,
        "Show the courier in figures, and what waits to be delivered",
        MailView,
        scope="read",
    ),
    RouteRow(
        "GET",
        "/api/v1/messages/dead",
        list_dead,
        "List messages that were given up, newest first, with the reason",
        DeadLetters,
        params=(
            Param("limit", "integer", 100, "At most so many.", low=1, high=1000),
            Param("start", "integer", 0, "Pass over so many."),
        ),
        scope="message",
    ),
    RouteRow(
        "GET",
        "/api/v1/messages/{message_id}",
        show_message,
        "Show what became of a message of this node",
        SentView,
        errors=(RecordNotFound, UsageError),
        path_params=_ID,
        scope="message",
    ),
    RouteRow(
        "POST",
        "/api/v1/messages/{message_id}/retry",
        retry_message,
        "Send a dead letter again",
        SentView,
        errors=(RecordNotFound, UsageError, Busy, Full),
        path_params=_ID,
        scope="message",
    ),
    RouteRow(
        "GET",
        "/api/v1/inbox/{agent}",
        read_inbox,
        "Hand out what waits for an agent here, waiting for it if there is nothing",
        InboxPage,
        errors=(AgentNotFound, UsageError),
        params=(
            Param("limit", "integer", 16, "At most so many messages.", low=1, high=ACKS_MAX),
            Param("wait_s", "integer", 0, "Seconds to wait if there is none.", high=INBOX_WAIT_S_MAX),
            Param(
                "lease_s",
                "integer",
                LEASE_S,
                "What is not acknowledged after so many seconds is handed out again.",
                low=1,
                high=LEASE_S_MAX,
            ),
            Param("peek", "boolean", False, "Only look: they stay where they are."),
        ),
        path_params=_WHO,
        description=(
            "What is handed out and not acknowledged comes again. If the client goes away while it waits, nothing is "
            "handed out."
        ),
        scope="message",
    ),
    RouteRow(
        "POST",
        "/api/v1/inbox/{agent}/ack",
        ack_messages,
        "Acknowledge messages, or give them back to be handed out again",
        AckView,
        AckRequest,
        (AgentNotFound, UsageError, Full),
        path_params=_WHO,
        scope="message",
    ),
    RouteRow(
        "GET",
        "/api/v1/groups",
        list_groups,
        "List the groups that agents of this node are in or made",
        GroupList,
        scope="message",
    ),
    RouteRow(
        "PUT",
        "/api/v1/groups/{name}",
        set_group,
        "Make a group of agents, or change who is in it",
        GroupView,
        GroupRequest,
        (AgentNotFound, UsageError, Full),
        path_params={"name": "Name of the group."},
        scope="message",
    ),
    RouteRow(
        "DELETE",
        "/api/v1/groups/{name}",
        remove_group,
        "End a group",
        GroupView,
        errors=(RecordNotFound, Full),
        path_params={"name": "Name of the group."},
        scope="message",
    ),
)
