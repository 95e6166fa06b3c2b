"""What scripts have deployed in a long-lived instance: done, written down, and done again by the next one.

    run, create_backend, set_traffic ...   the instance does it ──> scripted.pickle ──restart──> asked again
    delete ...                             scripted.pickle loses it ──> the instance does it

Kept is what was asked, as it was sent: the code itself for what lies in ``__main__``, the import path for the
rest, whose newest source is then imported.  Of several wishes about the same thing the last one is kept, and
one that failed, or whose script left before it was done, is not.

A configuration stands beside it: its applications are its own, and it may take over what a script has.
Knows nothing of sockets.
"""

import logging
import operator
import pickle
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

import trio

from trio_serve.instance.far_instance import Asked
from trio_serve.instance.importing import put_on_import_path
from trio_serve.instance.imports import Imports
from trio_serve.instance.instance import Handle, Instance
from trio_serve.instance.parcels import pack, unpack
from trio_serve.instance.settings import Mistake, Mistakes
from trio_serve.instance.state_directory import StateDirectory
from trio_serve.instance.targets import RunTarget
from trio_serve.serving.responses import InstanceEnded
from trio_serve.serving.status import ApplicationStatus

logger = logging.getLogger("trio_serve.deploy")

Key = tuple[str, ...]
"""What a wish is about: a kind of thing, and its name."""

RUN = "run_many"
DEPLOYING = (RUN, "backends.create_backend", "backends.update_backend_config")

LOOKING = frozenset(
    {
        *("status", "addresses", "grpc_port", "http_port", "get_app_handle", "get_deployment_handle"),
        *("backends.get_backend_config", "backends.list_backends", "backends.list_endpoints"),
        "backends.get_handle",
    }
)
MAKING = {
    "backends.create_backend": "backend",
    "backends.update_backend_config": "backend config",
    "backends.create_endpoint": "endpoint",
    "set_traffic": "traffic",
    "shadow_traffic": "shadow",
}
ENDING = {
    "delete": ("application", "backend", "backend config", "traffic", "shadow"),
    "backends.delete_backend": ("backend", "backend config"),
    "backends.delete_endpoint": ("endpoint", "traffic", "shadow"),
}
CODE = ("application", "backend")
"""What is started first, all at the same time, when all is asked again."""


class Scripted:
    """Does what scripts ask for with ``instance``, and keeps what is to be there after a restart."""

    def __init__(
        self,
        instance: Instance,
        imports: Imports,
        state: StateDirectory,
        handle_to: Callable[[type, dict[str, Any]], Any],
        configured: Callable[[], Collection[str]],
        delete_configured: Callable[[str], Awaitable[None]],
    ) -> None:
        self.restored = trio.Event()
        """Set when all that was kept has been tried."""
        self._unrestored: dict[Key, str] = {}
        self._instance = instance
        self._imports = imports
        self._state = state
        self._handle_to = handle_to
        self._configured = configured
        self._delete_configured = delete_configured
        self._deploying: set[trio.CancelScope] = set()
        self._kept: dict[Key, Asked] = {}
        self._writing = trio.Lock()

    async def ask(self, asked: Asked) -> Any:
        """Do what was ``asked``; what comes of it.

        Raises:
            Exception: what the instance raises; nothing is kept then.
        """
        with trio.CancelScope() as scope:
            if asked.what in DEPLOYING:
                self._deploying.add(scope)
            try:
                return await self._do(asked)
            finally:
                self._deploying.discard(scope)
        raise InstanceEnded("the instance is being shut down; what was being deployed is undone")

    def stop(self) -> None:
        """Undo what is being deployed; what is being deleted finishes its calls."""
        for scope in self._deploying:
            scope.cancel()

    async def open(self, asked: Asked, parcel: bytes | None = None) -> Any:
        """What is in the parcel of ``asked``, or in one that was in it; imports what that needs.

        What is to be deployed gets the newest source, all else the modules that are there.
        """
        act = partial(unpack, asked.parcel if parcel is None else parcel, self._handle_to)
        if asked.what in DEPLOYING:
            return await self._imports.run(asked.folders, act)
        put_on_import_path(asked.folders)
        return act()

    async def _do(self, asked: Asked) -> Any:
        if asked.what == RUN:
            return await self._run(asked)
        act = self._act(asked.what)
        args, kwargs = await self.open(asked)
        if asked.what in LOOKING:
            return act(*args, **kwargs) if callable(act) else act
        if asked.what in ENDING:
            return await self._end(asked.what, args[0], partial(act, *args, **kwargs))
        await act(*args, **kwargs)
        kind = MAKING[asked.what]
        if kind == "backend config":
            # Changes add up; what has come of them is kept.
            config = self._instance.backends.get_backend_config(args[0])
            asked = Asked(asked.what, asked.folders, pack(((args[0], config), {})))
        await self._keep({(kind, *(str(arg) for arg in args[: 2 if kind == "shadow" else 1])): asked})
        return None

    def _act(self, what: str) -> Any:
        if what not in LOOKING and what not in MAKING and what not in ENDING:
            raise ValueError(f"this instance knows no {what!r}; it is of another version than the script")
        return operator.attrgetter(what)(self._instance)

    # Applications.

    async def _run(self, asked: Asked) -> list[Handle]:
        parcels: list[bytes] = unpack(asked.parcel, self._handle_to)
        targets: list[RunTarget] = [await self.open(asked, parcel) for parcel in parcels]
        names = [target.name for target in targets]
        self._check_are_not_configured(names)
        new = [name for name in names if name not in self._instance.controller.applications]
        try:
            return await self._instance.run_many(targets)
        except Exception:
            raise
        except BaseException:  # cancelled, in whatever group that comes
            with trio.CancelScope(shield=True):  # within the timeouts of deployments that serve nobody yet
                for name in new:
                    if name in self._instance.controller.applications and not self._runs(name):
                        await self._instance.delete(name)
            raise
        finally:
            await self._keep(
                {
                    ("application", name): Asked(RUN, asked.folders, pack([parcel]))
                    for name, parcel in zip(names, parcels, strict=True)
                    if self._runs(name) and name not in self._configured()
                }
            )

    def _runs(self, name: str) -> bool:
        """Whether what was deployed last under this name came to run."""
        application = self._instance.controller.applications.get(name)
        return application is not None and application.phase is ApplicationStatus.RUNNING

    def _check_are_not_configured(self, names: Iterable[str]) -> None:
        """Refuse to run what a configuration has.

        Raises:
            Mistakes
        """
        held = [name for name in names if name in self._configured()]
        if held:
            raise Mistakes(
                Mistake(
                    ("name",),
                    f"{name!r} comes from a configuration; change it there and `trio-serve deploy` it, or "
                    "delete it first",
                )
                for name in held
            )

    async def _end(self, what: str, name: str, act: Callable[[], Any]) -> Any:
        if what == "delete" and name in self._configured():
            await self._delete_configured(name)
            return
        if what == "delete" and name in self._instance.controller.applications:
            await self.forget([name])
        if name not in self.unrestored or not {*ENDING[what]}.intersection(CODE):
            await act()
        await self._drop(key for key in self._kept if key[0] in ENDING[what] and key[1] == name)

    # What is kept.

    async def forget(self, names: Collection[str]) -> None:
        """Keep the applications of these names no more; they run on."""
        await self._drop(key for key in self._kept if key[0] in ENDING["delete"] and key[1] in names)

    async def forget_all(self) -> None:
        """Keep nothing."""
        await self._drop(list(self._kept))

    async def _keep(self, made: Mapping[Key, Asked]) -> None:
        if made:
            for key, asked in made.items():
                self._kept.pop(key, None)  # to the end: it may build on what came meanwhile
                self._kept[key] = asked
                self._unrestored.pop(key, None)
            await self._write()

    async def _drop(self, keys: Iterable[Key]) -> None:
        dropped = list(keys)
        for key in dropped:
            del self._kept[key]
            self._unrestored.pop(key, None)
        if dropped:
            await self._write()

    async def _write(self) -> None:
        # Done is done, whether or not the script still waits for the answer.
        with trio.CancelScope(shield=True):
            async with self._writing:
                written = pickle.dumps(self._kept) if self._kept else None
                await trio.to_thread.run_sync(self._state.write_scripted, written)

    # The next instance.

    @property
    def unrestored(self) -> dict[str, str]:
        """The applications and backends that are kept and are not there, and why."""
        there = self._instance.controller.applications
        return {
            key[1]: why for key, why in self._unrestored.items() if key[0] in CODE and key[1] not in there
        }

    def read(self) -> None:
        """Take up what the last instance has kept; what cannot be read is set aside, and told."""
        try:
            written = self._state.read_scripted()
            self._kept = {} if written is None else pickle.loads(written)
        except Exception as error:
            aside = self._state.set_scripted_aside()
            logger.error("what scripts deployed here is not restored, it is now in %s: %s", aside, error)

    async def restore(self, configured: Callable[[], Any]) -> None:
        """Ask for all that is kept again; ``configured()`` waits until applications of a configuration run.

        What fails is told in the log and by `unrestored`, and stays kept, for the instance after this one.
        """
        async with trio.open_nursery() as nursery:
            for key, asked in list(self._kept.items()):
                if key[0] in CODE and key[1] not in self._configured():
                    nursery.start_soon(self._restore, key, asked)
        await configured()
        for key, asked in list(self._kept.items()):
            if key[0] not in CODE:
                await self._restore(key, asked)
        self.restored.set()

    async def _restore(self, key: Key, asked: Asked) -> None:
        logger.info("%s: restoring", " ".join(key))
        try:
            if asked.what == RUN:
                (parcel,) = unpack(asked.parcel, self._handle_to)
                await self._instance.run_many([await self.open(asked, parcel)])
            else:
                args, kwargs = await self.open(asked)
                await self._act(asked.what)(*args, **kwargs)
        except Exception as error:
            logger.error("%s: not restored: %s", " ".join(key), error, exc_info=error)
            self._unrestored[key] = f"not restored, and tried again at the next start: {error}"
