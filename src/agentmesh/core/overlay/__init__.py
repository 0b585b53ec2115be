"""The overlay: who is whose neighbour. A zone of near keys, and long links across the mesh (docs/spec/overlay.md)."""
