"""The messages of the services that every server has: health, reflection and the serving API.

They live in a descriptor pool of their own.  In the default pool they would collide with the same
messages from grpcio-health-checking, grpcio-reflection or grpclib, whichever the user imports, in
either order.

Source: protos/grpc/health/v1/health.proto and its neighbours, compiled into ``standard_pb2``.
Knows nothing of the services themselves.
"""

from google.protobuf import descriptor_pool

from .protos import Protos
from .standard_pb2 import FILES

POOL = descriptor_pool.DescriptorPool()
for _file in FILES.values():
    POOL.AddSerializedFile(_file)


def _protos(file_name: str) -> Protos:
    return Protos(POOL, [POOL.FindFileByName(file_name)])


HEALTH = _protos("grpc/health/v1/health.proto")
REFLECTION = _protos("grpc/reflection/v1/reflection.proto")
REFLECTION_ALPHA = _protos("grpc/reflection/v1alpha/reflection.proto")
SERVE_API = _protos("serve.proto")
