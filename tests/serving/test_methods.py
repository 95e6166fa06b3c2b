"""What can be called on a class, and the small things beside it."""

import functools
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

from trio_serve.serving.errors import DeploymentUnavailable, one_line
from trio_serve.serving.methods import Kind, describe, methods_of, names_for_callers
from trio_serve.serving.request_ids import new_request_id


class Everything:
    class Nested: ...

    size = 3

    def __init__(self) -> None: ...

    async def __call__(self, x: int) -> int:
        return x

    def sync(self, x: int, grpc_context: Any = None) -> int:
        return x

    async def items(self) -> AsyncIterator[int]:
        yield 1

    def sync_items(self) -> Iterator[int]:
        yield 1

    @staticmethod
    def static() -> None: ...

    @classmethod
    async def of_class(cls) -> None: ...

    @property
    def prop(self) -> int:
        return 3

    def reconfigure(self, config: Any) -> None: ...

    def check_health(self) -> None: ...

    def _private(self) -> None: ...


def test_every_kind_is_told_from_the_others() -> None:
    kinds = {name: method.kind for name, method in methods_of(Everything).items()}
    assert kinds == {
        "__call__": Kind.ASYNC,
        "sync": Kind.SYNC,
        "items": Kind.ASYNC_GENERATOR,
        "sync_items": Kind.SYNC_GENERATOR,
        "static": Kind.SYNC,
        "of_class": Kind.ASYNC,
        "reconfigure": Kind.SYNC,
        "check_health": Kind.SYNC,
    }


def test_who_wants_the_grpc_context_is_known() -> None:
    assert [name for name, method in methods_of(Everything).items() if method.takes_grpc_context] == ["sync"]


def test_callers_are_offered_the_names_sorted_without_the_replicas_own() -> None:
    assert names_for_callers(methods_of(Everything)) == [
        "__call__", "items", "of_class", "static", "sync", "sync_items",
    ]  # fmt: skip


def test_partials_and_callable_objects_are_what_they_call() -> None:
    assert describe("p", functools.partial(Everything.__call__, 1)).kind is Kind.ASYNC
    assert describe("o", Everything()).kind is Kind.ASYNC
    assert describe("c", len).kind is Kind.SYNC


def test_request_ids_are_uuid4_and_differ() -> None:
    ids = [new_request_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    for each in ids:
        parsed = uuid.UUID(each)
        assert (parsed.version, parsed.variant, str(parsed)) == (4, uuid.RFC_4122, each)


def test_a_cause_is_told_in_one_line() -> None:
    assert one_line(ValueError("a  b\nc")) == "ValueError: a b"
    assert one_line(ValueError()) == "ValueError"
    assert one_line("x\ny") == "x"
    inner = DeploymentUnavailable("app", "D", KeyError("k"))
    assert str(inner) == "deployment 'D' of application 'app' is unavailable: KeyError: 'k'"
    assert one_line(inner) == str(inner)
