"""Shared state at one node: spaces, their replicas, and the engine of what must be linearisable (docs/spec/state.md)."""
