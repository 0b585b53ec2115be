"""Publish and subscribe at one node (docs/spec/topics.md)."""
