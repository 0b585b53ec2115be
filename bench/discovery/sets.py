"""Sets of agents and graded queries: JSON lines, ours or anybody's. Read strictly, with file and line in every complaint."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agentmesh.core.search.model import PASSAGES_MAX, TEXT_CHARS_MAX, Document, Passage
from agentmesh.core.search.rank import HEALTH
from agentmesh.errors import ConfigError

HERE = Path(__file__).resolve().parent
AGENTS = HERE / "agents.jsonl"
QUERIES = HERE / "queries.jsonl"
#: Other agents and other queries, all held back.
SECOND = (HERE / "second" / "agents.jsonl", HERE / "second" / "queries.jsonl")
#: Of one line, in bytes, and of one file, in lines.
LINE_BYTES_MAX = 1_000_000
LINES_MAX = 1_000_000
GRADE_MAX = 3
#: What an agent is taken for if its line does not say.
TRUST, HEALTH_STATE = 0.5, "unknown"

T = TypeVar("T")


class Skill(msgspec.Struct, frozen=True):
    """One skill as its line says it; a skill that is a bare text has only a name."""

    id: str | None = None
    name: str | None = None
    description: str | None = None
    tags: tuple[str, ...] | None = None
    examples: tuple[str, ...] | None = None


class Agent(msgspec.Struct, frozen=True):
    """One line of the agents' file. Only ``id`` must be there; ``trust`` (0 … 1) and ``health`` matter to mixes of weights."""

    id: str
    name: str | None = None
    description: str | None = None
    skills: tuple[str | Skill, ...] | None = None
    tags: tuple[str, ...] | None = None
    trust: float | None = None
    health: str | None = None


class Query(msgspec.Struct, frozen=True):
    """One line of the queries' file: what is asked, and the grade (1 … 3) of each agent that is an answer.

    A query of which no agent is an answer is read but not measured: none of the metrics says anything of it.
    """

    qid: str
    query: str
    relevant: dict[str, float]
    kind: str = "any"
    split: str | None = None


def lines_of(path: Path, shape: type[T], key: str) -> list[T]:
    """Read one value per line; empty lines are passed over.

    Raises:
        ConfigError: the file cannot be read, or a line is too long, no JSON, of another shape or has the id of an earlier one
            (code "bench.file"); the message names file and line.
    """
    found: list[T] = []
    lines: dict[str, int] = {}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                where = f"{path}:{number}"
                if number > LINES_MAX or len(line) > LINE_BYTES_MAX:
                    raise _bad(where, f"more than {LINES_MAX:,} lines or a line of more than {LINE_BYTES_MAX:,} bytes")
                text = line.removeprefix(b"\xef\xbb\xbf").strip()
                if not text:
                    continue
                try:
                    one = msgspec.json.decode(text, type=shape)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    raise _bad(where, str(error)) from None
                name = getattr(one, key)
                if name in lines:
                    raise _bad(where, f"{key} {name!r} stands on line {lines[name]} already")
                lines[name] = number
                _check(one, where)
                found.append(one)
    except OSError as error:
        raise _bad(str(path), error.strerror or str(error)) from None
    if not found:
        raise _bad(str(path), "nothing in it")
    return found


def read(agents: Path, queries: Path) -> tuple[list[Agent], list[Query]]:
    """Read a set.

    Raises:
        ConfigError: see ``lines_of``; or a query names an agent that is not there.
    """
    those = lines_of(agents, Agent, "id")
    asked = lines_of(queries, Query, "qid")
    ids = {one.id for one in those}
    for query in asked:
        strange = [name for name in query.relevant if name not in ids]
        if strange:
            raise _bad(str(queries), f"query {query.qid!r}: no agent {strange[0]!r} in {agents}")
    return those, asked


def of_split(queries: list[Query], split: str) -> list[Query]:
    """Return the queries of one split; those that name none belong to every one."""
    return [one for one in queries if split == "all" or one.split in (None, split)]


def document(agent: Agent) -> Document:
    """Return an agent as it is searched: one passage for itself, one for each skill, one for each example."""
    skills = [Skill(name=one) if isinstance(one, str) else one for one in agent.skills or ()]
    passages = [Passage("agent", "", _text(agent.name or agent.id, agent.description))]
    tags = list(agent.tags or ())
    for number, skill in enumerate(skills):
        name = skill.id or f"skill-{number}"
        tags.extend(skill.tags or ())
        passages.append(Passage("skill", name, _text(skill.name or "", skill.description)))
        passages.extend(Passage("example", name, one[:TEXT_CHARS_MAX]) for one in skill.examples or ())
    return Document(
        agent_id=agent.id,
        version="1",
        name=agent.name or agent.id,
        passages=tuple(one for one in passages if one.text)[:PASSAGES_MAX],
        tags=tuple(dict.fromkeys(tags)),
        skills=tuple(dict.fromkeys(skill.id or f"skill-{number}" for number, skill in enumerate(skills))),
    )


def whole_text(agent: Agent) -> str:
    """Return everything an agent says of itself."""
    one = document(agent)
    return " ".join((*(passage.text for passage in one.passages), *one.tags))


def _text(name: str, description: str | None) -> str:
    return (f"{name}: {description}" if name and description else name or description or "")[:TEXT_CHARS_MAX]


def _check(one: Any, where: str) -> None:
    if isinstance(one, Query):
        wrong = [f"{name}: {grade}" for name, grade in one.relevant.items() if not 0 <= grade <= GRADE_MAX]
        if wrong:
            raise _bad(where, f"grades are 1 to {GRADE_MAX}, not {wrong[0]}")
        if not one.query.strip():
            raise _bad(where, "an empty query")
    if isinstance(one, Agent):
        if one.trust is not None and not 0 <= one.trust <= 1:
            raise _bad(where, f"trust is 0 to 1, not {one.trust}")
        if one.health is not None and one.health not in HEALTH:
            raise _bad(where, f"health is one of {', '.join(HEALTH)}, not {one.health!r}")


def _bad(where: str, why: str) -> ConfigError:
    return ConfigError(
        f"{where}: {why}", code="bench.file", hint="docs/reference/discovery-quality.md shows the format"
    )
