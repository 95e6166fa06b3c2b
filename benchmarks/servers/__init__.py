"""One program a peer: it serves benchmarks.Greeter on a free loopback port and prints ``ready PORT``."""
