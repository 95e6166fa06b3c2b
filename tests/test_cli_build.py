"""``trio-serve build``: the file that it writes says what the code says, and loads back."""

import pathlib
import textwrap

import pytest
import yaml

from tests.shell import Shell
from trio_serve.instance.config_file import read_config_file

pytestmark = pytest.mark.real_clock

SHOP = """\
import trio_serve as serve

@serve.deployment(num_replicas=2, max_ongoing_requests=7)
class Greeter:
    def __init__(self, ranker=None):
        pass

    def reconfigure(self, config):
        pass

@serve.deployment(autoscaling_config={"min_replicas": 1, "max_replicas": 3})
class Ranker:
    pass

app = Greeter.bind(Ranker.bind())
tuned = Greeter.options(user_config={"word": "Moin"}).bind()
odd = Greeter.options(user_config={"word": object()}).bind()
raising = None

def build(args):
    return 1 / 0
"""


@pytest.fixture
def shell(tmp_path: pathlib.Path) -> Shell:
    (tmp_path / "shop.py").write_text(SHOP)
    return Shell(tmp_path, [tmp_path])


def test_what_is_built_loads_back_with_the_options_of_the_code(shell: Shell) -> None:
    built = shell.run(
        "build", "shop:app", "shop:tuned", "-o", "config.yaml", "--grpc-servicer-functions", "shop_pb2"
    )

    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    config = read_config_file(str(shell.folder / "config.yaml")).config
    assert [(app.name, app.route_prefix, app.import_path) for app in config.applications] == [
        ("app1", "/app1", "shop:app"),
        ("app2", "/app2", "shop:tuned"),
    ]
    ranker, greeter = config.applications[0].deployments
    assert greeter == {"name": "Greeter", "num_replicas": 2, "max_ongoing_requests": 7}
    assert ranker["autoscaling_config"]["max_replicas"] == 3
    assert config.applications[1].deployments[0]["user_config"] == {"word": "Moin"}
    assert config.grpc_options.grpc_servicer_functions == ["shop_pb2"]


def test_without_a_file_it_is_written_to_stdout_and_one_application_lies_at_the_root(shell: Shell) -> None:
    built = shell.run("build", "shop:tuned")

    (application,) = yaml.safe_load(built.stdout)["applications"]
    assert (application["name"], application["route_prefix"]) == ("app1", "/")


def test_every_mistake_is_told_and_nothing_is_written(shell: Shell) -> None:
    built = shell.run("build", "shop:odd", "shop:nope", "-o", "config.yaml")

    assert built.returncode == 2
    assert built.stderr == textwrap.dedent(
        """\
        'shop:odd': user_config of deployment 'Greeter' is dict, and only plain data (texts, numbers, lists, \
mappings) can be written to a file
        'shop:nope': module 'shop' has no attribute 'nope'
        """
    )
    assert not (shell.folder / "config.yaml").exists()


def test_what_the_code_raises_is_shown_with_its_own_frames_only(shell: Shell) -> None:
    built = shell.run("build", "shop:build")

    assert built.returncode == 1
    assert "ZeroDivisionError: division by zero" in built.stderr
    assert "trio_serve/" not in built.stderr
