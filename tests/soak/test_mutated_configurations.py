"""Whatever stands in a configuration or on a command line: clear lines and exit code 1 or 2, or it serves.

200 by default (of what is deployed, 40), 10,000 with ``TRIO_SERVE_SOAK=1``.  A failure names the seed that
makes it again: ``mutated_text(Random(seed))``.
"""

import os
import pathlib
import re
import signal
import sys
from collections.abc import Iterator
from random import Random

import click.testing
import pytest

from tests.instance.detached_instance import SHOP, Machine, a_machine
from tests.soak.mutations import good_texts, mutated_command_line, mutated_text
from trio_serve import cli
from trio_serve.instance import foreground
from trio_serve.instance.config_file import ConfigFileError, read_config_file

SOAK = bool(os.environ.get("TRIO_SERVE_SOAK"))
NUMBER = 10_000 if SOAK else 200
DEPLOYED = 10_000 if SOAK else 40
FORGIVING_SHOP = SHOP.replace('args["word"]', 'args.get("word")')
"""Its own errors, which are told with their traceback, are not what is looked for."""
LINE_MAX = 1000
"""Characters; a line names what was found, and does not repeat it."""


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """The working directory, with the code that a good configuration names; what the tests change goes."""
    (tmp_path / "shop.py").write_text(FORGIVING_SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # --state-dir '' is the user's own
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield tmp_path
    for number, handler in before.items():
        signal.signal(number, handler)
    sys.modules.pop("shop", None)


def invoke(arguments: list[str]) -> click.testing.Result:
    result = click.testing.CliRunner().invoke(cli.main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def check_told(result: click.testing.Result, seed: int) -> None:
    """It ended well, or says why not."""
    assert result.exit_code in (0, 1, 2), seed
    assert "Traceback" not in result.output, (seed, result.output)
    lines = result.stderr.splitlines()
    assert result.exit_code == 0 or lines, seed
    if not result.stderr.startswith("Usage: "):  # click repeats arguments as they are
        assert all(line.isprintable() for line in lines), (seed, lines)


def test_the_good_ones_are_good(folder: pathlib.Path) -> None:
    for text in good_texts():
        (folder / "config.yaml").write_bytes(text)
        read_config_file("config.yaml")


def test_every_mistake_in_a_file_is_one_line_with_its_place(folder: pathlib.Path) -> None:
    refused = 0
    for seed in range(NUMBER):
        (folder / "config.yaml").write_bytes(mutated_text(Random(seed)))
        try:
            read_config_file("config.yaml")
        except ConfigFileError as error:
            refused += 1
            for line in error.lines:
                assert re.match(r"config\.yaml:\d+:\d+: ", line), (seed, line)
                assert len(line) <= LINE_MAX and line.isprintable(), (seed, line)
    assert refused > NUMBER / 2


def test_a_command_line_is_told_its_mistakes(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to where it would serve: imports are done, ports are not opened."""
    monkeypatch.setattr(foreground.trio, "run", lambda *_: 0)
    monkeypatch.setenv("TRIO_SERVE_STATE_DIR", str(folder / "state"))
    monkeypatch.setattr("trio_serve.instance.detached_commands.start", lambda *_, **__: 0)
    for seed in range(NUMBER):
        random = Random(seed)
        (folder / "config.yaml").write_bytes(mutated_text(random))

        check_told(invoke(mutated_command_line(random)), seed)


@pytest.mark.real_clock
def test_what_ran_before_serves_on(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is deployed to an instance in which an application runs; the good ones are taken back."""
    with a_machine(tmp_path_factory.mktemp("machine")) as machine:
        running = machine.start("--grpc-port", "0")
        monkeypatch.chdir(machine.folder)
        (machine.folder / "shop.py").write_text(FORGIVING_SHOP)
        good = 'applications: [{name: one, import_path: "shop:build", args: {word: Moin}}]\n'
        _deploy(machine, good.encode(), seed=-1)
        for seed in range(DEPLOYED):
            exit_code = _deploy(machine, mutated_text(Random(seed)), seed)
            if exit_code == 2:
                assert running.get("/") == (200, "Moin"), seed
            else:
                assert _deploy(machine, good.encode(), seed) == 0, seed
        assert running.get("/") == (200, "Moin")
        assert "/api/serve/applications/ failed" not in running.state.log_path.read_text()


def _deploy(machine: Machine, text: bytes, seed: int) -> int:
    (machine.folder / "config.yaml").write_bytes(text)
    result = invoke(["deploy", "config.yaml", "--state-dir", str(machine.state.path)])
    check_told(result, seed)
    return result.exit_code
