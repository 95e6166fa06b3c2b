"""What goes between a script and its instance: code, handles and errors, there and back."""

import functools
import threading
from typing import Any

import outcome
import pytest

import trio_serve as serve
from trio_serve.instance.parcels import pack, pack_outcome, unpack, unpack_outcome
from trio_serve.instance.settings import Mistake, Mistakes
from trio_serve.serving.controller import NoSuchApplication
from trio_serve.serving.errors import BackPressureError, CannotCross, MethodNotFound
from trio_serve.serving.handle import DeploymentHandle


@serve.deployment
class Decorated:
    def __call__(self) -> str:
        return "decorated"


@serve.deployment
def decorated() -> str:
    return "decorated"


class Demanding(Exception):
    def __init__(self, what: str, how_much: int) -> None:
        super().__init__(f"{how_much} {what}")
        self.what = what


def there_and_back(value: Any) -> Any:
    return unpack(pack(value), lambda kind, address: (kind, address))


def error_there_and_back(error: BaseException) -> BaseException:
    def fails() -> None:
        raise error

    back = unpack_outcome(pack_outcome(outcome.capture(fails)), lambda kind, address: None)
    assert isinstance(back, outcome.Error)
    return back.error


def test_a_deployment_of_a_module_travels_as_its_import_path() -> None:
    parcel = pack((Decorated.bind(), decorated.options(num_replicas=2).bind()))
    assert b"decorated" in parcel and b"co_code" not in parcel and len(parcel) < 4000

    one, two = unpack(parcel, lambda kind, address: None)

    assert one.deployment.func_or_class is Decorated.func_or_class
    assert two.deployment.func_or_class is decorated.func_or_class
    assert two.deployment.num_replicas == 2


def test_code_that_no_module_has_travels_itself() -> None:
    factor = 3

    @serve.deployment
    class Local:
        def __call__(self, number: int) -> int:
            return number * factor

    unpacked = there_and_back(Local.bind())

    assert unpacked.deployment.func_or_class()(2) == 6


def test_a_handle_travels_as_its_address() -> None:
    directory: Any = object()
    handle = DeploymentHandle[Any](directory, "app", "Ranker").options(stream=True).rank

    (kind, address) = there_and_back({"to": handle})["to"]

    assert kind is DeploymentHandle
    assert repr(DeploymentHandle(directory, **address)) == repr(handle)
    assert address["stream"]


@pytest.mark.parametrize(
    "error",
    [
        Demanding("eggs", 12),
        Mistakes([Mistake(("port",), "no")]),
        NoSuchApplication("x", ["y"]),
        BackPressureError(3, 4, "why"),
        MethodNotFound("Ranker", "rnak", ["rank"]),
        FileNotFoundError(2, "No such file", "model.bin"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
        ExceptionGroup("two", [Demanding("eggs", 12), KeyError("k")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_what_it_was_whatever_its_constructor_takes(error: BaseException) -> None:
    back = error_there_and_back(error)

    assert type(back) is type(error)
    assert str(back) == str(error)
    assert {**vars(back), "__notes__": 0} == {**vars(error), "__notes__": 0} or isinstance(error, Mistakes)
    if isinstance(error, FileNotFoundError):
        assert (back.errno, back.filename) == (2, "model.bin")  # type: ignore[attr-defined]


def test_an_error_carries_the_trace_of_where_it_was_raised() -> None:
    (note,) = error_there_and_back(Demanding("eggs", 12)).__notes__

    assert "in fails" in note
    assert "instance/parcels.py" not in note


def test_what_cannot_be_sent_is_told_and_does_not_break_the_answer() -> None:
    with pytest.raises(CannotCross, match="a value of type lock cannot be sent to another process: "):
        pack(threading.Lock())

    error = error_there_and_back(KeyError(threading.Lock()))
    assert isinstance(error, CannotCross)
    assert "KeyError: <unlocked _thread.lock" in str(error)
    unsendable: outcome.Outcome[Any] = outcome.Value(threading.Lock())
    with pytest.raises(CannotCross):
        unpack_outcome(pack_outcome(unsendable), lambda kind, address: None).unwrap()


def test_what_cannot_be_made_here_is_told() -> None:
    parcel = pack(functools.partial(Demanding, "eggs")).replace(b"test_parcels", b"test_nowhere")

    with pytest.raises(CannotCross, match=r"No module named .*test_nowhere"):
        unpack(parcel, lambda kind, address: None)
