"""The option classes under the name that Ray Serve has for their place: ``ray.serve.config``."""

from trio_serve.instance.options import (
    HTTPOptions,
    KeepaliveOptions,
    LoggingConfig,
    MetricsOptions,
    TLSOptions,
    gRPCOptions,
)

__all__ = ["HTTPOptions", "KeepaliveOptions", "LoggingConfig", "MetricsOptions", "TLSOptions", "gRPCOptions"]
