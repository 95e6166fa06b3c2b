"""A line for each request that a proxy answered.

    gRPC    /helloworld.Greeter/SayHello app1 OK 2.9ms
    HTTP    GET /t 200 4.5ms

The lines go to the logger ``trio_serve.access`` at INFO, with ``component``, ``application``, ``route`` and
``request_id`` on the record; how they are written, and where, is the log's affair.
"""

import logging

logger = logging.getLogger("trio_serve.access")


class AccessLog:
    """Writes access lines while ``enabled``.

    The flag is for the hot path: who answers looks at it before calling, because to ask the logger costs ten
    times as much.  It is read from the logger when the proxy is made, and again by `refresh`.
    """

    __slots__ = ("enabled",)

    def __init__(self) -> None:
        self.enabled = False
        self.refresh()

    def refresh(self) -> None:
        """Ask the logger whether anybody wants access lines; to be called when logging has changed."""
        self.enabled = logger.isEnabledFor(logging.INFO)

    def grpc(self, path: str, application: str, code: str, seconds: float, request_id: str) -> None:
        """One gRPC call was answered with the status named ``code``."""
        logger.info(
            "%s %s %s %.1fms",
            path,
            application or "-",
            code,
            seconds * 1e3,
            extra=_fields(application, path, request_id),
        )

    def http(
        self, method: str, path: str, code: int, seconds: float, application: str, route: str, request_id: str
    ) -> None:
        """One HTTP request was answered with the status ``code``."""
        logger.info(
            "%s %s %d %.1fms",
            method,
            path,
            code,
            seconds * 1e3,
            extra=_fields(application, route, request_id),
        )


def _fields(application: str, route: str, request_id: str) -> dict[str, str]:
    return {"component": "proxy", "application": application, "route": route, "request_id": request_id}
