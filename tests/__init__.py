"""The tests, importable as `tests.*` so that they can share datasets and loopback servers."""
