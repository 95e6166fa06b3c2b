"""A canary that grows while it serves, sticky by user: `python canary.py`."""

from collections import Counter

import httpx
import trio

import trio_serve as serve


@serve.deployment
class Shop:
    def __init__(self, version):
        self.version = version

    async def __call__(self, request):
        return f"version {self.version}"


app = Shop.bind("1")
canary = Shop.bind("2")


async def main():
    async with serve.open_instance(http_options={"port": 0}) as instance:
        await instance.run(app, name="shop")
        await instance.run(canary, name="shop-canary", route_prefix=None)
        url = f"http://127.0.0.1:{instance.http_port}/"
        async with httpx.AsyncClient() as client:
            for share in (0.0, 0.1, 0.5, 1.0):
                weights = {"shop": 1 - share, "shop-canary": share}
                await instance.set_traffic("shop", weights, sticky="x-user")
                answers = Counter()
                for user in range(100):
                    answers[(await client.get(url, headers={"x-user": f"user-{user}"})).text] += 1
                print(f"{share:4.0%} to the canary:", dict(sorted(answers.items())))


if __name__ == "__main__":
    trio.run(main)
