"""Discovery by meaning: what is searched, and the order of answers. Pure."""
