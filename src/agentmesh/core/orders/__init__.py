"""Signed orders of operators: kept, compared and passed on (docs/spec/orders.md)."""
