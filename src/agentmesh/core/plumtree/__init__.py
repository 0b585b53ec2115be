"""Epidemic broadcast trees with peer scoring (docs/spec/plumtree.md)."""
