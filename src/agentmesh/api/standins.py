"""Loading a library without what it imports and this daemon never uses: an idle daemon must fit in little memory (adr/0005).

Other modules stand in for those while the library loads, and are gone afterwards: whoever else wants them gets the real ones.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any


def module_of(name: str, **members: Any) -> types.ModuleType:
    """Return a module with these members and nothing else."""
    module = types.ModuleType(name)
    module.__dict__.update(members)
    return module


def load_without(names: Sequence[str], standins: Mapping[str, types.ModuleType | None]) -> None:
    """Import modules while others stand in for what they import; does nothing if the first is loaded already.

    A version of the library that needs more of a module than its stand-in has is loaded whole, by whoever imports it next.

    Args:
        names: Of the modules.
        standins: Name → what stands in for it; None = it cannot be found. Those that are loaded already stay as they are.
    """
    if names[0] in sys.modules:
        return
    modules: dict[str, types.ModuleType | None] = sys.modules  # pyright: ignore[reportAssignmentType] None = not to be found
    before = dict.fromkeys(modules)
    standing_in = {name: module for name, module in standins.items() if name not in before}
    modules.update(standing_in)
    try:
        for name in names:
            importlib.import_module(name)
    except (ImportError, AttributeError):
        for name in [name for name in modules if name not in before and name not in standing_in]:
            del modules[name]
    finally:
        for name in standing_in:
            del modules[name]
