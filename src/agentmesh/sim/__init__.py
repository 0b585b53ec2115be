"""The deterministic simulator: thousands of brains in one process, a virtual clock, hostile networks (docs/spec/simulator.md).

It drives the very ``core.brain.Brain`` that the daemon drives and does for it what the daemon's node does: carry messages,
sign records, fire timers. Run it as ``python -m agentmesh.sim``. Nothing here reads a clock or draws chance that the
seed does not give; only ``__main__`` measures how long a run takes.
"""
