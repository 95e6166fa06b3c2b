"""grpcio with a thread pool."""

from concurrent.futures import ThreadPoolExecutor

import greeter_pb2 as pb2
import greeter_pb2_grpc
import grpc


class Greeter(greeter_pb2_grpc.GreeterServicer):
    def SayHello(self, request, context):
        return pb2.HelloReply(message=f"Hello, {request.name}!")

    def Count(self, request, context):
        for k in range(request.value):
            yield pb2.HelloReply(message=f"Hello, {k}!")

    def Chat(self, requests, context):
        for request in requests:
            yield pb2.HelloReply(message=f"Hello, {request.name}!")

    def Echo(self, request, context):
        return request


def main() -> None:
    # Chat holds a thread for as long as it lasts, hence more than there are calls at once.
    server = grpc.server(ThreadPoolExecutor(100))
    greeter_pb2_grpc.add_GreeterServicer_to_server(Greeter(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print("ready", port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
