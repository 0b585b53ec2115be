"""What the tests of the console share: one browser for each module of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Give a browser that is gone before tests of other modules run: its event loop lives in their thread."""
    with chromium() as one:
        yield one
