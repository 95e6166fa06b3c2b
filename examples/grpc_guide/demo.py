"""``make demo``: the guide's server on a free port, its grpcio client, and a clean stop.

The server is started as a user starts it, with ``trio-serve run config.yaml``; the client is
``client.py``, which is grpcio and nothing of ours.  Ends with exit code 0 when both did.
"""

import pathlib
import signal
import subprocess
import sys
import tempfile

import client

HERE = pathlib.Path(__file__).parent


def addresses_of(server: subprocess.Popen[str]) -> dict[str, str]:
    """Where the server listens, by protocol: it prints a line for each open port once it serves."""
    assert server.stdout is not None
    addresses = {}
    while "http" not in addresses and (line := server.stdout.readline()):
        print(line, end="")
        protocol, addresses[protocol] = line.split()
    return addresses


def main() -> int:
    arguments = ["run", "config.yaml", "--grpc-port", "0", "--port", "0"]
    print(f"$ trio-serve {' '.join(arguments)}")
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "trio_serve", *arguments],
            cwd=HERE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            target = addresses_of(server).get("grpc")
            if target is not None:
                print(f"\n$ python client.py {target}")
                client.main(target)
        finally:
            server.send_signal(signal.SIGTERM)
            exit_code = server.wait(timeout=30)
            log.seek(0)
            print("\nThe server was sent SIGTERM, drained, and has written this log:\n")
            print(log.read())
    print(f"The server ended with exit code {exit_code}.")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
