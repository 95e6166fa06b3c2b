"""Long runs: the same things a very great number of times, and then nothing is left.

Seconds by default; ``TRIO_SERVE_SOAK=1`` (``make soak``) runs them in full.
"""
