"""What can go wrong between a caller and a deployment, apart from what the deployment's own code raises."""


class ServeError(Exception):
    """The common ancestor, for those who want to catch them all."""


class BackPressureError(ServeError):
    """The deployment's queue is full, or too long for this call's deadline.

    Raised at once, so that the caller can back off; ``why`` is empty for a full queue.
    """

    def __init__(self, num_queued_requests: int, max_queued_requests: int, why: str = "") -> None:
        self.num_queued_requests = num_queued_requests
        self.max_queued_requests = max_queued_requests
        self.why = why
        text = (
            f"Request dropped due to backpressure (num_queued_requests={num_queued_requests}, "
            f"max_queued_requests={max_queued_requests})."
        )
        self.message = f"{text} {why}" if why else text
        """The text, which Ray Serve has under this name."""
        super().__init__(self.message)


class DeploymentUnavailable(ServeError):
    """Nothing serves this deployment now: it failed, was deleted, or never was there."""

    def __init__(self, application: str, deployment: str, cause: object) -> None:
        self.application = application
        self.deployment = deployment
        self.cause = one_line(cause)
        super().__init__(
            f"deployment {deployment!r} of application {application!r} is unavailable: {self.cause}"
        )


class MethodNotFound(ServeError, AttributeError):
    """The deployment has no such method; the text lists those that it has."""

    def __init__(self, deployment: str, method: str, available: list[str]) -> None:
        self.deployment = deployment
        self.method = method
        self.available = sorted(available)
        super().__init__(
            f"deployment {deployment!r} has no method {method!r}; it has {', '.join(self.available)}"
        )


class WrongMethodKind(ServeError, TypeError):
    """A generator was called for one answer, or a plain method for a stream.

    ``streamed`` says how the method was called.
    """

    def __init__(self, deployment: str, method: str, streamed: bool, returned: str = "") -> None:
        self.deployment = deployment
        self.method = method
        self.streamed = streamed
        if streamed:
            what = f"returned {returned}, which is no generator" if returned else "is no generator"
            text = (
                f"{deployment}.{method} {what}, but was called with stream=True; "
                f"call it without: handle.{method}.remote(...)"
            )
        else:
            text = (
                f"{deployment}.{method} is a generator; its items are streamed, so call it with stream=True: "
                f"handle.options(stream=True).{method}.remote(...)"
            )
        super().__init__(text)


class CannotCross(ServeError, TypeError):
    """A value or an error that does not get to another process, or back; says why."""


class ReplicaUnhealthy(ServeError):
    """``check_health()`` raised, or did not return in time; the replica is replaced."""


def one_line(cause: object) -> str:
    """An error or a text as one line: the type and the first line of what it says."""
    text = str(cause).strip()
    if isinstance(cause, BaseException):
        name = type(cause).__name__
        if isinstance(cause, ServeError) and text:
            name = ""
        text = f"{name}: {text}" if name and text else name or text
    return " ".join(text.split("\n", 1)[0].split())
