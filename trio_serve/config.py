"""The option classes under the name that Ray Serve has for their place: ``ray.serve.config``."""

from trio_serve.instance.options import (
    HTTPOptions,
    KeepaliveOptions,
    LoggingConfig,
    MetricsOptions,
    TLSOptions,
    gRPCOptions,
)
from trio_serve.serving.autoscaling import AutoscalingConfig

__all__ = [
    "AutoscalingConfig",
    "HTTPOptions",
    "KeepaliveOptions",
    "LoggingConfig",
    "MetricsOptions",
    "TLSOptions",
    "gRPCOptions",
]
