"""Protocols without I/O: bytes in, meaning out."""
