"""What calls of handles raise, under the name that Ray Serve has for its place: ``ray.serve.exceptions``."""

from trio_serve.actors import CallCancelled, DeadlinePassed
from trio_serve.serving.errors import (
    BackPressureError,
    DeploymentUnavailable,
    MethodNotFound,
    ReplicaUnhealthy,
    ServeError,
    WrongMethodKind,
)

__all__ = [
    "BackPressureError",
    "CallCancelled",
    "DeadlinePassed",
    "DeploymentUnavailable",
    "MethodNotFound",
    "ReplicaUnhealthy",
    "ServeError",
    "WrongMethodKind",
]
