"""A zoo of models for the tests of multiplexing: its log tells what was loaded and unloaded."""

import contextvars
from typing import Any

import trio

from trio_serve.actors import Envelope
from trio_serve.serving.multiplexing import multiplexed
from trio_serve.serving.request_context import RequestContext


class Zoo:
    """Loads models; keeps a log of what was loaded and unloaded."""

    def __init__(self, load_s: float = 0) -> None:
        self.load_s = load_s
        self.log: list[str] = []
        self.loading = self.most_loading = 0

    async def load(self, model_id: str) -> "Model":
        self.log.append(f"+{model_id}")
        self.loading += 1
        self.most_loading = max(self.loading, self.most_loading)
        try:
            await trio.sleep(self.load_s)
        except trio.Cancelled:
            self.log.append(f"x{model_id}")
            raise
        finally:
            self.loading -= 1
        if "bad" in model_id:
            raise ValueError(f"no model {model_id}")
        return Model(model_id, self.log)

    @multiplexed(max_num_models_per_replica=2)
    async def get(self, model_id: str) -> "Model":
        return await self.load(model_id)

    @multiplexed
    async def get_one_of_three(self, model_id: str) -> "Model":
        return await self.load(model_id)

    @multiplexed(max_num_models_per_replica=-1)
    async def get_any(self, model_id: str) -> "Model":
        return await self.load(model_id)

    @multiplexed(max_num_models_per_replica=1)
    async def get_slow_to_go(self, model_id: str) -> "SlowModel":
        self.log.append(f"+{model_id}")
        return SlowModel(model_id, self.log)


class Model:
    def __init__(self, model_id: str, log: list[str]) -> None:
        self.model_id = model_id
        self.log = log

    def __del__(self) -> None:
        self.log.append(f"-{self.model_id}")


class SlowModel(Model):
    async def __del__(self) -> None:  # type: ignore[override]
        await trio.sleep(5)
        self.log.append(f"-{self.model_id}")


async def get_all(zoo: Zoo, ids: str) -> list[str]:
    return [(await zoo.get(model_id)).model_id for model_id in ids]


def request_for(model_id: str) -> RequestContext:
    """A request under way that asks for a model, with its envelope."""

    class Nowhere:
        def succeed(self, value: Any, /) -> None: ...
        def fail(self, error: BaseException, /) -> None: ...
        async def send(self, item: Any, /) -> None: ...

    request = RequestContext("id", "app", model_id)
    request.envelope = Envelope(None, Nowhere(), contextvars.copy_context())
    return request


def end(request: RequestContext) -> None:
    assert request.envelope is not None
    request.envelope.succeed(None)
    request.envelope.release()
