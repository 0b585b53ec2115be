"""Messages between agents: what one is, and the machine that carries them (docs/spec/courier.md)."""
