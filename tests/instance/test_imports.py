"""Modules of the user's in a long-lived process: which are imported again, and which stay."""

import importlib
import os
import pathlib
import sys
from collections.abc import Callable, Iterator

import pytest

from trio_serve.instance.imports import Imports, changed

pytestmark = pytest.mark.real_clock

SHOP = "from imp_pkg import prices\nimport imp_leaf\nPRICE = prices.PRICE\n"


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    package = tmp_path / "imp_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "prices.py").write_text("PRICE = 1\n")
    (tmp_path / "imp_leaf.py").write_text("")
    (tmp_path / "imp_shop.py").write_text(SHOP)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("imp_")]:
        del sys.modules[name]


def importing(name: str) -> Callable[[], object]:
    return lambda: importlib.import_module(name)


async def test_a_module_whose_import_has_changed_is_imported_again_and_the_others_stay(
    folder: pathlib.Path,
) -> None:
    imports = Imports()
    shop = await imports.run([str(folder)], importing("imp_shop"))
    leaf = sys.modules["imp_leaf"]
    assert await imports.run([str(folder)], importing("imp_shop")) is shop

    (folder / "imp_pkg" / "prices.py").write_text("PRICE = 2\n")  # as long as before, in the same second
    again = await imports.run([str(folder)], importing("imp_shop"))

    assert (shop.PRICE, again.PRICE) == (1, 2)  # type: ignore[attr-defined]
    assert sys.modules["imp_leaf"] is leaf


async def test_an_edit_that_does_not_import_leaves_the_modules_as_they_were(folder: pathlib.Path) -> None:
    imports = Imports()
    shop = await imports.run([str(folder)], importing("imp_shop"))
    prices = sys.modules["imp_pkg.prices"]
    (folder / "imp_pkg" / "prices.py").write_text("PRICE = \n")

    with pytest.raises(SyntaxError):
        await imports.run([str(folder)], importing("imp_shop"))
    assert sys.modules["imp_shop"] is shop
    assert sys.modules["imp_pkg"].prices is prices  # type: ignore[attr-defined]

    (folder / "imp_pkg" / "prices.py").write_text("PRICE = 3\n")
    assert (await imports.run([str(folder)], importing("imp_shop"))).PRICE == 3  # type: ignore[attr-defined]


async def test_the_sources_of_a_module_are_its_own_and_those_it_imports(folder: pathlib.Path) -> None:
    (folder / "imp_other.py").write_text("")
    imports = Imports()
    await imports.run([str(folder)], importing("imp_other"))
    await imports.run([str(folder)], importing("imp_shop"))

    sources = imports.sources_of("imp_shop.app")

    assert {path.rpartition("/")[2] for path in sources} == {
        *("imp_shop.py", "imp_leaf.py", "__init__.py", "prices.py")
    }
    assert not changed(sources)
    (folder / "imp_leaf.py").write_text("X = 1\n")
    assert changed(sources)
    assert not changed(imports.sources_of("imp_other"))


async def test_a_module_of_the_same_name_in_another_project_is_another_one(folder: pathlib.Path) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "imp_leaf.py").write_text("X = 1\n")
    imports = Imports()
    here = await imports.run([str(folder)], importing("imp_leaf"))

    there = await imports.run([str(other)], importing("imp_leaf"))

    assert not hasattr(here, "X")
    assert there.X == 1  # type: ignore[attr-defined]


async def test_what_running_code_imported_by_itself_is_read_again_if_it_may_have_changed(
    folder: pathlib.Path,
) -> None:
    for name in ("imp_leaf", "imp_shop"):
        os.utime(folder / f"{name}.py", (1e9, 1e9))
    imports = Imports()
    await imports.run([str(folder)], lambda: None)
    leaf, prices = importlib.import_module("imp_leaf"), importlib.import_module("imp_pkg.prices")
    (folder / "imp_pkg" / "prices.py").write_text("PRICE = 2\n")

    await imports.run([str(folder)], importing("imp_shop"))

    assert sys.modules["imp_leaf"] is leaf
    assert (prices.PRICE, sys.modules["imp_pkg.prices"].PRICE) == (1, 2)


async def test_libraries_and_what_was_there_before_are_never_touched(folder: pathlib.Path) -> None:
    installed = folder / "site-packages"
    installed.mkdir()
    (installed / "imp_library.py").write_text("X = 1\n")
    sys.path.insert(0, str(folder))
    importlib.import_module("imp_leaf")
    imports = Imports()
    folders = [str(folder), str(installed)]
    modules = [await imports.run(folders, importing(name)) for name in ("imp_library", "imp_leaf")]

    (installed / "imp_library.py").write_text("X = 22\n")
    (folder / "imp_leaf.py").write_text("X = 22\n")

    assert [await imports.run(folders, importing(name)) for name in ("imp_library", "imp_leaf")] == modules
