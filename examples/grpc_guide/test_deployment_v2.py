"""The applications of the guide "Set Up a gRPC Service": ``g`` greets, ``g2`` classifies pictures.

``config.yaml`` beside this file names both as ``test_deployment_v2:g`` and ``test_deployment_v2:g2``.
``g2`` is a real pipeline that needs no network: Pillow decodes a picture from a file or a data URL, and a
scikit-learn model, trained when its replica starts on the digits that scikit-learn ships, tells which digit
it shows.
"""

import base64
import io
import pathlib
import urllib.parse
import urllib.request
from collections.abc import Generator

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from user_defined_protos_pb2 import (
    ImageClass,
    ImageData,
    UserDefinedMessage,
    UserDefinedMessage2,
    UserDefinedResponse,
    UserDefinedResponse2,
)

import trio_serve as serve
from trio_serve.handle import DeploymentHandle


@serve.deployment
class GrpcDeployment:
    def __call__(self, user_message: UserDefinedMessage) -> UserDefinedResponse:
        greeting = f"Hello {user_message.name} from {user_message.origin}"
        num = user_message.num * 2
        return UserDefinedResponse(greeting=greeting, num=num)

    @serve.multiplexed(max_num_models_per_replica=1)
    async def get_model(self, model_id: str) -> str:
        return f"loading model: {model_id}"

    async def Multiplexing(self, user_message: UserDefinedMessage2) -> UserDefinedResponse2:
        model_id = serve.get_multiplexed_model_id()
        model = await self.get_model(model_id)
        return UserDefinedResponse2(greeting=f"Method2 called model, {model}")

    def Streaming(self, user_message: UserDefinedMessage) -> Generator[UserDefinedResponse, None, None]:
        for i in range(10):
            greeting = f"{i}: Hello {user_message.name} from {user_message.origin}"
            num = user_message.num * 2 + i
            yield UserDefinedResponse(greeting=greeting, num=num)


g = GrpcDeployment.bind()


@serve.deployment
class ImageClassifier:
    def __init__(self, image_downloader: DeploymentHandle, data_preprocessor: DeploymentHandle) -> None:
        self._image_downloader = image_downloader
        self._data_preprocessor = data_preprocessor
        digits = load_digits()
        self.model = LogisticRegression(max_iter=1000).fit(digits.data / 16, digits.target)
        self.categories = [f"digit {label}" for label in self.model.classes_]

    async def Predict(self, image_data: ImageData) -> ImageClass:
        image = await self._image_downloader.remote(image_data.url or image_data.filename)
        input_batch = await self._data_preprocessor.remote(image)
        probabilities = self.model.predict_proba(input_batch)[0]
        return self.process_model_outputs(probabilities)

    def process_model_outputs(self, probabilities: np.ndarray) -> ImageClass:
        top5 = np.argsort(probabilities)[::-1][:5]
        return ImageClass(
            classes=[self.categories[index] for index in top5],
            probabilities=[float(probabilities[index]) for index in top5],
        )


@serve.deployment
class ImageDownloader:
    """Reads a picture from ``data:...;base64,...``, ``file:///...`` or a plain path."""

    def __call__(self, image_url: str) -> Image.Image:
        if image_url.startswith("data:"):
            _, _, encoded = image_url.partition(";base64,")
            content = base64.b64decode(encoded)
        else:
            path = urllib.request.url2pathname(urllib.parse.urlsplit(image_url).path)
            content = pathlib.Path(path).read_bytes()
        return Image.open(io.BytesIO(content))


@serve.deployment
class DataPreprocessor:
    """Turns any picture into what the model was trained on: one row of 8 x 8 grey values from 0 to 1."""

    def __call__(self, image: Image.Image) -> np.ndarray:
        grey = image.convert("L").resize((8, 8), Image.Resampling.BOX)
        return np.asarray(grey, dtype=float).reshape(1, 64) / 255


image_downloader = ImageDownloader.bind()
data_preprocessor = DataPreprocessor.bind()
g2 = ImageClassifier.options(name="grpc-image-classifier").bind(image_downloader, data_preprocessor)
