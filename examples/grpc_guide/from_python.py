"""Serve the guide's two applications from a plain script, with no command line.

    python from_python.py

The instance lives in a background thread of this script and ends with it (here: at Ctrl-C).
"""

from test_deployment_v2 import g, g2

import trio_serve as serve
from trio_serve.config import gRPCOptions

grpc_port = 9000
grpc_servicer_functions = [
    "user_defined_protos_pb2_grpc.add_UserDefinedServiceServicer_to_server",
    "user_defined_protos_pb2_grpc.add_ImageClassificationServiceServicer_to_server",
]

if __name__ == "__main__":
    serve.start(
        grpc_options=gRPCOptions(port=grpc_port, grpc_servicer_functions=grpc_servicer_functions),
    )
    serve.run(g, name="app1", route_prefix="/app1")
    serve.run(g2, name="app2", route_prefix="/app2", blocking=True)
