"""From an import path to an application: what leads there, and what each wrong path is told."""

import itertools
import pathlib
import sys
import textwrap
from collections.abc import Callable

import pytest

from trio_serve.instance.importing import (
    ImportedCodeRaised,
    ImportTargetError,
    import_application,
    put_on_import_path,
)

SHOP = """
    import dataclasses
    import attrs, pydantic
    import trio_serve as serve

    @serve.deployment
    class Shop:
        def __init__(self, size=1): self.size = size
        def __call__(self): return self.size

    app = Shop.bind(3)
    five = 5
    nested = type("Nested", (), {"app": app})

    def build(args): return Shop.bind(args.get("size"))
    def build_nothing(args): return Shop
    def build_of_two(args, more): ...
    def build_badly(args): raise ZeroDivisionError("in the builder")

    @attrs.frozen
    class Args:
        size: int
        colour: str = "red"

    def build_typed(args: Args): return Shop.bind(args)

    @dataclasses.dataclass
    class DataArgs:
        size: int

    def build_dataclass(args: DataArgs): return Shop.bind(args)

    class Model(pydantic.BaseModel):
        size: int

    def build_pydantic(args: Model): return Shop.bind(args)
"""
counter = itertools.count()


@pytest.fixture
def module(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module of its own name and return that."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    put_on_import_path([str(tmp_path)])

    def write(source: str) -> str:
        name = f"imported_{next(counter)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        return name

    return write


@pytest.fixture
def shop(module: Callable[[str], str]) -> str:
    return module(SHOP)


@pytest.mark.parametrize("path", [":app", ".app", ":nested.app"])
def test_a_path_with_or_without_a_colon_leads_to_an_application(shop: str, path: str) -> None:
    assert import_application(shop + path).args == (3,)


def test_a_builder_gets_its_arguments(shop: str) -> None:
    assert import_application(f"{shop}:build", {"size": "9"}).args == ("9",)
    assert import_application(f"{shop}:build").args == (None,)


@pytest.mark.parametrize("builder", ["build_typed", "build_dataclass", "build_pydantic"])
def test_a_builder_that_declares_a_type_gets_an_object_of_it(shop: str, builder: str) -> None:
    (made,) = import_application(f"{shop}:{builder}", {"size": "9"}).args

    assert made.size == 9
    assert type(made).__name__ in ("Args", "DataArgs", "Model")


@pytest.mark.parametrize(
    "path, args, told",
    [
        ("nowhere_at_all:app", {}, "there is no module 'nowhere_at_all'"),
        ("{}:ap", {}, "has no attribute 'ap'; did you mean 'app'?"),
        ("{}:five", {}, "is 5 of type int, and neither an application nor a function that returns one"),
        (
            "{}:Shop",
            {},
            "is a deployment; bind its arguments to make it an application: app = Shop.bind(...)",
        ),
        ("{}:Args", {}, "is the class Args, and neither an application"),
        ("{}:serve", {}, "is the module trio_serve, and neither an application"),
        ("{}:app", {"size": "1"}, "is an application and takes no arguments, but got size"),
        (
            "{}:build_nothing",
            {},
            "returned Deployment(name='Shop') of type Deployment; it must return an app",
        ),
        ("{}:build_of_two", {}, "has 2 parameters; it needs one, for its arguments"),
        (
            "{}:build_typed",
            {"size": "x"},
            "the arguments do not fit '{}:build_typed': invalid value for type",
        ),
        ("{}:build_typed", {"size": "1", "sise": "2"}, "extra fields found (sise) @ args"),
        ("{}:build_pydantic", {"size": "x"}, "size: Input should be a valid integer"),
    ],
)
def test_each_wrong_path_is_told(shop: str, path: str, args: dict[str, str], told: str) -> None:
    with pytest.raises(ImportTargetError) as caught:
        import_application(path.format(shop), args)

    assert told.format(shop) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source, error",
    [
        ("1 / 0", ZeroDivisionError),
        ("import not_there_either", ModuleNotFoundError),
        ("def broken(:", SyntaxError),
        ("import sys; sys.exit(3)", SystemExit),
    ],
)
def test_what_a_module_raises_is_told_apart_and_kept(
    module: Callable[[str], str], source: str, error: type[BaseException]
) -> None:
    name = module(source)

    with pytest.raises(ImportedCodeRaised) as caught:
        import_application(f"{name}:app")

    assert isinstance(caught.value.__cause__, error)
    assert name in str(caught.value)


def test_what_a_builder_raises_is_told_apart_and_kept(shop: str) -> None:
    with pytest.raises(ImportedCodeRaised, match="raised ZeroDivisionError") as caught:
        import_application(f"{shop}:build_badly")

    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_folders_come_first_in_their_order_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/a", "/b", "/c"])

    put_on_import_path(["/c", "/d", "/c"])

    assert sys.path == ["/c", "/d", "/a", "/b"]
