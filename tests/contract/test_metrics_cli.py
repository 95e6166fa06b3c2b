"""``--metrics-export-port`` and ``logs_dir`` on the command line, in a process of its own."""

import json
import pathlib
import re
import signal

import httpx
import pytest

from tests.patience import PATIENCE_S
from tests.shell import Shell

pytestmark = pytest.mark.real_clock

APP = """\
import logging
import trio_serve as serve

@serve.deployment
class G:
    def __call__(self, request):
        logging.getLogger("trio_serve").info("at work")
        return "hi"

app = G.bind()
"""


@pytest.fixture
def shell(tmp_path: pathlib.Path) -> Shell:
    (tmp_path / "hello.py").write_text(APP)
    return Shell(tmp_path, [])


def test_the_option_opens_the_port_and_tells_it(shell: Shell) -> None:
    with shell.serving("hello:app", "--metrics-export-port", "0", wait=False) as served:
        assert served.process.stdout is not None
        lines = [served.process.stdout.readline() for _ in range(2)]
        (http,) = re.findall(r"^http (.*)$", lines[0], re.MULTILINE)
        (metrics,) = re.findall(r"^metrics (127\.0\.0\.1:\d+)$", lines[1], re.MULTILINE)
        assert httpx.get(f"http://{http}/", timeout=PATIENCE_S).text == "hi"
        text = httpx.get(f"http://{metrics}/metrics", timeout=PATIENCE_S).text
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(PATIENCE_S) == 0

    assert re.search(r'^ray_serve_backend_request_counter\{.*backend="G".*\} 1\.0$', text, re.MULTILINE)


def test_the_file_opens_both(shell: Shell) -> None:
    """A relative ``logs_dir`` is taken from the file's folder; the other prefix is off."""
    (shell.folder / "config.yaml").write_text(
        "metrics_options: {port: 0, ray_prefix: false}\n"
        "logging_config: {logs_dir: logs, encoding: JSON}\n"
        "applications: [{import_path: 'hello:app'}]\n"
    )
    with shell.serving("config.yaml", wait=False) as served:
        assert served.process.stdout is not None
        lines = [served.process.stdout.readline() for _ in range(2)]
        httpx.get(f"http://{lines[0].split()[1]}/", timeout=PATIENCE_S)
        text = httpx.get(f"http://{lines[1].split()[1]}/metrics", timeout=PATIENCE_S).text
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(PATIENCE_S) == 0

    assert "ray_" not in text
    log = (shell.folder / "logs" / "session_latest" / "logs" / "serve" / "serve.log").read_text()
    messages = {line["message"]: line for line in map(json.loads, log.splitlines())}
    assert messages["at work"]["deployment"] == "G"
    assert any(message.startswith("GET / 200 ") for message in messages)


def test_mistakes_are_told_with_the_option_and_exit_code_2(shell: Shell) -> None:
    done = shell.run("run", "hello:app", "--metrics-export-port", "99999")
    assert (done.returncode, done.stderr) == (2, "--metrics-export-port: 99999 is not in 0 to 65535\n")

    (shell.folder / "config.yaml").write_text(
        "logging_config: {logs_dir: hello.py}\napplications: [{import_path: 'hello:app'}]\n"
    )
    done = shell.run("run", "config.yaml")
    assert done.returncode == 2
    assert re.fullmatch(r"logs_dir='.*/hello\.py' cannot be used: Not a directory\n", done.stderr)
