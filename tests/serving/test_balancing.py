"""Balancing is pure: what it picks has room, has the model if any has, and is not the busiest."""

from random import Random

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from trio_serve.serving.balancing import choose


@frozen
class Replica:
    ongoing: int
    most: int = 5
    model_ids: frozenset[str] = frozenset()

    @property
    def has_room(self) -> bool:
        return self.ongoing < self.most


replicas = st.lists(
    st.builds(
        Replica,
        st.integers(0, 6),
        st.integers(1, 6),
        st.frozensets(st.sampled_from(["a", "b"])),
    ),
    max_size=8,
)


@given(replicas, st.integers(), st.sampled_from(["", "a", "b"]))
def test_one_with_room_is_found_exactly_when_there_is_one(
    all_replicas: list[Replica], seed: int, model_id: str
) -> None:
    chosen = choose(all_replicas, Random(seed), model_id)
    assert (chosen is not None) == any(each.has_room for each in all_replicas)
    assert chosen is None or chosen.has_room


@given(replicas, st.integers())
def test_one_that_has_the_model_and_room_comes_first(all_replicas: list[Replica], seed: int) -> None:
    having = [each for each in all_replicas if "a" in each.model_ids and each.has_room]
    chosen = choose(all_replicas, Random(seed), "a")
    if having:
        assert chosen is not None
        assert "a" in chosen.model_ids
        assert chosen.ongoing == min(each.ongoing for each in having)


@given(st.lists(st.integers(0, 100), min_size=2, max_size=8, unique=True), st.integers())
def test_the_busiest_of_several_is_never_picked(loads: list[int], seed: int) -> None:
    chosen = choose([Replica(load, 101) for load in loads], Random(seed))
    assert chosen is not None
    assert chosen.ongoing < max(loads)


def test_two_choices_keep_the_queues_even() -> None:
    random = Random(1)
    loads = [0] * 20
    for _ in range(10_000):
        candidates = [Replica(load, 10**9) for load in loads]
        chosen = choose(candidates, random)
        loads[next(n for n, each in enumerate(candidates) if each is chosen)] += 1
    assert max(loads) - min(loads) <= 8
