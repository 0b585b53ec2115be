"""A real Prometheus for tests, where one is installed (Debian: ``prometheus``)."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.daemons import wait_until

PROGRAM, TOOL = shutil.which("prometheus"), shutil.which("promtool")


class Prometheus:
    """One that runs."""

    def __init__(self, port: int, log: Path) -> None:
        self.port, self._log = port, log

    def get(self, path: str, **query: str) -> Any:
        """Return ``data`` of an answer of its HTTP API; fails with what it says."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", f"/api/v1/{path}?{urlencode(query)}")
            answer = connection.getresponse()
            said = json.loads(answer.read())
        assert said["status"] == "success", (query, said)
        return said["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query."""
        return self.get("query", query=expression)["result"]

    def log(self) -> str:
        """Return what it wrote to stderr."""
        return self._log.read_text("utf-8", "replace")


@contextlib.contextmanager
def prometheus(folder: Path, config: str) -> Iterator[Prometheus]:
    """Run one in a folder with this ``prometheus.yml`` until the block ends."""
    assert PROGRAM is not None
    (folder / "prometheus.yml").write_text(config, "utf-8")
    log = folder / "prometheus.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [
                PROGRAM,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
                "--log.level=debug",
            ],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:

        def port() -> int:
            assert process.poll() is None, log.read_text("utf-8", "replace")
            bound = re.search(r'msg="Listening on" address=\S+:(\d+)', log.read_text("utf-8", "replace"))
            return int(bound[1]) if bound else 0

        one = Prometheus(wait_until(port, "Prometheus to listen", timeout_s=60), log)

        def answers() -> bool:
            assert process.poll() is None, one.log()
            with contextlib.suppress(OSError, ValueError):  # it answers in plain text that it is not ready
                return bool(one.get("status/runtimeinfo"))
            return False

        wait_until(answers, "Prometheus to answer", timeout_s=60)
        yield one
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
