"""``make demo``: the guide's server on a free port, its grpcio client, and a clean stop.

The server is started as a user starts it, with ``trio-serve run config.yaml``; the client is
``client.py``, which is grpcio and nothing of ours.  Ends with exit code 0 when both did.
"""

import pathlib
import signal
import socket
import subprocess
import sys
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
    command = [sys.executable, "-m", "trio_serve", "run", "config.yaml", "--grpc-port", str(port)]
    print(f"$ trio-serve run config.yaml --grpc-port {port}")
    server = subprocess.Popen(command, cwd=HERE)
    try:
        wait_until_it_answers(server, f"127.0.0.1:{port}")
        print(f"\n$ python client.py 127.0.0.1:{port}")
        client.main(f"127.0.0.1:{port}")
    finally:
        print("\nStopping the server (SIGTERM drains it).")
        server.send_signal(signal.SIGTERM)
        exit_code = server.wait(timeout=30)
    print(f"The server ended with exit code {exit_code}.")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
