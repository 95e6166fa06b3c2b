"""Traffic policy: which of several applications gets a call, and which others get a copy of it.

    weights   {"app": 0.9, "app-canary": 0.1}      one of them answers
    sticky    "x-user"                             ... and the same one for the same value of this key
    shadows   {"app-next": 0.1}                    a tenth of the calls is copied; what it answers is dropped

A sticky choice is weighted rendezvous hashing: each target draws a number from the key and its own name, and
the highest, bent by the weights, wins.  Nothing is remembered, processes agree, the order of the targets does
not matter, and a change of weights moves no more keys than the change in weight asks for.

Source: Schindelhauer and Schomaker, "Weighted Distributed Hash Tables" (2005); Ray Serve 1.3, set_traffic and
shadow_traffic.  Knows names and numbers only; who bears the names is ``traffic_split``'s affair.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Container, Mapping
from itertools import accumulate
from math import isclose, log
from random import Random
from sys import float_info
from typing import Any

import attrs

SHADOW_CALLS_MAX = 64
"""Copies at work or queued at the same time, by default; those beyond are dropped."""


class TrafficError(ValueError):
    """A policy that cannot be followed; ``problems`` holds every reason."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


def _numbers(values: Any) -> dict[str, float]:
    return dict(values) if isinstance(values, Mapping) else values


@attrs.frozen
class TrafficPolicy:
    """Shares by target; checked when it is made, and never changed after.

    ``sticky`` names an HTTP header or gRPC metadata key, in any case.

    Raises:
        TrafficError: with every problem.
    """

    weights: Mapping[str, float] = attrs.field(converter=_numbers)
    sticky: str | None = None
    shadows: Mapping[str, float] = attrs.field(factory=dict, converter=_numbers)
    shadow_calls_max: int = SHADOW_CALLS_MAX
    _names: tuple[str, ...] = attrs.field(init=False, repr=False, eq=False, default=())
    _bounds: tuple[float, ...] = attrs.field(init=False, repr=False, eq=False, default=())

    def __attrs_post_init__(self) -> None:
        problems = [
            *_problems_of_weights(self.weights),
            *_problems_of_sticky(self.sticky),
            *_problems_of_shadows(self.shadows),
            *_problems_of_budget(self.shadow_calls_max),
        ]
        if problems:
            raise TrafficError(problems)
        weighted = {name: weight for name, weight in self.weights.items() if weight}
        object.__setattr__(self, "_names", tuple(weighted))
        object.__setattr__(self, "_bounds", tuple(accumulate(weighted.values())))
        if self.sticky is not None:
            object.__setattr__(self, "sticky", self.sticky.lower())

    @property
    def targets(self) -> tuple[str, ...]:
        """Every name that the policy mentions, those that answer first."""
        return tuple(dict.fromkeys([*self.weights, *self.shadows]))

    def choose(self, key: str | None, random: Random, gone: Container[str] = ()) -> str | None:
        """The target that answers; for the same ``key``, where there is one, the same target.

        The share of those that are ``gone`` falls to the others, by their weights; None: there are none.
        """
        if gone:
            rest = {name: self.weights[name] for name in self._names if name not in gone}
            if not rest:
                return None
            names, bounds = tuple(rest), tuple(accumulate(rest.values()))
        else:
            names, bounds = self._names, self._bounds
        if len(names) == 1:
            return names[0]
        if key:
            return max(names, key=lambda name: _draw(key, name, self.weights[name]))
        return names[min(bisect_right(bounds, random.random() * bounds[-1]), len(names) - 1)]

    def shadows_of_one(self, random: Random) -> list[str]:
        """The targets that get a copy of the call at hand."""
        return [name for name, proportion in self.shadows.items() if random.random() < proportion]

    def with_shadow(self, target: str, proportion: float) -> "TrafficPolicy":
        """The same policy, with that share of the calls copied to ``target``; 0 ends it.

        Raises:
            TrafficError: the proportion is not in 0 to 1.
        """
        changed = attrs.evolve(self, shadows={**self.shadows, target: proportion})
        if proportion:
            return changed
        return attrs.evolve(changed, shadows={n: p for n, p in changed.shadows.items() if n != target})


def _draw(key: str, name: str, weight: float) -> float:
    """The number that ``name`` draws for ``key``: the higher ``weight``, the likelier it is high."""
    digest = hashlib.blake2b(f"{key}\0{name}".encode(errors="surrogateescape"), digest_size=8).digest()
    uniform = (int.from_bytes(digest) + 0.5) / 2**64
    return weight / -log(uniform)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= float_info.max


def _problems_of_weights(weights: object) -> list[str]:
    if not isinstance(weights, dict) or not weights:
        return [f"weights={weights!r} must give the share of at least one target, as in {{'app': 1.0}}"]
    problems = [f"a target is named by a text that is not empty, not by {n!r}" for n in _no_names(weights)]
    bad = {name: weight for name, weight in weights.items() if not _is_number(weight) or weight < 0}
    problems += [
        f"the weight {weight!r} of {name!r} is not a number from 0 to 1" for name, weight in bad.items()
    ]
    if not bad and not isclose(sum(weights.values()), 1, abs_tol=1e-6):
        shares = " + ".join(f"{name!r}: {weight:g}" for name, weight in weights.items())
        problems.append(f"weights must sum to 1, and {shares} is {sum(weights.values()):g}")
    return problems


def _problems_of_sticky(sticky: object) -> list[str]:
    if sticky is None or (isinstance(sticky, str) and sticky and not set(sticky) & set(" \r\n:")):
        return []
    return [f"sticky={sticky!r} must name a header or metadata key, as in 'x-user'"]


def _problems_of_shadows(shadows: object) -> list[str]:
    if not isinstance(shadows, dict):
        return [f"shadows={shadows!r} must give a proportion by target, as in {{'app-next': 0.1}}"]
    problems = [f"a target is named by a text that is not empty, not by {n!r}" for n in _no_names(shadows)]
    return problems + [
        f"the proportion {proportion!r} of {name!r} is not a number from 0 to 1"
        for name, proportion in shadows.items()
        if not _is_number(proportion) or not 0 <= proportion <= 1
    ]


def _problems_of_budget(most: object) -> list[str]:
    if isinstance(most, int) and not isinstance(most, bool) and most >= 1:
        return []
    return [f"shadow_calls_max={most!r} must be a whole number of 1 or more"]


def _no_names(by_name: dict[Any, Any]) -> list[object]:
    return [name for name in by_name if not isinstance(name, str) or not name]
