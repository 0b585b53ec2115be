"""The locks of the backend double, kept in memory; time does not pass."""

from __future__ import annotations

from agentmesh.errors import Busy, StateError
from agentmesh.wire.state_views import LockList, LockRequest, LockView

OWNER = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"


class LocksDouble:
    """Implements ``api.messaging.Locks``."""

    def __init__(self) -> None:
        self.held: dict[str, LockView] = {}
        self.requests: list[LockRequest] = []
        self._token = 0

    async def acquire(self, name: str, request: LockRequest) -> LockView:
        self.requests.append(request)
        holder, now = request.holder or "node-1", self.held.get(name)
        if now is not None and now.holder != holder:
            raise Busy(f"{now.holder!r} has the lock {name!r}", code="lock.held", extra={"holder": now.holder})
        if now is None:
            if request.renew:
                raise StateError(f"the lock {name!r} is not held", code="lock.lost")
            self._token += 1
        self.held[name] = now or LockView(
            name=name,
            holder=holder,
            node_id=OWNER,
            token=self._token,
            held=True,
            ttl_s=request.ttl_s,
            engine="sqlite:x",
        )
        return self.held[name]

    async def release(self, name: str, holder: str) -> LockView:
        now = self.held.get(name)
        if now is None or now.holder != holder:
            raise StateError(f"the lock {name!r} is not held by {holder!r}", code="lock.lost")
        del self.held[name]
        return LockView(name=name, engine="sqlite:x")

    async def show(self, name: str) -> LockView:
        return self.held.get(name) or LockView(name=name, engine="sqlite:x")

    async def list_locks(self, prefix: str) -> LockList:
        return LockList(
            locks=[self.held[name] for name in sorted(self.held) if name.startswith(prefix)], engine="sqlite:x"
        )
