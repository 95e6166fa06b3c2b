"""Client stub of ray.serve.RayServeAPIService, for a grpcio channel of any kind and for ours."""

from typing import Any

from .serve_pb2 import HealthzRequest, HealthzResponse, ListApplicationsRequest, ListApplicationsResponse


class RayServeAPIServiceStub:
    """What a serving gRPC port tells about itself: its applications, and whether it takes calls."""

    def __init__(self, channel: Any) -> None:
        self.ListApplications = channel.unary_unary(
            "/ray.serve.RayServeAPIService/ListApplications",
            request_serializer=ListApplicationsRequest.SerializeToString,
            response_deserializer=ListApplicationsResponse.FromString,
        )
        self.Healthz = channel.unary_unary(
            "/ray.serve.RayServeAPIService/Healthz",
            request_serializer=HealthzRequest.SerializeToString,
            response_deserializer=HealthzResponse.FromString,
        )
