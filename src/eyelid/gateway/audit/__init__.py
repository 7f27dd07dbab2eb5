"""The audit: what every request came to, in SQLite or PostgreSQL."""
