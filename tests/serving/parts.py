"""Deployments that tell of their lives, for the tests of what begins and ends them."""

from typing import Any

import trio

from trio_serve.serving.deployment import deployment

LOG: list[str] = []


@deployment(max_ongoing_requests=100)
class Part:
    """Tells of its life, and takes its time over it."""

    def __init__(self, name: str, *inner: Any) -> None:
        self.name, self.inner = name, inner
        LOG.append(f"{name} begins")

    def __del__(self) -> None:
        LOG.append(f"{self.name} ends")

    async def __call__(self, seconds: float = 0) -> str:
        await trio.sleep(seconds)
        for each in self.inner:
            await each.remote(seconds)
        return self.name


@deployment
class Broken:
    def __init__(self, *inner: Any) -> None:
        LOG.append("Broken begins")
        raise KeyError("no such file") from ValueError("cause")


@deployment(user_config={"word": "first"})
class Configured:
    def __init__(self) -> None:
        LOG.append("Configured begins")

    async def reconfigure(self, config: Any) -> None:
        LOG.append(f"reconfigure {config['word']}")
        if config["word"] == "bad":
            raise ValueError("a bad word")
        self.word = config["word"]

    async def __call__(self) -> Any:
        return self.word


async def under_load(controller: Any, change: Any, seconds: float = 0.5) -> set[Any]:
    """Make calls all the time while ``change`` happens; any failure fails the test."""
    answers: set[Any] = set()
    over = False

    async def call() -> None:
        handle = controller.get_app_handle("default")
        while not over:
            answers.add(await handle.remote(seconds))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(call)
        await trio.sleep(2.1)
        await change
        await trio.sleep(2.1)
        over = True
    return answers
