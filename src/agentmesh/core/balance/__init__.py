"""Which replica of an agent takes a call: strategies, circuit breakers, and a budget for retries. Pure."""
