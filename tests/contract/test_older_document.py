"""The programs of "Deploying Ray Serve" (1.3), one by one, with their first import changed.

Each runs as a plain script would: synchronously, on an instance in a background thread.  What the published
page lost of a program (method calls, mostly) is filled in.  Ports are free ones; the document has 8000, 8080.
"""

import json
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import trio_serve as serve
from tests.instance.detached_instance import a_machine
from tests.patience import PATIENCE_S
from tests.ports import free_port

pytestmark = pytest.mark.real_clock

Run = Callable[[str], dict[str, Any]]


@pytest.fixture
def metrics_port() -> int:
    return free_port()


@pytest.fixture
def run(tmp_path: pathlib.Path, metrics_port: int) -> Iterator[Run]:
    """Runs a program's text; returns its names."""
    serve.start(
        http_options={"port": 0},
        logging_config={"logs_dir": str(tmp_path)},
        metrics_options={"port": metrics_port},
    )

    def run_text(text: str) -> dict[str, Any]:
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(textwrap.dedent(text), names)
        return names

    try:
        yield run_text
    finally:
        serve.shutdown()


def get(path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{serve.http_port()}{path}") as response:
        return str(response.read().decode())


def log_of(folder: pathlib.Path) -> str:
    return (folder / "session_latest" / "logs" / "serve" / "serve.log").read_text()


OPTION_1 = """
import sys, time
import trio_serve as serve

# This will start Serve in this script's own process.
serve.start(http_options={"port": 0})

def my_backend_func(request):
  return "hello"

serve.create_backend("my_backend", my_backend_func)
serve.create_endpoint("my_endpoint", backend="my_backend", route="/hello")
print(serve.http_port(), flush=True)

# Serve will be shut down once the script exits, so keep it alive manually.
while True:
    time.sleep(5)
    print(serve.list_backends())
"""


def hear_ctrl_c() -> None:
    """A shell starts what it runs in the background deaf to SIGINT, and so would be the script."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_option_1_a_single_python_file_that_stays() -> None:
    script = subprocess.Popen(
        [sys.executable, "-c", OPTION_1],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=hear_ctrl_c,
    )
    try:
        assert script.stdout is not None
        port = int(script.stdout.readline())
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/hello") as response:
            assert response.read() == b"hello"
        script.send_signal(signal.SIGINT)
        assert script.wait(timeout=PATIENCE_S) != 0  # KeyboardInterrupt, as in any script
    finally:
        script.kill()
        script.communicate()


def test_option_2_several_scripts_connect_and_update(run: Run) -> None:
    run(
        """
        import trio_serve as serve

        # This will connect to the running instance.
        client = serve.connect()

        def my_backend_func(request):
          return "hello"

        serve.create_backend("my_backend", my_backend_func)
        """
    )
    run(
        """
        import trio_serve as serve
        client = serve.connect()
        client.update_backend_config("my_backend", {"num_replicas": 2})
        client.create_endpoint("my_endpoint", backend="my_backend", route="/hello")
        """
    )
    assert get("/hello") == "hello"
    assert serve.get_backend_config("my_backend") == serve.BackendConfig(num_replicas=2)


def test_the_program_for_kubernetes_outlives_its_script(tmp_path: pathlib.Path) -> None:
    program = """
        # Bind on 0.0.0.0 to expose the HTTP server on external IPs.
        serve.start(detached=True, http_options={"host": "0.0.0.0"})

        def hello():
            return "hello world"

        serve.create_backend("hello_backend", hello)
        serve.create_endpoint("hello_endpoint", backend="hello_backend", route="/hello")
        """
    with a_machine(tmp_path) as machine:
        machine.run_script(program)
        assert machine.found().get("/hello") == (200, "hello world")


def test_a_log_line_names_backend_and_replica(run: Run, tmp_path: pathlib.Path) -> None:
    run(
        """
        import logging
        import trio_serve as serve
        logger = logging.getLogger("ray")

        def f(request):
            logger.info("Some info!")

        serve.create_backend("my_backend", f)
        serve.create_endpoint("my_endpoint", backend="my_backend", route="/f")
        """
    )
    get("/f")
    assert re.search(
        r"^\(pid=\d+\) \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO -- Some info! "
        r"component=serve backend=my_backend replica=my_backend#[a-zA-Z0-9]{6}$",
        log_of(tmp_path),
        re.MULTILINE,
    )


def test_the_replica_context(run: Run) -> None:
    run(
        """
        import trio_serve as serve

        def tags(request):
            context = serve.get_replica_context()
            return [context.backend_tag, context.replica_tag, serve.get_current_backend_tag()]

        serve.create_backend("my_backend", tags)
        serve.create_endpoint("tags", backend="my_backend", route="/tags")
        """
    )
    backend_tag, replica_tag, current = json.loads(get("/tags"))
    assert backend_tag == current == "my_backend"
    assert re.fullmatch(r"my_backend#[a-zA-Z0-9]{6}", replica_tag)
    with pytest.raises(RuntimeError, match=r"get_replica_context\(\) was called outside a replica"):
        serve.get_replica_context()
    assert serve.get_current_backend_tag() is None


def test_the_counter_whose_lines_loki_finds(run: Run, tmp_path: pathlib.Path) -> None:
    run(
        """
        import logging
        import urllib.request
        import trio_serve as serve

        logger = logging.getLogger("ray")

        class Counter:
            def __init__(self):
                self.count = 0

            def __call__(self, request):
                self.count += 1
                logger.info(f"count: {self.count}")
                return {"count": self.count}

        serve.create_backend("my_backend", Counter)
        serve.create_endpoint("my_endpoint", backend="my_backend", route="/counter")

        for i in range(10):
            urllib.request.urlopen(f"http://127.0.0.1:{serve.http_port()}/counter").read()
        """
    )
    found = [line for line in log_of(tmp_path).splitlines() if "backend=my_backend" in line]
    assert [line.partition(" -- ")[2].partition(" component")[0] for line in found] == [
        f"count: {number}" for number in range(1, 11)
    ]
    assert json.loads(get("/counter")) == {"count": 11}


def test_the_metrics_of_f(run: Run, metrics_port: int) -> None:
    run(
        """
        import trio_serve as serve
        import time

        def f(request):
            time.sleep(0.01)

        serve.create_backend("f", f)
        serve.create_endpoint("f", backend="f")

        handle = serve.get_handle("f")
        for _ in range(9):
            handle.remote().result()
        """
    )
    text = _scraped(metrics_port)
    (count,) = re.findall(
        r'^ray_serve_backend_processing_latency_ms_count\{.*backend="f".*\} (.*)$', text, re.M
    )
    (total,) = re.findall(
        r'^ray_serve_backend_processing_latency_ms_sum\{.*backend="f".*\} (.*)$', text, re.M
    )
    assert float(count) == 9
    assert 10 <= float(total) / float(count) < 1000


def test_the_custom_metric_of_my_backend_class(run: Run, metrics_port: int) -> None:
    run(
        """
        import trio_serve as serve
        from trio_serve import metrics

        class MyBackendClass:
            def __init__(self):
                self.my_counter = metrics.Counter(
                    "num_excellent_requests",
                    description=("The number of excellent requests to this backend."),
                    tag_keys=("backend", ))
                self.my_counter.set_default_tags({
                    "backend": serve.get_current_backend_tag()
                })

            def __call__(self, request):
                if "excellent" in request.query_params:
                    self.my_counter.inc()

        serve.create_backend("my_backend", MyBackendClass)
        serve.create_endpoint("my_endpoint", backend="my_backend", route="/")
        """
    )
    get("/?excellent=1")
    get("/?dull=1")
    serve.get_handle("my_endpoint").remote(excellent=True).result()
    found = re.findall(
        r'^ray_num_excellent_requests\S*\{.*backend="my_backend".*\} (.*)$', _scraped(metrics_port), re.M
    )
    assert [float(value) for value in found][:1] == [2]


def _scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        return str(response.read().decode())


def _sample(text: str, name: str) -> float:
    """The only sample of ``name`` that has a backend."""
    (value,) = re.findall(rf'^{name}\{{.*backend=".*\}} (.*)$', text, re.MULTILINE)
    return float(value)


def test_an_endpoint_splits_its_traffic_takes_its_methods_and_goes(run: Run) -> None:
    run(
        """
        import trio_serve as serve

        serve.create_backend("old", lambda request: "old")
        serve.create_backend("new", lambda request: "new")
        serve.create_endpoint("my_endpoint", backend="old", route="/v", methods=["GET", "PUT"])
        serve.set_traffic("my_endpoint", {"old": 0.5, "new": 0.5})
        """
    )
    assert {get("/v") for _ in range(40)} == {"old", "new"}
    assert json.loads(get("/-/routes")) == {"/v": "my_endpoint"}
    with pytest.raises(urllib.error.HTTPError, match="405") as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{serve.http_port()}/v", data=b"posted")
    assert refused.value.read() == b"'/v' takes GET, PUT only."
    refused.value.close()

    serve.delete_endpoint("my_endpoint")
    with pytest.raises(urllib.error.HTTPError, match="404") as gone:
        get("/v")
    gone.value.close()


def test_a_handle_in_a_script_follows_the_policy_and_sends_copies(run: Run) -> None:
    names = run(
        """
        import queue
        import trio_serve as serve

        copies = queue.Queue()

        def shadow(request):
            copies.put((request.data, dict(request.query_params)))

        serve.create_backend("answers", lambda request: request.data * 2)
        serve.create_backend("shadow", shadow)
        serve.create_endpoint("end", backend="answers")
        serve.shadow_traffic("end", "shadow", 1.0)
        """
    )
    assert serve.get_handle("end").remote(21, q="x").result(timeout_s=10) == 42
    assert names["copies"].get(timeout=PATIENCE_S) == (21, {"q": "x"})


def test_applications_of_today_split_their_traffic_from_a_script(run: Run) -> None:
    @serve.deployment
    class Version:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, request: Any) -> str:
            return self.name

    serve.run(Version.bind("old"), name="app")
    serve.run(Version.bind("new"), name="canary", route_prefix=None)
    serve.set_traffic("app", {"app": 0.0, "canary": 1.0}, sticky="x-user")
    assert get("/") == "new"
    serve.set_traffic("app", {"app": 1.0})
    assert get("/") == "old"


def test_connect_without_an_instance_says_how_to_start_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_SERVE_STATE_DIR", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"no instance is running .* nor in .*; serve.start\(\) starts"):
        serve.connect()
