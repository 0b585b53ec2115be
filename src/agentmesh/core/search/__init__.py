"""Discovery by meaning: what is searched, and the order of answers. Pure; the index is in ``store``, the vectors come from ``embed``."""
