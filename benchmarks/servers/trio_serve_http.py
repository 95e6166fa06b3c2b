"""trio_serve's HTTP proxy, access log off: a deployment under /plain, a FastAPI ingress under /fastapi."""

from typing import Any

import trio

import trio_serve as serve
from benchmarks.servers.fastapi_app import app
from trio_serve.config import LoggingConfig

ROOM = 20_000


@serve.deployment(max_ongoing_requests=ROOM)
class Plain:
    async def __call__(self, request: Any) -> str:
        return f"Hello, {request.query_params['name']}!"


@serve.deployment(max_ongoing_requests=ROOM)
@serve.ingress(app)
class Ingress:
    pass


async def main() -> None:
    quiet = LoggingConfig(enable_access_log=False)
    async with serve.open_instance(http_options={"port": 0}, logging_config=quiet) as instance:
        await instance.run(Plain.bind(), name="plain", route_prefix="/plain")
        await instance.run(Ingress.bind(), name="fastapi", route_prefix="/fastapi")
        print("ready", instance.http_port, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
