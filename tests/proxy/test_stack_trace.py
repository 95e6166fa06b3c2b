"""What a client sees of an exception: the user's frames, relative names, and always the last line."""

from pathlib import Path

import pytest
import trio

from trio_serve.proxy import stack_trace
from trio_serve.proxy.stack_trace import cut_in_the_middle, last_line, user_stack_trace


def fail(message: str) -> None:
    raise ValueError(message)


def caught(function: object, *args: object) -> BaseException:
    with pytest.raises(BaseException) as info:
        function(*args)  # type: ignore[operator]
    return info.value


def test_the_trace_names_the_users_function_and_line() -> None:
    trace = user_stack_trace(caught(fail, "no such picture"))

    assert trace.startswith("Traceback (most recent call last):")
    assert "in fail\n    raise ValueError(message)" in trace
    assert trace.endswith("ValueError: no such picture")


def test_frames_of_trio_are_left_out() -> None:
    async def main() -> None:
        fail("deep")

    trace = user_stack_trace(caught(trio.run, main))

    assert "in main" in trace
    assert "trio/_core" not in trace and "outcome" not in trace


def test_a_file_is_named_as_it_was_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The server's own folders are nobody's business: only what lies below the import path is told."""
    (tmp_path / "shop").mkdir()
    module = tmp_path / "shop" / "cart.py"
    module.write_text("def pay():\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import shop.cart  # type: ignore[import-not-found]

    trace = user_stack_trace(caught(shop.cart.pay))

    assert f'File "shop{"/"}cart.py", line 2, in pay' in trace
    assert str(tmp_path) not in trace


def test_a_file_from_nowhere_on_the_import_path_keeps_its_bare_name(tmp_path: Path) -> None:
    code = compile("def pay():\n    return 1 / 0\n", str(tmp_path / "loose.py"), "exec")
    names: dict[str, object] = {}
    exec(code, names)

    trace = user_stack_trace(caught(names["pay"]))

    assert 'File "loose.py", line 2, in pay' in trace
    assert str(tmp_path) not in trace


def test_causes_are_told_and_cleaned_as_well() -> None:
    def outer() -> None:
        try:
            fail("inner")
        except ValueError as error:
            raise RuntimeError("outer") from error

    trace = user_stack_trace(caught(outer))

    assert "ValueError: inner" in trace
    assert "direct cause" in trace
    assert str(Path(__file__).parent) not in trace
    assert trace.endswith("RuntimeError: outer")


def test_a_group_is_told_with_its_members() -> None:
    def group() -> None:
        raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])

    trace = user_stack_trace(caught(group))

    assert "ValueError: one" in trace and "KeyError: 'two'" in trace


@pytest.mark.parametrize("character", ["x", "ü", "\N{PILE OF POO}", "\ud800"])
def test_a_long_trace_is_cut_in_the_middle_and_keeps_both_ends(character: str) -> None:
    trace = user_stack_trace(caught(fail, character * 10_000 + " the end"))

    assert len(trace.encode()) <= stack_trace.TRACE_BYTES_MAX
    assert trace.startswith("Traceback (most recent call last):")
    assert "bytes left out" in trace
    assert trace.endswith(" the end")


def test_colours_are_washed_out() -> None:
    assert user_stack_trace(caught(fail, "\x1b[31mred\x1b[0m")).endswith("ValueError: red")


def test_what_fits_is_left_alone() -> None:
    assert cut_in_the_middle("x" * 100, 100) == "x" * 100


def test_endless_recursion_is_told_in_bounds() -> None:
    def again() -> None:
        again()

    trace = user_stack_trace(caught(again))

    assert len(trace.encode()) <= stack_trace.TRACE_BYTES_MAX
    assert "RecursionError" in trace.splitlines()[-1]


def test_the_last_line_stands_alone() -> None:
    assert last_line(caught(fail, "no such picture")) == "ValueError: no such picture"
    assert last_line(KeyboardInterrupt()) == "KeyboardInterrupt"
