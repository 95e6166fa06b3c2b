"""How commands and scripts speak to the instance of a state directory: HTTP over its Unix socket.

Blocking, for programs that have no loop.  Knows nothing of command lines.
"""

import http.client
import json
import socket
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

from trio_serve.instance.admin_api import APPLICATIONS, SHUTDOWN
from trio_serve.instance.state_directory import StateDirectory

REQUEST_TIMEOUT_S = 60.0
LOOK_EACH_S = 0.05


class NoInstance(RuntimeError):
    """There is no instance to speak to; the text says how to start one."""


class Refused(ValueError):
    """The instance does not do this, and says why; one line for each reason."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=REQUEST_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class AdminClient:
    """Asks the instance that lives in ``state``.

    Each method raises `NoInstance` when there is none, and `Refused` when it says no.
    """

    def __init__(self, state: StateDirectory) -> None:
        self._state = state

    def details(self) -> dict[str, Any]:
        """ServeInstanceDetails."""
        details: dict[str, Any] = json.loads(self._ask("GET", f"{APPLICATIONS}/"))
        return details

    def deploy(self, text: bytes, folder: str, import_folders: Sequence[str] = ()) -> list[str]:
        """Have what the YAML ``text`` describes, from now on; warnings.  Does not wait for it."""
        places = [("folder", folder), *(("import_folder", each) for each in import_folders)]
        target = f"{APPLICATIONS}/?{urlencode(places)}"
        answer = self._ask("PUT", target, text, {"content-type": "application/yaml"})
        warnings: list[str] = json.loads(answer)["warnings"]
        return warnings

    def wait_until_settled(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait until nothing is on its way up or down; the details then, or when the time is over."""
        give_up = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            details = self.details()
            words = {app["status"] for app in details["applications"].values()}
            if not words & {"NOT_STARTED", "DEPLOYING", "DELETING"}:
                return details
            if give_up is not None and time.monotonic() >= give_up:
                return details
            time.sleep(LOOK_EACH_S)

    def delete(self, name: str) -> None:
        """Have the application ``name`` no more."""
        self._ask("DELETE", f"{APPLICATIONS}/{quote(name, safe='')}")

    def shut_down(self) -> None:
        """Forget all applications, drain them, and wait until the instance has ended."""
        self._ask("DELETE", f"{APPLICATIONS}/")
        self._ask("POST", SHUTDOWN)
        while self._state.is_owned():
            time.sleep(LOOK_EACH_S)

    def _ask(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        connection = _UnixConnection(self._state.socket_path)
        try:
            connection.request(method, target, body, headers or {})
            response = connection.getresponse()
            answer = response.read()
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoInstance(
                f"no instance is running in {self._state.path}; `trio-serve start` starts one"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise NoInstance(
                f"the instance in {self._state.path} does not answer: {error or type(error).__name__}"
            ) from None
        finally:
            connection.close()
        if response.status != 200:
            raise Refused(response.status, answer.decode("utf-8", "replace").rstrip("\n"))
        return answer
