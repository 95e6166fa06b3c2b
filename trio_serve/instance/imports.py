"""The modules of the user's in a process that outlives their edits: imported again when their source changed.

    shop.py ──imports──> prices.py          prices.py is edited: both are forgotten, and whoever imports them
                                            next gets new ones; what runs keeps the modules that it has

A module is the user's if its source lies in a folder that modules are looked for in and belongs to no
installed distribution.  What it imports is read from its source.  A module of the same name that is now found
in another folder (two projects with a ``shop.py`` each) has changed, too.

Libraries stay as they are until the process ends, and so do modules written in C.
Knows nothing of what is imported, and what for.
"""

import ast
import contextlib
import functools
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TypeVar

import trio

from trio_serve.instance.importing import put_on_import_path

Result = TypeVar("Result")
Stamp = tuple[int, int]
Sources = Mapping[str, Stamp]
"""When each file was written, and how long it was, as it was imported."""

CLOCKS_DIFFER_NS = 10**9
"""That of a file system may lag behind."""

_INSTALLED = ("site-packages", "dist-packages")
_OURS = __name__.partition(".")[0]


class Imports:
    """Keeps count of what this process has imported for its users."""

    def __init__(self) -> None:
        self._alone = trio.Lock()
        self._not_theirs = frozenset(sys.modules)
        self._folders: tuple[str, ...] = ()
        self._stamps: dict[str, tuple[str, Stamp]] = {}
        self._looked_at = time.time_ns()

    async def run(self, folders: Sequence[str], act: Callable[[], Result]) -> Result:
        """Let ``act`` import what it likes, from ``folders`` first, in a thread; others wait their turn.

        Code that is imported expects to be alone.  Cancelling leaves the thread to itself.
        """
        async with self._alone:
            return await trio.to_thread.run_sync(self._run, folders, act, abandon_on_cancel=True)

    def _run(self, folders: Sequence[str], act: Callable[[], Result]) -> Result:
        put_on_import_path(folders)
        self._folders = tuple(dict.fromkeys((*map(os.path.realpath, folders), *self._folders)))
        before = self._forget_changed()
        stamps = {name: self._stamps.pop(name) for name in before if name in self._stamps}
        try:
            result = act()
        except BaseException:
            # What runs may import them again, at its next call.
            for name, module in before.items():
                sys.modules[name] = module
                _tell_package(name, module)
            self._stamps.update(stamps)
            raise
        self._look()
        return result

    def _look(self) -> None:
        """Note how the files of modules that are new are now."""
        self._looked_at = time.time_ns()
        for name, path in self._theirs().items():
            if name not in self._stamps:
                self._stamps[name] = path, _stamp(path)

    def sources_of(self, module: str) -> Sources:
        """The files of ``module``, its packages, and all that these import."""
        theirs = self._theirs()
        found: dict[str, None] = dict.fromkeys(name for name in _with_packages(module) if name in theirs)
        for name in (left := list(found)):
            for imported in _imported_by(theirs[name], name):
                if imported in theirs and imported not in found:
                    found[imported] = None
                    left.append(imported)
        return dict(self._stamps[name] for name in found if name in self._stamps)

    def _forget_changed(self) -> dict[str, ModuleType]:
        """Forget the modules whose source has changed, and those that import them; what they were."""
        importlib.invalidate_caches()
        theirs = self._theirs()
        changed = {name for name, path in theirs.items() if self._has_changed(name, path)}
        while True:
            importers = {
                name
                for name, path in theirs.items()
                if name not in changed and not changed.isdisjoint(_imported_by(path, name))
            }
            if not importers:
                break
            changed |= importers
        for name in changed:
            _tell_package(name, None)
            # Two edits within a second, of the same length, look the same to cached bytecode.
            with contextlib.suppress(OSError):
                os.unlink(importlib.util.cache_from_source(theirs[name]))
        return {name: sys.modules.pop(name) for name in changed}

    def _has_changed(self, name: str, path: str) -> bool:
        stamp = _stamp(path)
        if name not in self._stamps:  # imported by code that runs, at a time not known
            return stamp[0] > self._looked_at - CLOCKS_DIFFER_NS
        if self._stamps[name] != (path, stamp):
            return True
        if "." in name:
            return False  # goes with its package
        spec = PathFinder.find_spec(name)
        return spec is not None and spec.origin is not None and os.path.realpath(spec.origin) != path

    def _theirs(self) -> dict[str, str]:
        """The user's modules: the file of each by its name."""
        theirs = {}
        for name, module in list(sys.modules.items()):
            if name in self._not_theirs or name.partition(".")[0] == _OURS:
                continue
            path = _source(module)
            if path is not None and self._is_theirs(path):
                theirs[name] = path
        return theirs

    def _is_theirs(self, path: str) -> bool:
        folder = next((each for each in self._folders if path.startswith(each + os.sep)), None)
        return folder is not None and not any(part in _INSTALLED for part in path.split(os.sep))


def changed(sources: Sources) -> bool:
    """Whether one of the files is another one now."""
    return any(_stamp(path) != stamp for path, stamp in sources.items())


def _source(module: ModuleType) -> str | None:
    path = getattr(module, "__file__", None)
    return os.path.realpath(path) if isinstance(path, str) and path.endswith(".py") else None


def _tell_package(name: str, module: ModuleType | None) -> None:
    """Let a module's package have it as its attribute, where ``from package import`` looks, or no longer."""
    package, _, last = name.rpartition(".")
    if package not in sys.modules:
        return
    if module is None:
        vars(sys.modules[package]).pop(last, None)
    else:
        setattr(sys.modules[package], last, module)


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def _with_packages(module: str) -> Iterator[str]:
    steps = module.split(".")
    return (".".join(steps[:count]) for count in range(1, len(steps) + 1))


def _imported_by(path: str, module: str) -> frozenset[str]:
    """The modules that the source at ``path`` names in its imports, their packages included."""
    return _read_imports(path, module, _stamp(path))


@functools.lru_cache(maxsize=4096)
def _read_imports(path: str, module: str, stamp: Stamp) -> frozenset[str]:
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return frozenset()
    package = module if os.path.basename(path) == "__init__.py" else module.rpartition(".")[0]
    return frozenset(each for name in _names(tree, package) for each in _with_packages(name))


def _names(tree: ast.AST, package: str) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)  # a module, or a name in one
