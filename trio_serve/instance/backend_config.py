"""``BackendConfig``: how a backend is served, in the words of Ray Serve 1.3.

num_replicas            num_replicas
max_concurrent_queries  max_ongoing_requests, of each replica; 100 unless given
max_batch_size, batch_wait_timeout      those of @serve.batch, for code under @serve.accept_batch
user_config             user_config
"""

from collections.abc import Mapping
from typing import Any

import attrs

from trio_serve.instance.settings import (
    Mistakes,
    anything,
    check_settings,
    optional,
    read_settings,
    setting,
    shown,
    whole_number,
    wrong,
)
from trio_serve.serving.options import DeploymentOptions, read_options

MAX_CONCURRENT_QUERIES = 100


def _seconds_or_0(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise wrong(f"{shown(value)} is not a number of seconds of 0 or more")
    return float(value)


@attrs.frozen
class BackendConfig:
    """How a backend is served; the words are those of Ray Serve 1.3, and times are in seconds.

    Raises:
        Mistakes: with everything that is wrong; a ValueError.
    """

    num_replicas: int = setting(whole_number(1), 1)
    max_batch_size: int | None = setting(optional(whole_number(1)), None)
    batch_wait_timeout: float = setting(_seconds_or_0, 0.0)
    max_concurrent_queries: int | None = setting(optional(whole_number(1)), None)
    user_config: Any = setting(anything, None)
    experimental_graceful_shutdown_wait_loop_s: float = setting(_seconds_or_0, 2.0)
    experimental_graceful_shutdown_timeout_s: float = setting(_seconds_or_0, 20.0)

    __attrs_post_init__ = check_settings

    def changed(self, options: "BackendConfig | Mapping[str, Any]") -> "BackendConfig":
        """This one with ``options`` over it; a whole config takes its place."""
        if isinstance(options, BackendConfig):
            return options
        return read_backend_config({**attrs.asdict(self, recurse=False), **options})

    def options(self, tag: str) -> DeploymentOptions:
        """The options of the deployment that the backend is.

        Raises:
            OptionsError: ``tag`` cannot be a name.
        """
        given = {
            "name": tag,
            "num_replicas": self.num_replicas,
            "max_ongoing_requests": self.max_concurrent_queries or MAX_CONCURRENT_QUERIES,
            "user_config": self.user_config,
            "graceful_shutdown_wait_loop_s": self.experimental_graceful_shutdown_wait_loop_s or 0.1,
            "graceful_shutdown_timeout_s": self.experimental_graceful_shutdown_timeout_s,
            "is_backend": True,
        }
        return read_options(f"backend {tag!r}", given)


def read_backend_config(config: BackendConfig | Mapping[str, Any] | None) -> BackendConfig:
    """A config from what people give for one.

    Raises:
        TypeError: it is neither a BackendConfig nor a mapping.
        Mistakes: bad or unknown settings, all of them; a ValueError.
    """
    if config is not None and not isinstance(config, BackendConfig | Mapping):
        raise TypeError(f"config must be a BackendConfig or a dict, not {type(config).__name__}")
    try:
        return read_settings(BackendConfig, config or {})
    except Mistakes as found:
        raise found.below("config") from None
