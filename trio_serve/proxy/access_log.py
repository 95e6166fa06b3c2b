"""A line for each request that a proxy answered.

    gRPC    /helloworld.Greeter/SayHello app1 OK 2.9ms
    HTTP    GET /t 200 4.5ms

The lines go to the logger ``trio_serve.access`` at INFO, with ``component``, ``application``, ``route`` and
``request_id`` on the record; how they are written, and where, is the log's affair.
"""

import logging
import time
from collections.abc import Mapping

from trio_serve.serving.running_application import RunningApplication

logger = logging.getLogger("trio_serve.access")


class AccessLog:
    """Writes access lines while ``enabled``.

    The flag is for the hot path: who answers looks at it before calling, because to ask the logger costs ten
    times as much.  It is read from the logger when the proxy is made, and again by `refresh`.

    An application whose ingress has log settings of its own may want none of its own requests.
    """

    __slots__ = ("_applications", "_like", "enabled")

    def __init__(self, applications: Mapping[str, RunningApplication] | None = None) -> None:
        self.enabled = False
        self._applications = {} if applications is None else applications
        # What is the same on every record.  Finding it out anew, as the logger does, takes as long as all
        # that follows: it looks for the caller's file, the thread and the process.
        self._like = logging.LogRecord(logger.name, logging.INFO, __file__, 0, "", (), None).__dict__
        self._like.update(component="proxy", deployment="", replica="", backend="")
        self.refresh()

    def refresh(self) -> None:
        """Ask the logger whether anybody wants access lines; to be called when logging has changed."""
        self.enabled = logger.isEnabledFor(logging.INFO)

    def grpc(self, path: str, application: str, code: str, seconds: float, request_id: str) -> None:
        """One gRPC call was answered with the status named ``code``."""
        text = f"{path} {application or '-'} {code} {seconds * 1e3:.1f}ms"
        self._write(text, application, path, request_id)

    def http(
        self, method: str, path: str, code: int, seconds: float, application: str, route: str, request_id: str
    ) -> None:
        """One HTTP request was answered with the status ``code``."""
        self._write(f"{method} {path} {code} {seconds * 1e3:.1f}ms", application, route, request_id)

    def _write(self, text: str, application: str, route: str, request_id: str) -> None:
        running = self._applications.get(application)
        settings = None if running is None else running.ingress.options.logging_config
        if not getattr(settings, "enable_access_log", True):
            return
        record = logging.LogRecord.__new__(logging.LogRecord)
        now = time.time()
        record.__dict__.update(
            self._like,
            msg=text,
            created=now,
            msecs=now % 1 * 1e3,
            application=application,
            route=route,
            request_id=request_id,
        )
        logger.handle(record)
