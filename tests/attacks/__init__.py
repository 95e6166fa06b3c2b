"""A real server process, an attacker that writes raw bytes, and a well-behaved client beside it.

Each attack has a bound on the memory that it costs the server, and the client beside it must lose no call.
Sizes are small by default; ``TRIO_SERVE_SOAK=1`` (``make soak``) runs them in full.  Times are printed, never
judged.
"""
