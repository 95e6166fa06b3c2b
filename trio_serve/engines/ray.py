"""The same application file on a Ray cluster: there, the names of this package are Ray Serve's.

    TRIO_SERVE_ENGINE=ray      import trio_serve as serve                     serve.deployment   is Ray's
                               from trio_serve.handle import ...              ray.serve.handle
                               from trio_serve.metrics import ...             ray.util.metrics

So decorators, handles, batches and models are Ray's own, and Ray's tools deploy the file as any other of
theirs.  What Ray Serve does not have raises when it is used, and says so; ``trio_serve.grpc`` stays as it is.

Source: the names of Ray Serve 2.60, which ours are.
Knows nothing of how either side serves.
"""

import importlib
import sys
from typing import Any

_MODULES = {
    "trio_serve.config": "ray.serve.config",
    "trio_serve.exceptions": "ray.serve.exceptions",
    "trio_serve.grpc_util": "ray.serve.grpc_util",
    "trio_serve.handle": "ray.serve.handle",
    "trio_serve.metrics": "ray.util.metrics",
}


def stand_in() -> None:
    """From now on in this process, let Ray's modules answer to our names.

    Raises:
        ImportError: Ray Serve is not installed.
    """
    for ours, theirs in _MODULES.items():
        sys.modules[ours] = importlib.import_module(theirs)


def name_of_ray_serve(name: str) -> Any:
    """``ray.serve.<name>``, or one of its modules that has a place here.

    Raises:
        AttributeError: Ray Serve has no such thing.
    """
    module = sys.modules.get(f"trio_serve.{name}")
    if module is not None:
        return module
    try:
        return getattr(importlib.import_module("ray.serve"), name)
    except AttributeError:
        raise AttributeError(
            f"'trio_serve.{name}' is not in Ray Serve, whose names are used here (TRIO_SERVE_ENGINE=ray)"
        ) from None
