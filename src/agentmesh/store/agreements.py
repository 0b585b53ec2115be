"""The agreement keys of one agent on disk: a small file that only its owner can read, beside the agent's own key.

One line per key: when it was drawn, after which second nothing is sealed to it, and the secret. The file is written anew when a
key is drawn; those whose time is over are not written again, and that is how they are destroyed. (What a disk or a backup keeps
of former files is out of reach here.)
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from agentmesh.errors import ConfigError
from agentmesh.identity.agreement import KEEP_S, ROTATE_S, SECRET_BYTES, AgreementKey
from agentmesh.identity.claims import SECONDS_MAX
from agentmesh.store.keyfile import load_secret, replace_secret

#: Keys of one agent; with a manifest life of a week and a new key every 12 hours there are 32.
KEYS_MAX = 64
_HEADER = "agentmesh x25519 keys v1"
_LINE = re.compile(r"([0-9]{1,12}) ([0-9]{1,12}) ([0-9a-f]{64})", re.ASCII)
_FILE_BYTES_MAX = 16 * 1024
#: A key drawn so far ahead of our clock was drawn by another clock: it would never be replaced.
_AHEAD_S_MAX = 7_200


class AgreementFile:
    """Read on first use.

    Args:
        path: The file.
    """

    __slots__ = ("_keys", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: list[AgreementKey] | None = None

    def current(self, now: int, life_s: int) -> AgreementKey:
        """Return the key to name in a manifest that is signed now; a new one if the last is old. It is on disk first.

        Args:
            now: Unix second.
            life_s: How long the manifest is valid.

        Raises:
            ConfigError: others can read the file, or it is none (codes "agreement.permissions", "agreement.unreadable",
                "agreement.malformed"). It is as it was.
            Full: it cannot be written. It is as it was, and no key was drawn.
        """
        keys = self._load()
        newest = keys[-1] if keys else None
        if newest and newest.made - _AHEAD_S_MAX <= now < newest.made + ROTATE_S and now + life_s <= newest.exp:
            return newest
        drawn = AgreementKey(secrets.token_bytes(SECRET_BYTES), now, now + ROTATE_S + life_s)
        kept = [*(key for key in keys if now <= key.exp + KEEP_S), drawn][-KEYS_MAX:]
        lines = [f"{key.made} {key.exp} {key.secret.hex()}" for key in kept]
        replace_secret(self._path, "\n".join([_HEADER, *lines, ""]))
        self._keys = kept
        return drawn

    def secrets(self, now: int) -> dict[str, bytes]:
        """Return the private keys by kid to which mail may still come. Raises ConfigError."""
        return {key.kid: key.secret for key in self._load() if now <= key.exp + KEEP_S}

    def _load(self) -> list[AgreementKey]:
        if self._keys is None:
            try:
                text = load_secret(self._path, "agreement", _FILE_BYTES_MAX)
            except FileNotFoundError:
                text = _HEADER
            header, *lines = text.removesuffix("\n").split("\n")
            found = [_LINE.fullmatch(line) for line in lines]
            if header != _HEADER or not all(found) or len(found) > KEYS_MAX:
                raise ConfigError(
                    f"{self._path} is no file of agreement keys",
                    code="agreement.malformed",
                    why="mail that was sealed to its keys can be opened with them only",
                    hint=f"put the right file back, or let new keys be drawn:   mv {self._path} {self._path}.old",
                )
            self._keys = [
                AgreementKey(bytes.fromhex(line[3]), int(line[1]), min(int(line[2]), SECONDS_MAX))
                for line in found
                if line
            ]
        return self._keys
