"""Three toy agents for ``agentmesh demo`` and for trying things out; each runs as ``python -m agentmesh.sdk.toys.NAME``.

reviewer ──► calc ──► echo        none needs an API key
"""
