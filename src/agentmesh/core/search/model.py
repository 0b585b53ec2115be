"""What is searched, what is asked for, and what is found. Plain values; the index, the node and the bench speak in them.

An agent is searched passage by passage: one for what it says of itself, one for each skill and one for each example, so that
an agent with twenty skills is as easy to find by one of them as an agent that has only that one (RQ0 §4.3).
"""

from __future__ import annotations

from typing import Literal

import msgspec

PassageKind = Literal["agent", "skill", "example"]
#: Of one agent; what its card says beyond is not searched.
PASSAGES_MAX = 64
#: Of one passage, in characters.
TEXT_CHARS_MAX = 2_000
#: Of a query, in characters; the rest is not read, and the answer says so.
QUERY_CHARS_MAX = 1_000


class Passage(msgspec.Struct, array_like=True, frozen=True):
    """One text by which an agent is found.

    Attributes:
        kind: Whether it is about the agent, one of its skills, or is an example of what to ask it.
        skill: Id of the skill; "" for the agent itself.
        text: At most ``TEXT_CHARS_MAX`` characters, as the card says it.
    """

    kind: PassageKind
    skill: str
    text: str


class Document(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """One agent as it is searched.

    Attributes:
        agent_id: Its did:key, or any other id that is unique in one index.
        version: Changes whenever anything else here does: a document of the same version need not be indexed again.
        name: As people type it.
        passages: At most ``PASSAGES_MAX``, the agent's own first.
        tags: Of the agent and of its skills, no doubles.
        skills: Ids of its skills.
        protocols: By which it can be called at an edge: "mesh", "a2a", "mcp", "http", …
        models: Language models that it says it runs on.
        context_window: Tokens; 0 if it does not say.
        price_micros: What one call costs at most, in millionths of a US dollar; None if it does not say.
        node_id: The node beside it.
        organisation: did:key of the organisation that vouches for it; "" for none.
        location: Where it says it is: the site of its node, or a place in its card.
    """

    agent_id: str
    version: str
    name: str
    passages: tuple[Passage, ...]
    tags: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    context_window: int = 0
    price_micros: int | None = None
    node_id: str = ""
    organisation: str = ""
    location: str = ""


class Filters(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """What an agent must be to be an answer, whatever its text says. Everything given must hold; letter case never counts.

    Attributes:
        protocol, tag, skill, model: It has this one among its own; a model may be named by its beginning.
        context_window_min: Tokens; an agent that does not say has 0.
        price_micros_max: One call costs at most this; an agent that does not say does not pass.
        organisation, location: Exactly this; a location may be named by its beginning ("eu" for "eu/berlin").
        node_id: It lives beside this node.
    """

    protocol: str = ""
    tag: str = ""
    skill: str = ""
    model: str = ""
    context_window_min: int = 0
    price_micros_max: int | None = None
    organisation: str = ""
    location: str = ""
    node_id: str = ""


class Hit(msgspec.Struct, array_like=True, frozen=True):
    """One agent that the text speaks for.

    Attributes:
        agent_id: Which one.
        text: How well, 0 … 1: the same text and the same query give the same figure on every node with the same embedder,
            whatever else is indexed, as far as the method allows.
        passage: The passage that fits best.
        missed: Filters that it does not meet, by name; such a hit is only told as a near miss.
        lexical, vector: The parts of ``text``, for people who ask why: each 0 … 1.
    """

    agent_id: str
    text: float
    passage: Passage
    missed: tuple[str, ...] = ()
    lexical: float = 0.0
    vector: float = 0.0


class Found(msgspec.Struct, array_like=True, frozen=True):
    """What an index answers.

    Attributes:
        hits: Best first, those that meet all filters; none for a query that says nothing.
        near: Best first, those that the text speaks for and a filter against.
        needs: The query taken apart: one text for each need in it.
        embedder: By which the vectors were made; "" if words alone decided.
        notes: What people should know of the answer ("the model file is broken: …"), in English.
    """

    hits: tuple[Hit, ...]
    near: tuple[Hit, ...] = ()
    needs: tuple[str, ...] = ()
    embedder: str = ""
    notes: tuple[str, ...] = ()
