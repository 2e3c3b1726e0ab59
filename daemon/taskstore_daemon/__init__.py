"""The daemon of one store: keeps the cache hot and serves JSON-RPC over a Unix socket."""
