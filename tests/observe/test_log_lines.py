"""One record, one line, whatever is in it."""

import json
import logging
import random
import sys
import time
from typing import Any

import pytest

from trio_serve.observe.log_lines import JsonLine, TextLine

ALPHABET = [
    *map(chr, range(0x20)),
    *("\x7f", "\x85", "\u2028", "\u2029", "\ud800", "\udfff", "\ufeff", "\u202e", "\x1b[31m", "\r\n"),
    *(
        "a",
        " ",
        '"',
        "\\",
        "{",
        "}",
        "%s",
        "%",
        "--",
        "é",
        "漢",
        "😀",
        "INFO 2026-01-31 12:00:00,123 forged -- x",
    ),
]


def record(message: object = "hello", *args: object, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("trio_serve.test", logging.INFO, __file__, 1, message, args, None)
    made.created = time.mktime((2026, 1, 31, 12, 0, 0, 0, 0, -1)) + 0.1239
    made.msecs = 123.9
    made.__dict__.update(fields)
    return made


IN_REPLICA = {
    "component": "replica",
    "application": "app1",
    "deployment": "Greeter",
    "replica": "Greeter#x7Kq2A",
    "request_id": "8e0c",
    "route": "/t",
}


@pytest.mark.parametrize(
    "fields, line",
    [
        (IN_REPLICA, "INFO 2026-01-31 12:00:00,123 app1_Greeter x7Kq2A 8e0c -- hello"),
        ({**IN_REPLICA, "request_id": ""}, "INFO 2026-01-31 12:00:00,123 app1_Greeter x7Kq2A -- hello"),
        (
            {"component": "proxy", "request_id": "8e0c"},
            "INFO 2026-01-31 12:00:00,123 proxy 8e0c -- hello",
        ),
        ({"component": "serve"}, "INFO 2026-01-31 12:00:00,123 trio_serve.test -- hello"),
        (
            {
                **IN_REPLICA,
                "component": "serve",
                "backend": "my_backend",
                "replica": "my_backend#jZlnUI",
                "process": 42161,
            },
            "(pid=42161) 2026-01-31 12:00:00,123 INFO -- hello"
            " component=serve backend=my_backend replica=my_backend#jZlnUI",
        ),
    ],
)
def test_text_has_the_form_of_its_place(fields: dict[str, Any], line: str) -> None:
    assert TextLine().format(record(**fields)) == line


def test_json_names_its_fields() -> None:
    line = json.loads(
        JsonLine(["process"]).format(record("hi %d", 1, **IN_REPLICA, process=7, mine={"a": 1}))
    )

    assert line == {
        "levelname": "INFO",
        "asctime": "2026-01-31 12:00:00,123",
        "name": "trio_serve.test",
        **IN_REPLICA,
        "process": 7,
        "mine": "{'a': 1}",
        "message": "hi 1",
    }


def test_standard_attributes_stand_before_the_message_in_text() -> None:
    assert " lineno=1 -- hello" in TextLine(["lineno"]).format(record(component="serve"))


def test_ten_thousand_hostile_texts_stay_on_their_line_and_json_parses() -> None:
    """In the message, and in every field that a client can fill."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    text, as_json = TextLine(), JsonLine()
    for _ in range(10_000):
        hostile = "".join(chance.choices(ALPHABET, k=chance.randrange(1, 12)))
        made = record(
            "%s", hostile, **{**IN_REPLICA, "request_id": hostile, "route": hostile, "extra": hostile}
        )

        line = text.format(made)
        assert line.isprintable(), f"seed {seed}: {line!r}"
        one = as_json.format(made)
        assert len(one.splitlines()) == 1, f"seed {seed}: {one!r}"
        read = json.loads(one)
        # JSON has no surrogates on their own: two that fit are one character.
        meant = hostile.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        assert read["message"] == read["request_id"] == read["extra"] == meant, f"seed {seed}"


def test_a_stack_trace_is_indented_so_that_nothing_in_it_looks_like_a_record() -> None:
    made = record("failed", component="serve")
    try:
        raise ValueError("first\nINFO 2026-01-31 12:00:00,123 forged -- x\x1b[2J")
    except ValueError:
        made.exc_info = sys.exc_info()

    head, *trace = TextLine().format(made).split("\n")

    assert head.endswith("-- failed")
    assert all(line.startswith("    ") and line.isprintable() for line in trace)
    assert json.loads(JsonLine().format(made))["exc_text"].startswith("Traceback")


class Unprintable:
    def __str__(self) -> str:
        raise RecursionError

    __repr__ = __str__


@pytest.mark.parametrize(
    "message, args, shown",
    [
        ("%d files", ("no number",), "%d files (its arguments do not fit: TypeError)"),
        ("%s", (Unprintable(),), "%s (its arguments do not fit: RecursionError)"),
        (Unprintable(), (), "<Unprintable whose text raises RecursionError>"),
    ],
)
def test_a_message_that_cannot_be_put_together_is_shown_in_its_parts(
    message: Any, args: tuple[object, ...], shown: str
) -> None:
    made = record(message, *args, component="serve", mine=Unprintable())

    assert shown in TextLine().format(made)
    assert shown in json.loads(JsonLine().format(made))["message"]


def test_floats_that_json_lacks_are_texts() -> None:
    assert json.loads(JsonLine().format(record(mine=float("nan"))))["mine"] == "nan"
