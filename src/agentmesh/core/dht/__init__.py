"""Kademlia: provider records under 256-bit keys, kept by the nodes nearest to each key (docs/spec/dht.md)."""
