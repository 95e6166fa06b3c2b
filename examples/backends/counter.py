"""Backends and endpoints, as Ray Serve 1.3 had them: `python counter.py`."""

import urllib.request

import trio_serve as serve


class Counter:
    def __init__(self, step):
        self.step = step
        self.count = 0

    def __call__(self, request):
        self.count += self.step
        return {"count": self.count, "by": serve.get_replica_context().backend_tag}


def get(path):
    with urllib.request.urlopen(f"http://127.0.0.1:{serve.http_port()}{path}") as response:
        return response.read().decode()


if __name__ == "__main__":
    serve.start(http_options={"port": 0}, logging_config={"log_level": "WARNING"})

    serve.create_backend("counter:v1", Counter, 1)
    serve.create_endpoint("counter", backend="counter:v1", route="/counter")
    print("over HTTP:    ", get("/counter"))
    print("by a handle:  ", serve.get_handle("counter").remote().result())

    serve.create_backend("counter:v2", Counter, 100)
    serve.set_traffic("counter", {"counter:v1": 0.5, "counter:v2": 0.5})
    answers = [get("/counter") for _ in range(50)]
    print("answered by v2:", sum("v2" in answer for answer in answers), "of 50")

    serve.set_traffic("counter", {"counter:v1": 1.0})
    serve.shadow_traffic("counter", "counter:v2", 1.0)
    print("with a shadow:", get("/counter"))
