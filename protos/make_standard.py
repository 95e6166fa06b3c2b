"""Write trio_serve/grpc/standard_pb2.py: the descriptors of the services that every server has.

    python protos/make_standard.py

Run it after a change to one of the files below; a test compares the result with them.
"""

import pathlib

from trio_serve.grpc.protos import load_protos

HERE = pathlib.Path(__file__).parent
SOURCES = (
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto",
    "serve.proto",
)
WIDTH = 64  # bytes a line


def main() -> None:
    protos = load_protos(*(HERE / source for source in SOURCES), include=[HERE])
    lines = [
        '"""Written by protos/make_standard.py from the files named here; do not edit."""',
        "",
        "FILES = {",
    ]
    for file in protos.files:
        data = file.serialized_pb
        lines.append(f'    "{file.name}": (')
        lines += [f"        {data[start : start + WIDTH]!r}" for start in range(0, len(data), WIDTH)]
        lines.append("    ),")
    lines.append("}")
    (HERE.parent / "trio_serve" / "grpc" / "standard_pb2.py").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
