import importlib.util
import re
from pathlib import Path

import pytest

from trio_serve.grpc.methods import MethodSourceError, methods_from
from trio_serve.grpc.protos import ProtoError, load_descriptor_set, load_protos

COMMON = """
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
enum Size { SMALL = 0; LARGE = 1; }
message Item {
  string name = 1;
  Size size = 2;
  google.protobuf.Timestamp bought = 3;
}
"""
ORDERS = """
syntax = "proto3";
package shop.orders;
import "common.proto";
message Order { repeated Item items = 1; }
message Receipt { int64 total = 1; }
service Orders { rpc Place(Order) returns (Receipt); }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "common.proto").write_text(COMMON)
    (tmp_path / "orders.proto").write_text(ORDERS)
    return tmp_path


def test_messages_and_enums_are_attributes_as_in_a_generated_module(folder: Path) -> None:
    protos = load_protos(folder / "common.proto")

    item = protos.Item(name="tea", size=protos.Size.LARGE)
    item.bought.FromSeconds(60)

    assert protos.Item.FromString(item.SerializeToString()) == item
    assert item.bought.ToSeconds() == 60
    assert {"Item", "Size"} <= set(dir(protos))


def test_files_given_together_share_their_messages(folder: Path) -> None:
    protos = load_protos(folder / "orders.proto", folder / "common.proto")

    order = protos.Order(items=[protos.Item(name="tea")])

    assert order.items[0].name == "tea"
    assert [service.full_name for service in protos.services] == ["shop.orders.Orders"]


def test_messages_of_imports_have_a_class_too(folder: Path) -> None:
    protos = load_protos(folder / "orders.proto")

    assert protos.message_class("shop.Item")(name="tea") == protos.Order(items=[{"name": "tea"}]).items[0]
    with pytest.raises(AttributeError, match=r"there is no message or enum 'Item' in orders.proto"):
        _ = protos.Item
    with pytest.raises(KeyError):
        protos.message_class("shop.Nothing")


def test_a_name_is_looked_up_once(folder: Path) -> None:
    protos = load_protos(folder / "common.proto")

    assert protos.Item is protos.Item
    assert "Item" in vars(protos)
    assert repr(protos) == "<Protos common.proto>"


def test_the_same_file_can_be_loaded_twice_and_changed_between(folder: Path) -> None:
    """The default pool would refuse the second."""
    first = load_protos(folder / "common.proto")
    (folder / "common.proto").write_text(COMMON.replace("string name = 1", "string title = 1"))

    second = load_protos(folder / "common.proto")

    assert first.Item(name="tea").SerializeToString() == second.Item(title="tea").SerializeToString()


def test_include_folders_are_where_imports_are_looked_up(folder: Path) -> None:
    (folder / "api").mkdir()
    (folder / "api" / "a.proto").write_text(
        'syntax = "proto3"; import "common.proto"; message A { shop.Item i = 1; }'
    )

    with pytest.raises(ProtoError, match=r"common\.proto"):
        load_protos(folder / "api" / "a.proto")

    assert load_protos(folder / "api" / "a.proto", include=[folder]).A(i={"name": "x"}).i.name == "x"
    with pytest.raises(ProtoError, match="lies in none of the include folders"):
        load_protos(folder / "common.proto", include=[folder / "api"])


def test_relative_paths_and_imports_from_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "api").mkdir()
    (folder / "api" / "a.proto").write_text(
        'syntax = "proto3"; import "common.proto"; message A { shop.Item i = 1; }'
    )
    monkeypatch.chdir(folder)

    assert load_protos("api/a.proto").files[0].name == "a.proto"


@pytest.mark.parametrize(
    "text, error",
    [
        ('syntax = "proto3";\nmessage A {\n  string name = 1\n}\n', r'bad.proto:4:1: Expected ";".'),
        (
            'syntax = "proto3";\nmessage A {\n  Nothing n = 1;\n}\n',
            r'bad.proto:3:3: "Nothing" is not defined.',
        ),
        ('syntax = "proto3";\nimport "nope.proto";\n', r"bad.proto:2:1: Import .nope.proto. was not found"),
        ("hello", r"bad.proto:1:1: "),
        ("\x00\xff", r"bad.proto:1:1: "),
    ],
)
def test_a_faulty_file_is_an_error_with_its_place(
    text: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.proto").write_text(text)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ProtoError) as caught:
        load_protos("bad.proto")

    assert re.search(f"^{error}", str(caught.value), re.MULTILINE)
    assert "warning" not in str(caught.value)


def test_errors_are_told_without_warnings(folder: Path) -> None:
    (folder / "unused.proto").write_text('syntax = "proto3"; import "common.proto";')
    (folder / "bad.proto").write_text("hello")

    with pytest.raises(ProtoError) as caught:
        load_protos(folder / "unused.proto", folder / "bad.proto")

    assert all(line.startswith(str(folder / "bad.proto")) for line in str(caught.value).splitlines())


def test_a_folder_named_like_a_package_in_the_working_directory_is_not_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "grpc_tools.py").write_text("1 / 0")
    monkeypatch.chdir(folder)

    assert load_protos("common.proto").Item


def test_a_missing_file_is_named_and_all_of_them(folder: Path) -> None:
    with pytest.raises(
        ProtoError, match=r"one.proto: there is no such file\n.*two.proto: there is no such file"
    ):
        load_protos(folder / "one.proto", folder / "two.proto", folder / "common.proto")


def test_without_grpcio_tools_the_error_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(
        MethodSourceError, match=r"pip install 'trio-serve\[protoc\]', or give a \*_pb2 module"
    ):
        methods_from(folder / "orders.proto")


@pytest.mark.parametrize(
    "data, text",
    [(b"\xff\xff", "is no descriptor set"), (None, "cannot be read: No such file")],
)
def test_what_is_no_descriptor_set_is_an_error(data: bytes | None, text: str, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / "x.binpb").write_bytes(data)

    with pytest.raises(ProtoError, match=text):
        load_descriptor_set(tmp_path / "x.binpb")


def test_a_descriptor_set_without_its_imports_is_an_error(folder: Path) -> None:
    protos = load_protos(folder / "orders.proto")
    alone = protos.files[0].serialized_pb
    (folder / "alone.binpb").write_bytes(b"\n" + bytes([len(alone) & 0x7F | 0x80, len(alone) >> 7]) + alone)

    with pytest.raises(ProtoError, match=r"alone.binpb: .*--include_imports"):
        load_descriptor_set(folder / "alone.binpb")


def test_a_file_without_services_has_no_methods(folder: Path) -> None:
    with pytest.raises(MethodSourceError, match="describes no rpc method"):
        methods_from(folder / "common.proto")
