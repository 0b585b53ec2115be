"""Bridges: agents of other registries (etcd, Consul) come into the mesh, and agents beside this node go out to them."""
