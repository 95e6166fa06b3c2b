"""``python -m trio_serve``: the command line."""

from trio_serve.cli import main

main(prog_name="trio-serve")
