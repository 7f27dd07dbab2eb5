"""The audit: what every request came to, in SQLite or PostgreSQL.

`writer.Writer` is the sink, `hashing.hasher` makes what hashes images for it, `read.open_reader` what lists and
exports. Nothing is imported here: the configuration needs `settings` only.
"""
