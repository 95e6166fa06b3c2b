"""The graph of an application: order, names, sharing, overrides."""

from typing import Any

import pytest

from trio_serve.serving.application import HandleTo, build_graph, fill_in
from trio_serve.serving.deployment import deployment
from trio_serve.serving.options import OptionsError


@deployment
class Leaf:
    def __init__(self, *args: Any) -> None: ...


@deployment
class Node:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


def test_what_is_called_comes_before_its_caller() -> None:
    graph = build_graph(Node.bind(Leaf.bind(), other=Node.options(name="Mid").bind(Leaf.bind())))
    assert [spec.name for spec in graph] == ["Leaf", "Leaf_1", "Mid", "Node"]


def test_one_application_given_twice_is_one_deployment() -> None:
    leaf = Leaf.bind()
    graph = build_graph(Node.bind(leaf, [leaf], Node.options(name="Mid").bind(leaf)))
    assert [spec.name for spec in graph] == ["Leaf", "Mid", "Node"]


def test_equal_names_are_numbered() -> None:
    names = [spec.name for spec in build_graph(Node.bind(*[Leaf.bind(n) for n in range(3)], Node.bind()))]
    assert names == ["Leaf", "Leaf_1", "Leaf_2", "Node", "Node_1"]


def test_applications_within_lists_tuples_and_dicts_become_handles() -> None:
    (*_, ingress) = build_graph(Node.bind([Leaf.bind()], ({"a": Leaf.bind()}, 3), plain={"x": 1}))
    assert ingress.args == ([HandleTo("Leaf")], ({"a": HandleTo("Leaf_1")}, 3))
    filled = fill_in(ingress.args, lambda name: f"<{name}>")
    assert filled == (["<Leaf>"], ({"a": "<Leaf_1>"}, 3))


def test_overrides_reach_deployments_by_their_name_in_the_graph() -> None:
    graph = build_graph(
        Node.bind(Leaf.bind(), Leaf.bind()), {"Leaf_1": {"num_replicas": 3}, "Node": {"name": "Node"}}
    )
    assert [spec.options.num_replicas for spec in graph] == [1, 3, 1]
    assert [spec.options.name for spec in graph] == ["Leaf", "Leaf_1", "Node"]


def test_all_problems_of_all_overrides_are_told_at_once() -> None:
    with pytest.raises(OptionsError) as caught:
        build_graph(
            Node.bind(Leaf.bind()),
            {"Leav": {}, "Leaf": {"num_replicas": 0, "speed": 1}, "Node": {"max_ongoing_requests": "x"}},
        )
    assert caught.value.problems[0] == "there is no deployment 'Leav'; the application has Leaf, Node"
    assert len(caught.value.problems) == 4
    assert caught.value.problems[1].startswith("Leaf: ")


def test_the_same_code_is_told_from_changed_code() -> None:
    class Unclear:
        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth value of an array is ambiguous")

        __hash__ = None  # type: ignore[assignment]

    (spec,) = build_graph(Leaf.bind([1], 2))
    assert spec.same_code(build_graph(Leaf.options(num_replicas=7, user_config=None).bind([1], 2))[0])
    assert not spec.same_code(build_graph(Leaf.bind([1], 3))[0])
    assert not spec.same_code(build_graph(Node.bind([1], 2))[0])
    assert not spec.same_code(build_graph(Leaf.options(sync_methods="inline").bind([1], 2))[0])
    (unclear,) = build_graph(Leaf.bind(Unclear()))
    assert not unclear.same_code(build_graph(Leaf.bind(Unclear()))[0])
