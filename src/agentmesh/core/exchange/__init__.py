"""Peer exchange: who is connected, who else is known, whom to dial next (docs/spec/exchange.md)."""
