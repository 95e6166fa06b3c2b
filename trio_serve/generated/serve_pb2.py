"""Messages of ray.serve.RayServeAPIService, as ``protos/serve.proto`` defines them.

They come from a private descriptor pool, so that the same messages of another package do not clash.
"""

from trio_serve.grpc.standard import SERVE_API

DESCRIPTOR = SERVE_API.files[0]

HealthzRequest = SERVE_API.HealthzRequest
HealthzResponse = SERVE_API.HealthzResponse
ListApplicationsRequest = SERVE_API.ListApplicationsRequest
ListApplicationsResponse = SERVE_API.ListApplicationsResponse
