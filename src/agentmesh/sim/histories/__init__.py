"""What clients asked and heard, and judges of it: linearizable, causal, regular, converged (docs/spec/state.md §4)."""
