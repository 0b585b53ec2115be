"""Federation at one node: what partners may see (``rules``, ``exports``), how they ask (``desk``), what this node takes from
others (``imports``, ``pages``), and all of it together (``federation``). docs/spec/federation.md."""
