"""The layer table, read back from the imports.

Each folder of the package is a layer.  The table says what it may import; whatever else a module imports,
at its top or inside a function, is a breach, and this test names it.
"""

import ast
import pathlib
import sys
from collections.abc import Iterator

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "trio_serve"

# layer: (layers of ours that it may know, libraries that it may know besides the standard library)
LAYERS: dict[str, tuple[set[str], set[str]]] = {
    "wire.http2": (set(), set()),
    "wire.grpc": (set(), {"grpclib"}),
    "wire": (set(), set()),
    "actors": (set(), {"trio", "outcome", "attrs"}),
    "transport": ({"wire.http2"}, {"trio", "outcome", "attrs"}),
    "grpc": (
        {"wire.grpc", "wire.http2", "transport", "actors"},
        {"trio", "outcome", "grpclib", "google", "attrs", "multidict"},
    ),
    "generated": ({"grpc"}, set()),
    "serving": ({"actors"}, {"trio", "outcome", "attrs", "cattrs", "typing_extensions"}),  # the last for mypy
    "proxy": (
        {"wire.grpc", "transport", "grpc", "actors", "serving"},
        {
            *("trio", "outcome", "attrs", "grpclib", "google"),
            *("starlette", "fastapi", "hypercorn", "h11", "wsproto"),
        },
    ),
    "observe": (
        {"wire.grpc", "transport", "grpc", "actors", "serving", "proxy"},
        {"trio", "outcome", "attrs", "grpclib", "prometheus_client"},
    ),
    "instance": (
        {"wire.grpc", "transport", "grpc", "actors", "serving", "proxy", "observe"},
        {
            *("trio", "outcome", "attrs", "cattrs", "yaml", "grpclib", "cloudpickle"),
            *("starlette", "hypercorn", "watchfiles"),
        },
    ),
    "engines": (set(), {"ray"}),
    "testing": (
        {"transport", "grpc", "actors", "serving", "proxy", "observe", "instance"},
        {"trio", "outcome", "attrs", "pytest", "anyio", "cloudpickle"},
    ),
    # the faces at the top: the public names and the command line
    "": (
        {"transport", "grpc", "actors", "serving", "proxy", "observe", "instance", "engines", "testing"},
        {"trio", "click", "mypy"},
    ),
}

# The door of each layer to those that may not be named here stays shut: nothing but these opens `proxy`.
OPENS_PROXY = {"instance", "testing", "observe", ""}


def layer_of(module: str) -> str:
    """The longest layer name that ``module`` (dotted, below trio_serve) lies in."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in LAYERS:
            return ".".join(parts[:length])
    return ""


def modules() -> Iterator[tuple[str, pathlib.Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE).with_suffix("")
        parts = [part for part in relative.parts if part != "__init__"]
        yield ".".join(parts), path


def imported(module: str, path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of each import in the file, wherever it stands."""
    package = ["trio_serve", *module.split(".")] if module else ["trio_serve"]
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])


def breaches(module: str, path: pathlib.Path) -> Iterator[str]:
    layer = layer_of(module)
    ours, libraries = LAYERS[layer]
    for line, name in imported(module, path):
        root, _, rest = name.partition(".")
        if root == "trio_serve":
            target = layer_of(rest)
            if target != layer and target not in ours and not (target == "" and layer == ""):
                yield f"{path.relative_to(PACKAGE.parent)}:{line}: {layer or 'the top'} imports {name}"
        elif root not in sys.stdlib_module_names and root not in libraries:
            yield f"{path.relative_to(PACKAGE.parent)}:{line}: {layer or 'the top'} imports library {root}"


@pytest.mark.parametrize(
    "module, path", [pytest.param(*found, id=found[0] or "__init__") for found in modules()]
)
def test_a_module_knows_only_what_its_layer_may_know(module: str, path: pathlib.Path) -> None:
    assert list(breaches(module, path)) == []


def test_only_the_rooms_above_open_the_proxy() -> None:
    assert {layer for layer, (ours, _) in LAYERS.items() if "proxy" in ours} == OPENS_PROXY


def test_each_folder_is_a_layer() -> None:
    """A new folder must be named in the table before it is used."""
    folders = {
        ".".join(path.parent.relative_to(PACKAGE).parts)
        for path in PACKAGE.rglob("*.py")
        if path.parent != PACKAGE
    }
    assert {folder for folder in folders if layer_of(folder) == ""} == set()


@pytest.mark.parametrize("word", ["utils", "util", "common", "constants", "helpers", "types", "misc"])
def test_no_module_is_named_for_nothing(word: str) -> None:
    assert list(PACKAGE.rglob(f"{word}.py")) == []
