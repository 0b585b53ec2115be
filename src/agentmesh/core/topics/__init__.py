"""Topics without I/O: subjects and patterns, who may do what, and the judge of publications (docs/spec/topics.md)."""
