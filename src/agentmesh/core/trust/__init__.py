"""How far others are to be trusted: evidence, EigenTrust over what others saw, and the score from both (docs/spec/trust.md)."""
