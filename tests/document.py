"""A document's code, used as its reader would use it, from top to bottom and in one folder.

    ```python     pasted into one session; `await` may stand at its top, as in IPython
    ```console    each `$ command` is typed, and prints what stands below it; "..." stands for anything.
                  One that ends in `&` serves on until the document ends, and then ends with exit code 0
    a first line `# shop.py`, `# config.yaml` or `// shop.proto` makes any block a file of that name
    <!-- not run: why -->     before a block that is only shown

The usual ports become free ones.  Left out are `pip`, `make`, and programs that this machine has not.  Every
other block, one without a language above all, is only shown.

python -m tests.document docs/grpc.md        the first difference ends it
"""

import ast
import contextlib
import doctest
import inspect
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs
import trio

from tests.ports import free_port

ROOT = pathlib.Path(__file__).parent.parent
PORT = re.compile(r"\b(8000|8080|9000|50051)\b")
BLOCK = re.compile(
    r"(?P<shown><!-- not run: [^\n]+ -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
FILE_NAME = re.compile(r"(?:#|//) ([\w./]+\.\w+)\n")
NOT_TYPED = ("make", "pip")


@attrs.frozen
class Block:
    """One fenced block; ``line`` is that of its first line in ``document``."""

    document: str
    line: int
    language: str
    code: str

    @property
    def file_name(self) -> str | None:
        named = FILE_NAME.match(self.code)
        return named[1] if named else None

    def write(self, file_name: str) -> None:
        path = pathlib.Path(file_name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.code)


def blocks_of(document: pathlib.Path) -> list[Block]:
    """The blocks of a document that are to be used, in order."""
    text = document.read_text()
    return [
        Block(
            str(document),
            text.count("\n", 0, found.start("code")) + 1,
            found["language"],
            textwrap.dedent(found["code"]),
        )
        for found in BLOCK.finditer(text)
        if not found["shown"]
    ]


def commands_of(block: Block) -> Iterator[tuple[str, str]]:
    """Each command with the output that is to follow it."""
    for command in re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]:
        while "\\\n" in (first := command.partition("\n")[0] + "\n"):
            command = command.replace(first, first[:-2], 1)
        typed, _, printed = command.partition("\n")
        yield typed, printed


class Reader:
    """Uses blocks one after the other, in the working directory."""

    def __init__(self) -> None:
        self._session: dict[str, Any] = {"__name__": "__main__"}
        self._ports = {usual: str(free_port()) for usual in ("8000", "8080", "9000", "50051")}
        os.environ["TRIO_SERVE_PORT"] = self._ports["8000"]
        os.environ["TRIO_SERVE_GRPC_PORT"] = self._ports["9000"]
        os.environ["TRIO_SERVE_END_WITH_PID"] = str(os.getpid())  # an instance that a document starts

    async def use(self, blocks: list[Block]) -> None:
        async with contextlib.AsyncExitStack() as self._until_the_end:
            for block in blocks:
                code = PORT.sub(lambda usual: self._ports[usual[0]], block.code)
                await self._use(attrs.evolve(block, code=code))

    async def _use(self, block: Block) -> None:
        if block.file_name is not None:
            block.write(block.file_name)
        elif block.language == "python":
            await self._paste(block)
        elif block.language == "console":
            for typed, printed in commands_of(block):
                await self._type(typed, printed, f"{block.document}:{block.line}")

    async def _paste(self, block: Block) -> None:
        code = compile(
            "\n" * (block.line - 1) + block.code,
            block.document,
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        waits = eval(code, self._session)
        if inspect.iscoroutine(waits):
            await waits

    async def _type(self, typed: str, printed: str, where: str) -> None:
        program = shlex.split(typed)[0]
        if program in NOT_TYPED or shutil.which(program) is None:
            return
        if typed.endswith("&"):
            serving = _serving(typed[:-1], printed.count("\n"))
            got = await self._until_the_end.enter_async_context(serving)
        else:
            ran = await trio.run_process(
                ["bash", "-c", typed], capture_stdout=True, stderr=subprocess.STDOUT, check=False
            )
            got = ran.stdout.decode()
            assert ran.returncode == 0, f"{where}: {typed} ended with exit code {ran.returncode}:\n{got}"
        _compare(printed, got, f"{where}: $ {typed}")


@contextlib.asynccontextmanager
async def _serving(typed: str, line_count: int) -> AsyncIterator[str]:
    """Run a server for the length of the block; what it prints until it has printed so many lines."""
    process = await trio.lowlevel.open_process(["bash", "-c", f"exec {typed}"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    got = b""
    while got.count(b"\n") < line_count and (data := await process.stdout.receive_some()):
        got += data
    try:
        yield got.decode()
    finally:
        process.send_signal(signal.SIGTERM)
        exit_code = await process.wait()
    assert exit_code == 0, f"{typed} ended with exit code {exit_code}"


def _compare(wanted: str, got: str, where: str) -> None:
    checker = doctest.OutputChecker()
    wanted, got = wanted.rstrip(), got.rstrip()
    if not checker.check_output(wanted, got, doctest.ELLIPSIS):
        difference = checker.output_difference(doctest.Example("", wanted), got, doctest.ELLIPSIS)
        raise AssertionError(f"{where}\n{difference}")


def folder_for(document: pathlib.Path, empty: pathlib.Path) -> pathlib.Path:
    """Where its reader works: an ``empty`` folder, or for an example a copy of its own, beside the protos."""
    home = document.parent
    if home.parent != ROOT / "examples":
        return empty
    shutil.copytree(ROOT / "protos", empty / "protos")
    shutil.copytree(home, empty / "examples" / home.name, ignore=shutil.ignore_patterns("*_pb2*.py"))
    return empty / "examples" / home.name


def main(document: pathlib.Path) -> None:
    """Use ``document`` in a folder of its own, with nothing of the environment that would lead elsewhere."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:
        os.chdir(folder_for(document, pathlib.Path(empty)))
        _use_here(document)


def _use_here(document: pathlib.Path) -> None:
    os.environ["PATH"] = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["XDG_STATE_HOME"] = os.path.abspath("state")
    sys.path.insert(0, os.getcwd())
    trio.run(Reader().use, blocks_of(document))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve())
