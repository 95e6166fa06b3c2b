"""The FastAPI application on hypercorn's Trio worker."""

import socket
import sys

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from benchmarks.servers.fastapi_app import app


async def main() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    config = Config()
    config.bind = [f"fd://{listening.fileno()}"]
    config.errorlog = None
    config.keep_alive_max_requests = sys.maxsize  # the load keeps its connections, as with all the others
    print("ready", listening.getsockname()[1], flush=True)
    await serve(app, config)  # type: ignore[arg-type]  # FastAPI writes ASGI's types in its own way


if __name__ == "__main__":
    trio.run(main)
