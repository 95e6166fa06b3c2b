"""The guide's section "Use gRPC context": a handler that sets code, details and trailing metadata."""

import grpc
from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedResponse

import trio_serve as serve
from trio_serve.grpc_util import RayServegRPCContext


@serve.deployment
class GrpcDeployment:
    def __init__(self) -> None:
        self.nums: dict[str, int] = {}

    def num_lookup(self, name: str) -> tuple[int, grpc.StatusCode, str]:
        if name not in self.nums:
            self.nums[name] = len(self.nums)
            code = grpc.StatusCode.INVALID_ARGUMENT
            message = f"{name} not found, adding to nums."
        else:
            code = grpc.StatusCode.OK
            message = f"{name} found."
        return self.nums[name], code, message

    def __call__(
        self,
        user_message: UserDefinedMessage,
        grpc_context: RayServegRPCContext,  # to use grpc context, add this kwarg
    ) -> UserDefinedResponse:
        greeting = f"Hello {user_message.name} from {user_message.origin}"
        num, code, message = self.num_lookup(user_message.name)

        # Set custom code, details, and trailing metadata.
        grpc_context.set_code(code)
        grpc_context.set_details(message)
        grpc_context.set_trailing_metadata([("num", str(num))])

        return UserDefinedResponse(greeting=greeting, num=num)


g = GrpcDeployment.bind()
