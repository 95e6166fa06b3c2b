"""A shop over HTTP: a plain deployment, a composition that streams, and FastAPI with class-based views.

$ trio-serve run shop:prices  --route-prefix /prices
$ trio-serve run shop:report --route-prefix /report
$ trio-serve run shop:shop
$ curl 'localhost:8000/double/21?plus=1'
"""

from collections.abc import AsyncIterator

import trio
from fastapi import FastAPI, WebSocket
from starlette.requests import Request

import trio_serve as serve
from trio_serve.handle import DeploymentHandle


@serve.deployment
class Prices:
    """What a method returns becomes the response: here JSON."""

    async def __call__(self, request: Request) -> dict[str, float]:
        item = request.query_params.get("item", "tea")
        return {item: await self.of(item)}

    async def of(self, item: str) -> float:
        return 2.5 + len(item)


@serve.deployment
class Report:
    """A generator is sent as it goes; it pauses while the client does not read, and ends when it leaves."""

    def __init__(self, prices: DeploymentHandle) -> None:
        self.prices = prices

    async def __call__(self, request: Request) -> AsyncIterator[str]:
        for item in ("tea", "coffee", "cake"):
            yield f"{item}: {await self.prices.of.remote(item)}\n"
            await trio.sleep(0.2)


app = FastAPI()


@serve.deployment
@serve.ingress(app)
class Shop:
    """Routes are methods; ``self`` is the replica's instance."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    @app.get("/double/{number}")
    async def double(self, number: int, plus: int = 0) -> int:
        return number * self.factor + plus

    @app.websocket("/echo")
    async def echo(self, socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text * self.factor)


prices = Prices.bind()
report = Report.bind(Prices.bind())
shop = Shop.bind(2)
