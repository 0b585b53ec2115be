"""Where nodes are, whom to dial, who sends too much, and whether this node is cut off (docs/spec/contacts.md)."""
