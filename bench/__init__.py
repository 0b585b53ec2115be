"""Measurements of this project against goals and rivals: ``python -m bench [NAME …] [--json]`` from the project's root.

Each module named in ``__main__.NAMES`` has ``run() -> list[dict]`` with rows ``what, value, unit, goal, rival, rival_value,
ratio`` (``ratio`` = value / rival_value; a rival is measured in the same run). Nothing here is asserted in tests.
"""
