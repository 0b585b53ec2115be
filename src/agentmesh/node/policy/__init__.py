"""Who may call what at this node (docs/reference/policy.md): ``policy.Policy`` decides, ``check.PolicyCheck`` asks it.

Nothing here is loaded from disk, and no engine is imported, before there is a file in ``$AGENTMESH_HOME/policies``.
"""
