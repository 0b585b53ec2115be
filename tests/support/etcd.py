"""A real etcd on loopback, as Debian packages it (``etcd-server``), in a directory that is thrown away."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.support.daemons import wait_until


def why_not() -> str:
    """Return why there can be no etcd here; "" if there can."""
    return "" if shutil.which("etcd") else "there is no etcd here (apt-get install etcd-server)"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Etcd:
    """One member, which can be killed and started again on the same port with the same data."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port, self._peer_port = _free_port(), _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Base URL of its JSON gateway."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        client, peer = self.url, f"http://127.0.0.1:{self._peer_port}"
        with (self.root / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "etcd", "--data-dir", str(self.root / "data"), "--name", "one",
                    "--listen-client-urls", client, "--advertise-client-urls", client,
                    "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                    "--initial-cluster", f"one={peer}", "--unsafe-no-fsync",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(self._answers, "etcd to answer", 30)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.root / "etcd.log").read_text("utf-8", "replace")[-2000:]
        try:
            return self.ask("/v3/kv/range", {"key": b64("probe")}) is not None
        except (OSError, ValueError, http.client.HTTPException):
            return False

    def kill(self) -> None:
        """End it as a crash would. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send one request; fails unless it answers 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            found = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise OSError(f"etcd answered {answer.status}: {found}")
        return found

    def put(self, key: str, value: str | bytes) -> int:
        """Write one key; return the revision."""
        return int(self.ask("/v3/kv/put", {"key": b64(key), "value": b64(value)})["header"]["revision"])

    def put_many(self, pairs: dict[str, str | bytes]) -> None:
        """Write many keys, a hundred at a time."""
        items = list(pairs.items())
        for start in range(0, len(items), 100):
            ops = [{"request_put": {"key": b64(k), "value": b64(v)}} for k, v in items[start : start + 100]]
            self.ask("/v3/kv/txn", {"success": ops})

    def delete(self, key: str) -> None:
        """Remove one key."""
        self.ask("/v3/kv/deleterange", {"key": b64(key)})

    def compact(self, revision: int) -> None:
        """Forget everything before a revision."""
        self.ask("/v3/kv/compaction", {"revision": str(revision)})

    def all(self, prefix: str) -> dict[str, bytes]:
        """Return everything below a prefix that ends in a slash."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = self.ask("/v3/kv/range", {"key": b64(prefix), "range_end": b64(end)})
        return {
            base64.b64decode(kv["key"]).decode("utf-8", "replace"): base64.b64decode(kv.get("value", ""))
            for kv in found.get("kvs", [])
        }


def b64(value: str | bytes) -> str:
    """Return what etcd's gateway takes for bytes."""
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
