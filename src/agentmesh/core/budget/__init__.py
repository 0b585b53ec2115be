"""Who may call an agent now, who waits, and who is told to come back later: pure rules of the guard (docs/spec/guard.md)."""
