"""Pulling from the seeds of other meshes: what to ask for when, and what of the answers to keep (docs/spec/federation.md §5)."""
