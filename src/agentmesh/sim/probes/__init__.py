"""Measures: what a scenario observes from outside while the world runs (docs/spec/simulator.md §8)."""
