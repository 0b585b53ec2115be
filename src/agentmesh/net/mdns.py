"""Hear of nodes on the LAN by mDNS and DNS-SD (RFC 6762, 6763): address hints, never trust.

Each node announces ``<key>._agentmesh._tcp.local.`` with a TXT record: ``v=1``, ``id`` = its did:key, ``n`` = its name for
people, ``a0`` … ``a7`` = its addresses with their scheme. Whatever is heard is handed on as a hint; the transport proves
the key, so a forged announcement wastes a dial and nothing else. docs/spec/contacts.md §5.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentmesh.errors import Busy, MeshError, NoRoute
from agentmesh.ids import NodeId, parse_node_id
from agentmesh.net.tasks import TaskScope

if TYPE_CHECKING:
    from zeroconf import ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

SERVICE_TYPE = "_agentmesh._tcp.local."
#: Nodes listened to at once; a flood of made-up services costs no more than this.
SERVICES_MAX = 512
ADDRESSES_MAX = 8
_RESOLVE_MS = 3000
_RESOLVES_AT_ONCE = 32
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{0,15}:[!-~]{1,200}")
_HOST = re.compile(r"[a-z0-9+.-]+:(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):[0-9]+")
_log = logging.getLogger("agentmesh.mdns")

OnHint = Callable[[NodeId, list[str]], None]


def txt_of(node_id: NodeId, name: str, addresses: Sequence[str]) -> dict[str, str]:
    """Return the TXT members that announce a node; each fits the 255 bytes of one."""
    fit = [address for address in addresses if _ADDRESS.fullmatch(address)][:ADDRESSES_MAX]
    short_name = name.encode()[:63].decode(errors="ignore")
    return {"v": "1", "id": node_id, "n": short_name, **{f"a{i}": address for i, address in enumerate(fit)}}


def hint_of(txt: Mapping[bytes, bytes | None]) -> tuple[NodeId, list[str]] | None:
    """Read the TXT members of an announcement; None if they are not ours or make no sense.

    Args:
        txt: As heard from anybody on the LAN.
    """
    if txt.get(b"v") != b"1":
        return None
    try:
        node = parse_node_id((txt.get(b"id") or b"").decode("ascii"))
    except (UnicodeDecodeError, MeshError):
        return None
    addresses: list[str] = []
    for i in range(ADDRESSES_MAX):
        address = (txt.get(b"a%d" % i) or b"").decode("ascii", errors="replace")
        if _ADDRESS.fullmatch(address) and address not in addresses:
            addresses.append(address)
    return (node, addresses) if addresses else None


def hosts_of(addresses: Sequence[str]) -> list[str]:
    """Return the IP addresses inside transport addresses, each once, in order; named hosts are left out."""
    found = [match for address in addresses if (match := _HOST.fullmatch(address))]
    return list(dict.fromkeys(match[1] or match[2] for match in found))


class Mdns:
    """Announce this node on the LAN and hear of others.

    Args:
        node_id: This node.
        name: Its name for people.
        port: Where it can be dialled, for tools that show DNS-SD services.
        addresses: Its transport addresses, most useful first; ``ADDRESSES_MAX`` are announced.
        on_hint: Called on the event loop with (node, addresses) whenever an announcement of another node is heard.
        interfaces: IP addresses of the interfaces to use; all when None.
    """

    def __init__(
        self,
        node_id: NodeId,
        name: str,
        port: int,
        addresses: Sequence[str],
        on_hint: OnHint,
        *,
        interfaces: list[str] | None = None,
    ) -> None:
        self.node_id = node_id
        self._name = name
        self._port = port
        self._addresses = list(addresses)
        self._on_hint = on_hint
        self._interfaces = interfaces
        self._scope = TaskScope("mdns", tasks_max=_RESOLVES_AT_ONCE)
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._seen: dict[str, None] = {}
        self._full_told = False

    async def open(self) -> None:
        """Start to listen, and to announce in the background.

        Raises:
            NoRoute: multicast does not work here (code "mdns.unavailable"). Nothing is left open.
        """
        # Loaded here: a node without mDNS does not pay for it.
        from zeroconf import InterfaceChoice
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

        try:
            self._zeroconf = AsyncZeroconf(interfaces=self._interfaces or InterfaceChoice.All)
        except (OSError, RuntimeError) as error:
            raise NoRoute(
                f"multicast does not work here: {error}",
                code="mdns.unavailable",
                why="no interface lets this process join the mDNS group (container, VPN or firewall)",
                hint="name one node with --seed did:key:…@host:port; peers then tell each other of the rest",
            ) from error
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._on_change])
        self._scope.spawn(self._announce(self._zeroconf), "announce")

    async def aclose(self) -> None:
        """Withdraw the announcement and stop listening. Idempotent."""
        await self._scope.aclose()
        browser, self._browser = self._browser, None
        zeroconf, self._zeroconf = self._zeroconf, None
        if browser is not None:
            await browser.async_cancel()
        if zeroconf is not None:
            try:
                await zeroconf.async_unregister_all_services()
            finally:
                await zeroconf.async_close()

    def _service(self) -> AsyncServiceInfo:
        from zeroconf.asyncio import AsyncServiceInfo

        label = self.node_id.removeprefix("did:key:")
        return AsyncServiceInfo(
            SERVICE_TYPE,
            f"{label}.{SERVICE_TYPE}",
            port=self._port,
            properties=txt_of(self.node_id, self._name, self._addresses),
            server=f"{label}.local.",
            parsed_addresses=hosts_of(self._addresses)[:ADDRESSES_MAX],
        )

    async def _announce(self, zeroconf: Any) -> None:
        from zeroconf import Error

        try:
            told = await zeroconf.async_register_service(self._service())
            await told
        except (Error, OSError) as error:
            _log.warning("this node is not announced on the LAN: %s", error or type(error).__name__)

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """Look at an announcement; called on the event loop."""
        from zeroconf import ServiceStateChange

        if state_change is ServiceStateChange.Removed:
            self._seen.pop(name, None)
            return
        if name.startswith(self.node_id.removeprefix("did:key:")):
            return
        if name not in self._seen and len(self._seen) >= SERVICES_MAX:
            if not self._full_told:
                self._full_told = True
                _log.warning("more than %d mesh services on this LAN; the rest is not looked at", SERVICES_MAX)
            return
        self._seen[name] = None
        try:
            self._scope.spawn(self._resolve(zeroconf, service_type, name), "resolve")
        except Busy:
            # Too many at once: forgotten here, so that its next announcement is looked at.
            self._seen.pop(name, None)

    async def _resolve(self, zeroconf: Any, service_type: str, name: str) -> None:
        from zeroconf.asyncio import AsyncServiceInfo

        info = AsyncServiceInfo(service_type, name)
        if await info.async_request(zeroconf, _RESOLVE_MS):
            self._heard(info.properties)

    def _heard(self, txt: Mapping[bytes, bytes | None]) -> None:
        hint = hint_of(txt)
        if hint is not None and hint[0] != self.node_id:
            self._on_hint(*hint)
