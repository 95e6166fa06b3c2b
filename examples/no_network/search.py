"""Deployments that call each other, with no port open: python search.py

Search ──> Ranker       for each text, all at the same time
   └─────> Writer       a stream of what is left, written as it is read
"""

from collections.abc import AsyncIterator

import trio

import trio_serve as serve
from trio_serve.handle import DeploymentHandle


@serve.deployment(max_ongoing_requests=100)
class Ranker:
    """Ranks many texts at once, as a model would."""

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)
    async def rank(self, texts: list[str]) -> list[int]:
        return [text.count("trio") for text in texts]


@serve.deployment
class Writer:
    async def write(self, texts: list[str]) -> AsyncIterator[str]:
        for number, text in enumerate(texts, 1):
            yield f"{number}. {text}"


@serve.deployment(num_replicas=2)
class Search:
    def __init__(self, ranker: DeploymentHandle, writer: DeploymentHandle) -> None:
        self.ranker = ranker
        self.writer = writer.options(stream=True)

    async def find(self, texts: list[str]) -> AsyncIterator[str]:
        ranks = [self.ranker.rank.remote(text) for text in texts]
        ranked = sorted([(await rank, text) for rank, text in zip(ranks, texts, strict=True)], reverse=True)
        async for line in self.writer.write.remote([text for rank, text in ranked if rank]):
            yield line


app = Search.bind(Ranker.bind(), Writer.bind())


async def main() -> None:
    async with serve.open_instance() as instance:
        search = await instance.run(app)
        texts = ["tea", "trio", "trio and trio"]
        async for line in search.options(stream=True).find.remote(texts):
            print(line)


if __name__ == "__main__":
    trio.run(main)
