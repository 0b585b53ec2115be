"""How well agents are found by what they say they do: a set of agents and needs, the metrics, and rivals to compare with.

``agents.jsonl`` and ``queries.jsonl`` were written before anything was tuned; what is marked ``"split": "test"`` is for
measuring only. ``python -m bench discovery --help`` says what can be asked.
"""
