"""Our server and client against programs that we did not write.

    interop_cases, interop_service      gRPC's interoperability tests, in `make test` with grpc.aio
    python -m tests.conformance         the same against every outside tool that this machine has; one table

Source of the cases: the public descriptions of gRPC's interoperability tests.
"""
