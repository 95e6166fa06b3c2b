"""The same application file on Ray: with a Ray of a few lines, and with the real one where it is."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.real_clock

ROOT = pathlib.Path(__file__).parent.parent

APPLICATION = """\
import trio_serve as serve
from trio_serve import metrics
from trio_serve.handle import DeploymentHandle


@serve.deployment
class Words:
    @serve.multiplexed(max_num_models_per_replica=1)
    async def words_of(self, model_id: str):
        return {"nl": "Hallo", "fr": "Bonjour"}[model_id]

    async def word(self):
        return await self.words_of(serve.get_multiplexed_model_id())


@serve.deployment
class Greeter:
    def __init__(self, words: DeploymentHandle):
        self.words = words
        self.greeted = metrics.Counter("greeted", description="How often.")

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.1)
    async def in_one_go(self, names):
        return [(len(names), name) for name in names]

    async def greet(self, name, language):
        word = await self.words.options(multiplexed_model_id=language).word.remote()
        together, name = await self.in_one_go(name)
        self.greeted.inc()
        return f"{word} {name}", together


app = Greeter.bind(Words.bind())
"""

CALLS = """
handle = serve.run(app, route_prefix=None)
answers = [handle.greet.remote(name, "fr") for name in "ab"] + [handle.greet.remote("c", "nl")]
print(sorted(answer.result()[0] for answer in answers), type(app).__module__.partition(".")[0])
serve.shutdown()
"""


def run(
    program: str, *paths: pathlib.Path, python: str = sys.executable, **environment: str
) -> "subprocess.CompletedProcess[str]":
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TRIO_SERVE_")}
    return subprocess.run(
        [python, "-c", program],
        env={**inherited, **environment, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def a_ray(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with packages of Ray's names, each with one thing in it."""
    for module in ("ray", "ray/serve", "ray/util"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").write_text("deployment = 'of ray'\n")
    for module in ("serve/config", "serve/exceptions", "serve/handle", "serve/grpc_util", "util/metrics"):
        (tmp_path / "ray" / f"{module}.py").write_text(f"HERE = '{module}'\n")
    return tmp_path


def test_its_names_are_rays(a_ray: pathlib.Path) -> None:
    program = (
        "import trio_serve as serve; print(serve.deployment)\n"
        "from trio_serve.handle import HERE; print(HERE)\n"
        "from trio_serve import metrics; print(metrics.HERE)\n"
        "import trio_serve.config; print(trio_serve.config.HERE)\n"
        "from trio_serve import grpc; print(grpc.__name__)\n"
        "import sys; print('trio' in sys.modules, 'trio_serve.serving' in sys.modules)\n"
        "print(hasattr(serve, '__wrapped__')); serve.open_instance\n"
    )

    done = run(program, a_ray, TRIO_SERVE_ENGINE="ray")

    assert done.stdout.splitlines()[:5] == [
        "of ray",
        "serve/handle",
        "util/metrics",
        "serve/config",
        "trio_serve.grpc",
    ]
    assert done.stderr.endswith(
        "AttributeError: 'trio_serve.open_instance' is not in Ray Serve, whose names are used here "
        "(TRIO_SERVE_ENGINE=ray)\n"
    )


def test_an_engine_that_is_not_known_or_not_there_is_told() -> None:
    unknown = run("import trio_serve", TRIO_SERVE_ENGINE="rey")
    assert unknown.stderr.endswith(
        "ImportError: TRIO_SERVE_ENGINE=rey: there is no such engine; there is ray\n"
    )


def test_one_application_file_runs_here() -> None:
    done = run(APPLICATION + "serve.start(http_options={'port': 0})\n" + CALLS)

    assert (done.returncode, done.stdout) == (0, "['Bonjour a', 'Bonjour b', 'Hallo c'] trio_serve\n")


def test_and_on_a_real_ray() -> None:
    """A cluster of this machine, for the length of the program."""
    serve = os.environ.get("TRIO_SERVE_RAY_CLI")
    if serve is None:
        pytest.skip("TRIO_SERVE_RAY_CLI names no `serve` of Ray's (pip install 'ray[serve]')")
    python = str(pathlib.Path(serve).with_name("python"))
    here = "import ray; ray.init(num_cpus=2, include_dashboard=False)\n"

    done = run(
        here + APPLICATION + CALLS, python=python, TRIO_SERVE_ENGINE="ray", RAY_raylet_start_wait_time_s="120"
    )

    assert done.returncode == 0, done.stderr
    assert "['Bonjour a', 'Bonjour b', 'Hallo c'] ray" in done.stdout.splitlines(), done.stdout
