"""What calls of handles raise, under the name that Ray Serve has for its place: ``ray.serve.exceptions``."""

from trio_serve.actors import CallCancelled, DeadlinePassed
from trio_serve.serving.errors import (
    BackPressureError,
    CannotCross,
    DeploymentUnavailable,
    MethodNotFound,
    ReplicaUnhealthy,
    ServeError,
    WrongMethodKind,
)
from trio_serve.serving.responses import InstanceEnded

__all__ = [
    "BackPressureError",
    "CallCancelled",
    "CannotCross",
    "DeadlinePassed",
    "DeploymentUnavailable",
    "InstanceEnded",
    "MethodNotFound",
    "ReplicaUnhealthy",
    "ServeError",
    "WrongMethodKind",
]
