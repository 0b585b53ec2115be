"""Whose program has the other end of a connection on this machine, as the Linux kernel tells in /proc/net/tcp.

A link that is handed to a browser on its command line can be read there by every user of the machine. Bound to one user, it
opens nothing for the others. Where the kernel does not tell (other systems), a link is as good as its secrecy.
"""

from __future__ import annotations

import ipaddress
import sys

_FILES = ("/proc/net/tcp", "/proc/net/tcp6")
#: Most that is read of one file, bytes; a line has 150.
_BYTES_MAX = 16 * 1024 * 1024
_ESTABLISHED = b"01"


def owner_of(client: tuple[str, int] | None, server: tuple[str, int] | None) -> int | None:
    """Return the user id of whoever opened a connection to us; None if nothing tells. Blocks on the kernel for some ms.

    Args:
        client, server: Both ends, as an ASGI scope names them.
    """
    if client is None or server is None:
        return None
    try:
        wanted = {(far, near) for far, near in zip(_spelled(*client), _spelled(*server), strict=True)}
    except ValueError:
        return None
    for name in _FILES:
        try:
            with open(name, "rb") as file:
                lines = file.read(_BYTES_MAX).splitlines()
        except OSError:
            continue
        for line in lines[1:]:
            parts = line.split(None, 8)
            if len(parts) > 8 and parts[3] == _ESTABLISHED and (parts[1], parts[2]) in wanted and parts[7].isdigit():
                return int(parts[7])
    return None


def _spelled(host: str, port: int) -> tuple[bytes, bytes]:
    """Return an end as the kernel writes it: as it is, and as an IPv4 address within IPv6."""
    address = ipaddress.ip_address(host)
    tail = b":%04X" % port
    if address.version == 6:
        end = _words(address.packed) + tail
        return end, end
    mapped = bytes(10) + b"\xff\xff" + address.packed
    return _words(address.packed) + tail, _words(mapped) + tail


def _words(packed: bytes) -> bytes:
    """Write an address as 32-bit words in the byte order of this machine."""
    words = (packed[i : i + 4] for i in range(0, len(packed), 4))
    return b"".join(b"%08X" % int.from_bytes(word, sys.byteorder) for word in words)
