"""From text to vector: the built-in embedder, a local sentence model, and endpoints of others, behind one Protocol."""
