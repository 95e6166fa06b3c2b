"""What a method that serves gRPC is given, under the names that ``ray.serve.grpc_util`` has."""

from trio_serve.proxy.grpc_context import RayServegRPCContext
from trio_serve.proxy.request_stream import gRPCInputStream

__all__ = ["RayServegRPCContext", "gRPCInputStream"]
