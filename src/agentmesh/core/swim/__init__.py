"""SWIM with Lifeguard: who of the neighbours lives (docs/spec/swim.md)."""
