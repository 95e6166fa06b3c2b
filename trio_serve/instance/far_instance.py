"""The way from a script to the long-lived instance of a state directory, over the owner's Unix socket.

    script's thread ──ask──> Connection ──> thread: FarInstance ──gRPC──> code.sock ──> the instance
    handle.remote() ────────────────────────────────┘

Functions and classes travel as `parcels`, and with them the folders that the script imports from.

Knows nothing of what the instance does with what it is asked.
"""

import contextlib
import os
import pickle
import sys
import sysconfig
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

from trio_serve.actors import DeadlinePassed
from trio_serve.grpc import Channel, RpcError, Status, open_channel
from trio_serve.instance.admin_client import LOOK_EACH_S, AdminClient, NoInstance
from trio_serve.instance.crossing import in_thread_of
from trio_serve.instance.far_deployment import ASK, Address, FarDeployment, deployment_address
from trio_serve.instance.in_thread import InThread
from trio_serve.instance.parcels import PARCEL_BYTES_MAX, fitting, pack, unpack_outcome
from trio_serve.instance.state_directory import StateDirectory
from trio_serve.serving.calls import Call
from trio_serve.serving.endpoint import Endpoint
from trio_serve.serving.endpoint_handle import EndpointHandle
from trio_serve.serving.errors import CannotCross, ServeError
from trio_serve.serving.handle import DeploymentHandle
from trio_serve.serving.responses import DeploymentResponse, InstanceEnded

CONNECT_S = 60.0
"""How long an instance that has just been started may take to answer."""


@attrs.frozen
class Asked:
    """What is asked of an instance; ``folders`` are where the script imports from."""

    what: str
    folders: tuple[str, ...]
    parcel: bytes


class Connection:
    """The way to the instance of ``state``, from `open` to `close`; a `Reach`."""

    def __init__(self, state: StateDirectory) -> None:
        self.state = state
        self._thread = InThread(partial(_open_far_instance, state))

    def open(self) -> None:
        """Connect, and wait for an instance that is just starting.

        Raises:
            NoInstance: there is none; says how to start one.
        """
        self._check_is_ours()
        self._thread.open()
        give_up = time.monotonic() + CONNECT_S
        try:
            while True:
                try:
                    self.ask("addresses")
                    return
                except NoInstance:
                    if not self.state.is_owned() or time.monotonic() > give_up:
                        raise
                time.sleep(LOOK_EACH_S)
        except BaseException:
            self.close()
            raise

    def _check_is_ours(self) -> None:
        """What comes over the socket is unpickled, so nobody else may be at its other end.

        Raises:
            NoInstance
        """
        with contextlib.suppress(FileNotFoundError):
            owner = os.stat(self.state.code_socket_path).st_uid
            if owner != os.geteuid():
                raise NoInstance(f"{self.state.code_socket_path} belongs to another user (uid {owner})")

    @property
    def is_open(self) -> bool:
        return self._thread.is_open

    def ask(self, what: str, *args: Any, **kwargs: Any) -> Any:
        """Have the instance do ``what``; what it returns, or raises.

        Raises:
            NoInstance: it has ended.
            CannotCross: an argument or the answer cannot be sent.
        """
        if what == "shutdown":
            AdminClient(self.state).shut_down()
            return None
        parcel = pack([pack(each) for each in args[0]] if what == "run_many" else (args, kwargs))
        request = pickle.dumps(Asked(what, import_folders(), parcel))
        far = self._thread.value
        return in_thread_of(far.token, far.ask, request)

    def close(self) -> None:
        """Hang up; calls that are under way are taken back, and the instance stays."""
        self._thread.close()

    def cut(self) -> None:
        """As `close`, from any thread, and at once."""
        self._thread.cut()


class FarInstance:
    """The Trio side of a connection: where handles of the script find what they call."""

    def __init__(self, state: StateDirectory, channel: Channel, nursery: trio.Nursery) -> None:
        self.token = trio.lowlevel.current_trio_token()
        self.thread_ident = threading.get_ident()
        self.endpoints: dict[str, Endpoint] = {}  # they are known over there only
        self.channel = channel
        self.nursery = nursery
        self._state = state

    async def ask(self, request: bytes) -> Any:
        """Send what was asked, and wait for the answer.  Cancelling takes it back, and undoes it."""
        try:
            reply = await self.channel.unary_unary(ASK)(fitting(request))
        except RpcError as error:
            found = self.error_of(error)
            raise NoInstance(str(found)) if isinstance(found, InstanceEnded) else found from None
        return unpack_outcome(reply, self.handle_to).unwrap()

    def find(self, application: str, deployment: str) -> FarDeployment:
        """The deployment of that name; whether there is one is seen when it is called."""
        return FarDeployment(self, deployment_address(application, deployment))

    def handle_to(self, kind: type, address: dict[str, Any]) -> Any:
        """A handle to something over there."""
        return kind(self, **address) if kind is DeploymentHandle else FarEndpointHandle(self, **address)

    def error_of(self, error: RpcError) -> Exception:
        """What it means that a call did not come to its end."""
        text = error.message or error.status.name
        if error.status is Status.DEADLINE_EXCEEDED:
            return DeadlinePassed("the deadline passed before the answer came")
        if error.status is Status.RESOURCE_EXHAUSTED:
            return CannotCross(text)
        if error.status in (Status.UNAVAILABLE, Status.CANCELLED):
            if self._state.is_owned():
                return InstanceEnded(f"the instance in {self._state.path} does not answer: {text}")
            return InstanceEnded(
                f"no instance is running in {self._state.path}; `trio-serve start`, or "
                "serve.start(detached=True), starts one"
            )
        return ServeError(f"{error.status.name}: {text}")


class FarEndpointHandle(EndpointHandle):
    """Calls an endpoint of another process, whose traffic policy chooses there."""

    def remote(self, request_data: Any = None, **query_params: Any) -> DeploymentResponse[Any]:
        """Call the endpoint; never waits.  That there is no such endpoint is told by the response."""
        handle: DeploymentHandle[DeploymentResponse[Any]] = DeploymentHandle(
            _ToEndpoint(self._directory, self.address), "", self.endpoint_name
        )
        return handle.remote(request_data, **query_params)


class _ToEndpoint:
    """Where the calls of one endpoint handle go."""

    def __init__(self, far: Any, address: dict[str, Any]) -> None:
        self.token = far.token
        self.thread_ident = far.thread_ident
        self._far = far
        self._address = address

    def find(self, application: str, deployment: str) -> FarDeployment:
        return FarDeployment(self._far, self._address_of)

    def _address_of(self, call: Call) -> Address:
        return EndpointHandle, self._address


@asynccontextmanager
async def _open_far_instance(state: StateDirectory) -> AsyncIterator[FarInstance]:
    async with (
        open_channel(f"unix://{state.code_socket_path}", message_bytes_max=PARCEL_BYTES_MAX) as channel,
        trio.open_nursery() as nursery,
    ):
        yield FarInstance(state, channel, nursery)
        nursery.cancel_scope.cancel()


def import_folders() -> tuple[str, ...]:
    """Where this script imports its own modules from: not Python's library, nor what is installed."""
    library = [sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders = dict.fromkeys(os.path.abspath(entry) for entry in sys.path)
    return tuple(
        folder
        for folder in folders
        if os.path.isdir(folder)
        and not f"{folder}{os.sep}".startswith(tuple(library))
        and os.path.basename(folder) not in ("site-packages", "dist-packages")
    )
