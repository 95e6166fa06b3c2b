"""How fast, how big: trio_serve beside its peers, in one run.  ``python -m benchmarks --help``."""
