"""What a type checker makes of user code: the sample passes ``mypy --strict``, and its mistakes are found."""

import pathlib
import re

import mypy.api

SAMPLE = """
from collections.abc import AsyncIterator

import trio_serve as serve
from trio_serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator


@serve.deployment
class Words:
    async def count(self, text: str) -> int:
        return len(text.split())

    async def each(self, text: str) -> AsyncIterator[str]:
        for word in text.split():
            yield word


@serve.deployment(num_replicas=2)
class Counter:
    def __init__(self, words: DeploymentHandle, counted: DeploymentHandle[DeploymentResponse[int]]) -> None:
        self.words = words
        self.counted = counted

    async def __call__(self, text: str) -> int:
        first = await self.counted.count.remote(text)
        reveal_type(first)
        reveal_type(self.words.count.remote(text))
        stream = self.words.options(stream=True).each
        reveal_type(stream.remote(text))
        reveal_type(stream.options(timeout_s=1).remote(text))
        reveal_type(stream.options(stream=False).remote(text))
        async for word in stream.remote(text):
            first += len(word)
        return first

    @serve.batch(max_batch_size=4)
    async def many(self, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    @serve.multiplexed
    async def model(self, model_id: str) -> float:
        return 0.5

    async def shared(self, text: str) -> float:
        reveal_type(await self.many(text))
        return await self.model(text)


@serve.deployment
async def shout(text: str) -> str:
    return text.upper()


class Plain:
    pass


application = Counter.options(num_replicas=3).bind(Words.bind(), Words.bind())
reveal_type(application)
reveal_type(shout.bind())
reveal_type(serve.deployment(Plain).bind())
handle: DeploymentHandle[DeploymentResponse[int]] = serve.run(application)
reveal_type(handle.remote("a b").result(timeout_s=1))
"""

REVEALED = [
    "int",
    "DeploymentResponse[Any]",
    "DeploymentResponseGenerator[Any]",
    "DeploymentResponseGenerator[Any]",
    "DeploymentResponse[Any]",
    "int",
    "Application",
    "Application",
    "Application",
    "int",
]

MISTAKES = {
    "Counter.bnd()": 'has no attribute "bnd"',
    "handle.remote().resutl()": 'has no attribute "resutl"',
    "handle.options(timeout=3)": 'did you mean "timeout_s"?',
    "serve.deployment(num_replicas='many')": 'No overload variant of "deployment"',
    "text: str = handle.remote().result()": "Incompatible types in assignment",
}


def check(tmp_path: pathlib.Path, text: str) -> list[str]:
    """mypy's words on a user's file, without their place and its paths."""
    (tmp_path / "app.py").write_text(text)
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = True\nplugins = trio_serve.mypy_plugin\n")
    flags = ["--config-file", str(tmp_path / "mypy.ini"), "--cache-dir", str(tmp_path / "cache")]
    told, errors, _ = mypy.api.run([*flags, "--follow-imports", "silent", str(tmp_path / "app.py")])
    assert errors == ""
    return [
        line.partition("app.py:")[2].partition(": ")[2] for line in told.splitlines() if "app.py:" in line
    ]


def test_what_users_write_has_types(tmp_path: pathlib.Path) -> None:
    told = check(tmp_path, SAMPLE + "\n".join(MISTAKES))

    revealed = [line.partition('"')[2].rstrip('"') for line in told if "Revealed type" in line]
    assert [re.sub(r"\b[a-z_]+\.", "", name) for name in revealed] == REVEALED
    errors = [line for line in told if line.startswith("error")]
    assert len(errors) == len(MISTAKES), errors
    for found, expected in zip(errors, MISTAKES.values(), strict=True):
        assert expected in found
