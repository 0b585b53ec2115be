"""The part of a node that says who may do what here, grants it, and tells whom it trusts."""

from __future__ import annotations

from agentmesh.identity.claims import hash_of
from agentmesh.node.parts import Parts
from agentmesh.node.policy.explain import Explainer
from agentmesh.wire.policy import PolicyView, RulingView
from agentmesh.wire.proof_views import GrantRequest, GrantView
from agentmesh.wire.trust_views import TrustView


class RulingHost(Parts):
    """What ``Node`` rules on callers and agents; nothing but ``Node`` inherits it."""

    async def policy_view(self) -> PolicyView:
        """Return who may call what here (see ``Explainer.view``)."""
        return self._explainer().view()

    async def explain_policy(self, caller: str, callee: str, skill: str, purpose: str) -> RulingView:
        """Say whether a call would pass, and why (see ``Explainer.explain``)."""
        return self._explainer().explain(caller, callee, skill, purpose)

    def _explainer(self) -> Explainer:
        brain = self._brain
        return Explainer(self.node_id, self.policy, brain, self.name_of, lambda: [c.node_id for c in brain.contacts()])

    async def grant(self, request: GrantRequest) -> GrantView:
        """Make a grant (see ``Grants.make``); it is in the audit log when it is told. Raises ReadOnly, StoreError too."""
        self.switch.refuse()
        view = self._grants.make(request)
        leaf = hash_of(view.chain[-1])
        await self.audit.note("grant", view.maker, holder=view.holder, scopes=view.scopes, until=view.exp, grant=leaf)
        return view

    def trust_in(self, ref: str) -> TrustView:
        """Return what this node thinks of an agent or node, and why (see ``Trust.show``)."""
        return self.trust.show(ref)

    async def report_abuse(self, ref: str, reason: str) -> TrustView:
        """Hold a person's report against an agent or node (see ``Trust.report``), and write that down."""
        view = self.trust.report(ref, reason)
        await self.audit.note("report", view.subject, event="abuse", name=view.name)
        return view
