"""How a command or a script leaves a long-lived instance behind, and what a script gives it on the way.

    serve.start(detached=True, grpc_options=...) ──a pipe──> trio-serve start --blocking --options-fd=N

Knows nothing of what the instance does.
"""

import os
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from trio_serve.instance.background import LeftBehind, leave_behind
from trio_serve.instance.far_instance import import_folders
from trio_serve.instance.importing import put_on_import_path
from trio_serve.instance.parcels import pack, unpack
from trio_serve.instance.start_options import StartOptions
from trio_serve.instance.state_directory import StateDirectory


def start_detached(
    state: StateDirectory, argv: Sequence[str], options: Mapping[str, Any] | None = None
) -> LeftBehind:
    """Start an instance in ``state``, as ``trio-serve`` does for ``argv``, and wait until it serves.

    ``options`` are those of `StartOptions` that a script gives, objects and all.

    Raises:
        DidNotStart: it ended without serving; the text says why.
        OSError: the folder cannot be used.
    """
    state.make()
    given = pickle.dumps((import_folders(), pack(dict(options)))) if options else b""
    with state.output_path.open("a+b") as output:
        return leave_behind(argv, output, given)


def with_options_of_script(given: StartOptions, options_fd: int) -> StartOptions:
    """``given`` with what the script at the other end of ``options_fd`` says."""
    with os.fdopen(options_fd, "rb") as reading:
        folders, parcel = pickle.loads(reading.read())
    put_on_import_path(folders)
    return attrs.evolve(given, **unpack(parcel, _no_handle))


def _no_handle(kind: type, address: dict[str, Any]) -> Any:
    raise TypeError("no handle can be used before there is an instance")
