"""A plain grpcio client of the guide's applications: nothing here knows trio_serve's server.

    python client.py [host:port]

Calls every rpc of the guide (unary, multiplexed, streaming, composed), the proxy's own service, and one that
fails, and prints what comes back.
"""

import base64
import io
import sys

import grpc
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from user_defined_protos_pb2 import ImageData, UserDefinedMessage, UserDefinedMessage2
from user_defined_protos_pb2_grpc import ImageClassificationServiceStub, UserDefinedServiceStub

from trio_serve.generated.serve_pb2 import HealthzRequest, ListApplicationsRequest
from trio_serve.generated.serve_pb2_grpc import RayServeAPIServiceStub


def heading(text: str) -> None:
    print(f"\n\N{BLACK RIGHT-POINTING TRIANGLE} {text}")


def say(name: str, value: object) -> None:
    print(f"    {name:<20} {value}")


def picture_of_a_digit(index: int) -> tuple[str, int]:
    """A PNG of one of scikit-learn's digits as a data URL, and the digit that it shows."""
    digits = load_digits()
    pixels = (digits.images[index] / 16 * 255).astype(np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(png, format="PNG")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode(), int(digits.target[index])


def main(target: str = "localhost:9000") -> None:
    with grpc.insecure_channel(target) as channel:
        api = RayServeAPIServiceStub(channel)
        heading("Check proxy health: /ray.serve.RayServeAPIService")
        applications = api.ListApplications(ListApplicationsRequest()).application_names
        say("applications", list(applications))
        say("health", api.Healthz(HealthzRequest()).message)

        stub = UserDefinedServiceStub(channel)
        request = UserDefinedMessage(name="foo", num=30, origin="bar")
        app1 = (("application", "app1"),)

        heading("Unary: UserDefinedService.__call__")
        response, call = stub.__call__.with_call(request=request, metadata=app1)
        say("status code", call.code())
        say("greeting", response.greeting)
        say("num", response.num)

        heading("Multiplexed: UserDefinedService.Multiplexing")
        metadata = (*app1, ("request_id", "123"), ("multiplexed_model_id", "999"))
        response, call = stub.Multiplexing.with_call(request=UserDefinedMessage2(), metadata=metadata)
        say("greeting", response.greeting)
        for key, value in call.trailing_metadata():
            say("trailing metadata", f"{key}: {value}")

        heading("Streaming: UserDefinedService.Streaming")
        for response in stub.Streaming(request=request, metadata=app1):
            say(f"num {response.num}", response.greeting)

        heading("Composed: ImageClassificationService.Predict")
        url, digit = picture_of_a_digit(7)
        stub2 = ImageClassificationServiceStub(channel)
        response, call = stub2.Predict.with_call(
            request=ImageData(url=url), metadata=(("application", "app2"),)
        )
        say("status code", call.code())
        say("the picture shows", f"digit {digit}")
        for name, probability in zip(response.classes, response.probabilities, strict=True):
            say(name, f"{probability:7.2%}")

        heading("Handle errors: no application named")
        try:
            stub.__call__(request=request)
        except grpc.RpcError as rpc_error:
            say("status code", rpc_error.code())
            say("details", rpc_error.details())


if __name__ == "__main__":
    main(*sys.argv[1:])
