"""Ray's own `serve` commands against the admin API: as they were recorded, and the real ones where they are.

The recorded facts are Ray 2.60's: what its `serve` sends, and the keys that its schema of the answer has.  It
refuses an answer with a key too many or too few, so both are pinned.  The session with the real one runs
where ``TRIO_SERVE_RAY_CLI`` names it, or a `serve` of Ray's is on the PATH.
"""

import http.client
import json
import os
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.instance.detached_instance import Machine, Running, wait_until
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.real_clock

APPLICATIONS = "/api/serve/applications/"
TWO = """\
proxy_location: EveryNode
http_options: {host: 0.0.0.0, port: 8000}
applications:
  - {name: one, import_path: "shop:build", args: {word: Moin}, route_prefix: /one}
  - name: two
    import_path: shop:app
    route_prefix: /two
    deployments: [{name: Greeter, num_replicas: 1, ray_actor_options: {num_cpus: 0.1}}]
"""


# -- as recorded -------------------------------------------------------------------------------------------

_ACTOR = {"actor_id", "actor_name", "log_file_path", "node_id", "node_instance_id", "node_ip", "worker_id"}
KEYS = {
    "instance": {
        *("applications", "controller_info", "grpc_options", "http_options", "proxies", "proxy_location"),
        "target_capacity",
    },
    "controller_info": _ACTOR,
    "proxy": {*_ACTOR, "status"},
    "application": {
        *("deployed_app_config", "deployments", "docs_path", "external_scaler_enabled"),
        *("last_deployed_time_s", "message", "name", "route_prefix", "source", "status"),
    },
    "deployment": {
        *("deployment_config", "message", "name", "replicas", "required_resources", "status"),
        *("status_trigger", "target_num_replicas"),
    },
    "replica": {*_ACTOR, "pid", "replica_id", "start_time_s", "state"},
}


def ask(running: Running, method: str, path: str, config: Any = None) -> tuple[int, bytes]:
    """One request as Ray's `serve` sends it."""
    headers = {
        "User-Agent": "python-requests/2.34.2",
        "Accept-Encoding": "gzip, deflate",
        "Accept": "*/*",
        "Connection": "keep-alive",
    }
    body = None
    if config is not None:
        body, headers["Content-Type"] = json.dumps(config).encode(), "application/json"
    connection = http.client.HTTPConnection(running.addresses["admin-http"], timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_every_command_asks_for_the_version_first(machine: Machine) -> None:
    status, body = ask(machine.start("--admin-port", "0"), "GET", "/api/ray/version")

    assert status == 200
    major, minor, *_ = json.loads(body)["ray_version"].split(".")
    assert (int(major), int(minor)) >= (1, 12)


def test_what_its_deploy_status_and_shutdown_send_is_understood(machine: Machine) -> None:
    running = machine.start("--admin-port", "0")

    assert ask(running, "PUT", APPLICATIONS, yaml.safe_load(TWO))[0] == 200
    running.client.wait_until_settled()
    status, body = ask(running, "GET", APPLICATIONS)
    details = json.loads(body)

    assert status == 200
    assert (running.get("/one"), running.get("/two")) == ((200, "Moin"), (200, "Hello"))
    assert details.keys() == KEYS["instance"]
    assert details["controller_info"].keys() == KEYS["controller_info"]
    assert details["controller_info"]["node_id"] is not None  # else `shutdown` does nothing
    assert [proxy.keys() for proxy in details["proxies"].values()] == [KEYS["proxy"]]
    for app in details["applications"].values():
        assert app.keys() == KEYS["application"]
        assert app["source"] == "declarative"
        assert app["deployments"]["Greeter"].keys() == KEYS["deployment"]
        assert all(each.keys() == KEYS["replica"] for each in app["deployments"]["Greeter"]["replicas"])
    assert ask(running, "DELETE", APPLICATIONS)[0] == 200
    running.client.wait_until_settled()
    assert json.loads(ask(running, "GET", APPLICATIONS)[1])["applications"] == {}


def test_what_its_deploy_of_an_import_path_sends_is_understood(machine: Machine) -> None:
    running = machine.start("--admin-port", "0")
    app = {"name": "x", "import_path": "shop:build", "runtime_env": {}, "args": {"word": "Servus"}}

    assert ask(running, "PUT", APPLICATIONS, {"applications": [app]})[0] == 200

    running.client.wait_until_settled()
    assert running.get("/") == (200, "Servus")


def test_what_only_ours_can_say_is_told_in_its_words(machine: Machine) -> None:
    """A local ``working_dir`` and a level in lower case are refused by its schema, here they are not."""
    running = machine.start()
    (machine.folder / "src").mkdir()
    (machine.folder / "src" / "nook.py").write_text("from shop import app\n")
    logs = {"log_level": "debug"}
    deployed = machine.deploy(
        yaml.safe_dump(
            {
                "applications": [
                    {
                        "import_path": "nook:app",
                        "runtime_env": {"working_dir": "src"},
                        "logging_config": logs,
                        "deployments": [{"name": "Greeter", "logging_config": logs}],
                    }
                ]
            }
        )
    )

    config = running.client.details()["applications"]["default"]["deployed_app_config"]

    assert (deployed.returncode, deployed.stderr) == (0, "")
    assert config["runtime_env"]["working_dir"] == f"local://{machine.folder}/src"
    assert config["logging_config"] == config["deployments"][0]["logging_config"] == {"log_level": "DEBUG"}
    assert machine.deploy(yaml.safe_dump({"applications": [config]})).returncode == 0


# -- the real one ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rays_serve() -> str:
    found = os.environ.get("TRIO_SERVE_RAY_CLI") or shutil.which("serve")
    if found is None:
        pytest.skip("no `serve` of Ray's is here; TRIO_SERVE_RAY_CLI names one (pip install 'ray[serve]')")
    told = subprocess.run(
        [found, "deploy", "--help"], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    if "Ray" not in told.stdout:
        pytest.skip(f"{found} is not Ray's")
    return found


def test_a_session_of_rays_own_cli(rays_serve: str, machine: Machine) -> None:
    """deploy, status, config, a new version, one that fails, shutdown."""
    running = machine.start("--admin-port", "0")

    def serve(*arguments: str) -> str:
        run = subprocess.run(
            [rays_serve, *arguments, "--address", f"http://{running.addresses['admin-http']}"],
            cwd=machine.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    serve("deploy", machine.write(TWO))
    running.client.wait_until_settled()
    status = yaml.safe_load(serve("status"))
    assert status["proxies"] == {"http": "HEALTHY"}
    assert {name: app["status"] for name, app in status["applications"].items()} == {
        "one": "RUNNING",
        "two": "RUNNING",
    }
    assert status["applications"]["one"]["deployments"]["Greeter"]["replica_states"] == {"RUNNING": 2}
    assert yaml.safe_load(serve("status", "--name", "two"))["status"] == "RUNNING"
    assert list(yaml.safe_load_all(serve("config"))) == yaml.safe_load(TWO)["applications"]

    serve("deploy", "shop:build", "word=Servus", "--name", "three")
    running.client.wait_until_settled()
    assert running.get("/") == (200, "Servus")
    assert running.get("/one")[0] == 200  # now a path of the application at /
    assert yaml.safe_load(serve("status"))["applications"].keys() == {"three"}

    serve("deploy", "shop:nope", "--name", "three")
    running.client.wait_until_settled()
    failed = yaml.safe_load(serve("status", "--name", "three"))
    assert (failed["status"], running.get("/")) == ("DEPLOY_FAILED", (200, "Servus"))
    assert "has no attribute 'nope'" in failed["message"]

    serve("shutdown", "-y")
    wait_until(lambda: running.statuses() == {})
    assert yaml.safe_load(serve("status"))["applications"] == {}


def test_rays_own_cli_sends_the_token_that_the_admin_api_asks_for(rays_serve: str, machine: Machine) -> None:
    token = "correct-horse-battery"
    running = machine.start("--admin-port", "0", "--admin-token", token)
    command = [rays_serve, "status", "--address", f"http://{running.addresses['admin-http']}"]

    def run(**environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    assert run().returncode != 0
    with_token = run(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
    assert (with_token.returncode, with_token.stderr) == (0, "")
