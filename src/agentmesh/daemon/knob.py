"""What a setting is described by, and the kinds of values that several have."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import msgspec

ENV_PREFIX = "AGENTMESH_"


class Knob(NamedTuple):
    """What a person should know about one setting.

    Attributes:
        effect: What it does.
        when: When to change it, and what it is related to.
        origin: Where the default comes from.
        unit: Unit of the value, "" if it has none.
        flag: Name of the flag without dashes, when it is not the field's name.
    """

    effect: str
    when: str
    origin: str
    unit: str = ""
    flag: str = ""


Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Scheme = Literal["iroh", "tls", "ws"]
Capacity = Literal["auto", "0", "1", "2", "3", "4"]
PolicyMode = Literal["auto", "open", "closed", "strict"]
DiscoverAsk = Literal["mesh", "off"]
Level = Literal["debug", "info", "warning", "error"]
LowTrust = Literal["drop", "mark"]
Switch = Literal["off", "on"]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
