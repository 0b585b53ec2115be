"""Giving memory back: only code pages of files are told, and the process goes on working."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import hashlib, json, sqlite3, ssl, zlib
from pathlib import Path
from agentmesh.daemon import memory

def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

libc = memory._libc()
before = rss()
told = memory.drop_startup_code(libc)
after = rss()
assert hashlib.sha256(b"x").hexdigest().startswith("2d711642")
assert sqlite3.connect(":memory:").execute("select 6*7").fetchone() == (42,)
assert zlib.decompress(zlib.compress(b"y" * 1000)) == b"y" * 1000
ssl.create_default_context()
print(json.dumps({"told": told, "before": before, "after": after}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_dropping_start_up_code_shrinks_the_process_and_everything_still_works() -> None:
    import json

    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    seen = json.loads(done.stdout)
    assert seen["told"] > 1_000_000
    assert seen["after"] < seen["before"]
