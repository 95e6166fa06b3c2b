"""``make demo``: the guide's server on a free port, its grpcio client, and a clean stop.

The server is started as a user starts it, with ``trio-serve run config.yaml``; the client is
``client.py``, which is grpcio and nothing of ours.  Ends with exit code 0 when both did.
"""

import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import client
import grpc

HERE = pathlib.Path(__file__).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_answers(server: subprocess.Popen[bytes], target: str) -> None:
    """Return when a first rpc has been answered OK; give up when the server has ended or a minute is over."""
    give_up = time.monotonic() + 60
    with grpc.insecure_channel(target) as channel:
        healthz = channel.unary_unary("/ray.serve.RayServeAPIService/Healthz")
        while True:
            try:
                healthz(b"")
                return
            except grpc.RpcError:
                if server.poll() is not None or time.monotonic() > give_up:
                    raise
                time.sleep(0.02)


def main() -> int:
    port = free_port()
    arguments = ["run", "config.yaml", "--grpc-port", str(port), "--port", "0"]
    print(f"$ trio-serve {' '.join(arguments)}")
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen([sys.executable, "-m", "trio_serve", *arguments], cwd=HERE, stderr=log)
        try:
            wait_until_it_answers(server, f"127.0.0.1:{port}")
            print(f"\n$ python client.py 127.0.0.1:{port}")
            client.main(f"127.0.0.1:{port}")
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
