"""The FastAPI application on uvicorn: with h11 on asyncio, or (``--fast``) with httptools on uvloop."""

import argparse
import socket

import uvicorn

from benchmarks.servers.fastapi_app import app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true")
    fast = parser.parse_args().fast
    # asyncio sets TCP_NODELAY only where the socket says that it is TCP; else each answer takes 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    config = uvicorn.Config(
        app,
        http="httptools" if fast else "h11",
        loop="uvloop" if fast else "asyncio",
        access_log=False,
        log_level="warning",
    )
    print("ready", listening.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
