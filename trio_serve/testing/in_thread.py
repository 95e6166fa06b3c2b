"""An application on a port of its own, in a thread: for synchronous tests, and for other clients than ours.

    the test's thread                           a thread that runs Trio
    ---------------------------------------------------------------------------
    grpc.insecure_channel(service.target)  -->  127.0.0.1:<a free port>  -->  the application
    the block ends                         -->  drained and gone

The clock is the real one, because a socket does not wait for any other.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from trio_serve.instance.crossing import in_thread_of
from trio_serve.instance.in_thread import InThread
from trio_serve.instance.instance import Handle, Instance, open_instance
from trio_serve.instance.options import gRPCOptions, options_from
from trio_serve.instance.targets import RunTarget
from trio_serve.serving.application import Application
from trio_serve.serving.status import ServeStatus
from trio_serve.testing.fakes import replace_deployments


class ThreadService:
    """An application that is served in another thread."""

    def __init__(self, instance: Instance, name: str) -> None:
        self.instance = instance
        self.name = name

    @property
    def target(self) -> str:
        """What a channel is opened to: ``127.0.0.1:50123``."""
        return self.instance.addresses["grpc"]

    @property
    def http_url(self) -> str:
        """Where HTTP is served; RuntimeError when `http_options` were not given."""
        if self.instance.http_port is None:
            raise RuntimeError("HTTP is not served here; pass http_options={}")
        return f"http://{self.instance.addresses['http']}"

    @property
    def handle(self) -> Handle:
        """A handle to the application's ingress; here its answers are had by ``.remote(...).result()``."""
        handle: Handle = self._ask(self.instance.get_app_handle, self.name)
        return handle

    def handle_to(self, deployment: str) -> Handle:
        """A handle to any deployment of the application; DeploymentUnavailable when there is none."""
        handle: Handle = self._ask(self.instance.get_deployment_handle, deployment, self.name)
        return handle

    def status(self) -> ServeStatus:
        """What runs, and how it is."""
        status: ServeStatus = self._ask(self.instance.status)
        return status

    def update(self, app: Application) -> None:
        """Put ``app`` in the place of the application, and wait; raises what a constructor raised."""
        self._ask(self.instance.run_many, [RunTarget(app, self.name)])

    def _ask(self, act: Any, *args: Any) -> Any:
        return in_thread_of(self.instance.trio_token, act, *args)


@contextmanager
def serving_in_thread(
    app: Application,
    *,
    services: Iterable[object] = (),
    name: str = "default",
    overrides: Mapping[str, Any] | None = None,
    grpc_options: Mapping[str, Any] | None = None,
    http_options: Mapping[str, Any] | None = None,
) -> Iterator[ThreadService]:
    """Serve ``app`` in a thread of its own for the length of the block, on a free port of 127.0.0.1.

    ``services`` and ``overrides`` are those of `serving`; ``grpc_options`` and ``http_options`` those of
    ``open_instance``, with a free port unless they name one.  Leaving the block drains.

    Raises:
        Mistakes, MethodSourceError: options or services that cannot be used, all of them.
        Exception: what the constructor of a deployment raised, itself.
    """
    wanted: dict[str, Any] = {"port": 0, **(grpc_options or {})}
    wanted["grpc_servicer_functions"] = [*wanted.get("grpc_servicer_functions", ()), *services]
    options: dict[str, Any] = {"grpc_options": options_from(gRPCOptions, wanted, "grpc_options")}
    if http_options is not None:
        options["http_options"] = {"port": 0, **http_options}
    application = replace_deployments(app, overrides) if overrides else app
    thread = InThread(partial(open_instance, **options))
    thread.open()
    try:
        service = ThreadService(thread.value, name)
        service.update(application)
        yield service
    finally:
        thread.close()
