"""``traffic:`` of an application in the configuration file: who answers for it, and who gets copies.

    traffic:
      weights: {app: 0.9, app-canary: 0.1}
      sticky: x-user
      shadow: {app-next: 0.1}

Knows what a policy is, and nothing of who follows it.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from trio_serve.instance.settings import (
    Mistake,
    Mistakes,
    check_settings,
    did_you_mean,
    mapping_of,
    nonempty_text,
    optional,
    setting,
    shown,
    whole_number,
    wrong,
)
from trio_serve.serving.traffic import SHADOW_CALLS_MAX, TrafficError, TrafficPolicy


def _share(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise wrong(f"{shown(value)} is not a number from 0 to 1")
    return float(value)


def _weights(value: Any) -> dict[str, float]:
    weights = mapping_of(_share)(value)
    _check(weights=weights or {"itself": 1.0})
    return weights


def _sticky(value: Any) -> str:
    _check(weights={"itself": 1.0}, sticky=nonempty_text(value))
    return str(value)


def _check(**policy: Any) -> None:
    try:
        TrafficPolicy(**policy)
    except TrafficError as error:
        raise Mistakes(Mistake((), problem) for problem in error.problems) from None


@attrs.frozen
class TrafficSettings:
    """A `TrafficPolicy` as a file has it; without ``weights`` the application itself answers everything."""

    weights: dict[str, float] = setting(_weights, {})
    sticky: str | None = setting(optional(_sticky), None)
    shadow: dict[str, float] = setting(mapping_of(_share), {})
    shadow_calls_max: int = setting(whole_number(1), SHADOW_CALLS_MAX)

    __attrs_post_init__ = check_settings

    def policy(self, application: str) -> TrafficPolicy:
        """The policy for ``application``."""
        weights = self.weights or {application: 1.0}
        return TrafficPolicy(weights, self.sticky, self.shadow, self.shadow_calls_max)


def unknown_targets(settings: Iterable[TrafficSettings | None], known: Sequence[str]) -> list[Mistake]:
    """Targets that no application of the same file is; ``settings`` stand in the order of the file."""
    mistakes = []
    for index, each in enumerate(settings):
        for key in () if each is None else ("weights", "shadow"):
            for name in getattr(each, key):
                if name not in known:
                    text = (
                        f"there is no application {name!r};{did_you_mean(name, known)} "
                        f"there are {', '.join(known)}"
                    )
                    mistakes.append(Mistake((index, "traffic", key, name), text, at_key=True))
    return mistakes
