"""How a conformance case is run and judged.

A case is what the peer sends, in steps, and the answer it must get.  ANSWERED between steps means that
the application's responses are read to their end before the peer goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from trio_serve.wire.http2 import Connection, ErrorCode, Role

from .peer import (
    ACK,
    DATA,
    ES,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    SETTINGS_ACK,
    Frame,
    PlainApplication,
    frames,
    ping,
    settings,
    word,
)

ANSWERED = "the application answers"
Step = bytes | str
Answer = Callable[["Run"], None]


@dataclass
class Run:
    connection: Connection
    application: PlainApplication
    answers: list[Frame] = field(default_factory=list)
    loosely: bool = False  # what a prober that counts "any of" would accept

    def exchange(self, data: bytes, now: float = 0.0) -> list[Frame]:
        self.connection.receive_data(data, now)
        return self.collect()

    def collect(self) -> list[Frame]:
        found = frames(self.connection.data_to_send())
        self.answers += found
        return found

    def answer(self) -> None:
        self.application.answer(self.connection)
        self.collect()

    def of(self, kind: int, stream_id: int | None = None) -> list[Frame]:
        return [each for each in self.answers if each.kind == kind and stream_id in (None, each.stream_id)]

    def is_alive(self) -> bool:
        if self.connection.closed is not None:
            return False
        self.connection.receive_data(ping(b"alive?!?"))
        return Frame(PING, ACK, 0, b"alive?!?") in frames(self.connection.data_to_send())


def run(steps: tuple[Step, ...], *, exchanged: bool = True, eager: bool = False, octets: bool = False) -> Run:
    """Send ``steps``; ``eager`` answers after each of them, ``octets`` sends them one octet at a time."""
    application = PlainApplication()
    connection = Connection(Role.SERVER, application)
    the_run = Run(connection, application)
    connection.start()
    if exchanged:
        connection.receive_data(PREFACE + settings() + SETTINGS_ACK)
        connection.data_to_send()
    for step in steps:
        if isinstance(step, str):
            the_run.answer()
            continue
        for piece in [step[i : i + 1] for i in range(len(step))] if octets else [step]:
            the_run.exchange(piece)
        if eager:
            the_run.answer()
    the_run.answer()
    return the_run


# -- answers -------------------------------------------------------------------------------------------


def no_error(the_run: Run) -> None:
    assert not the_run.of(GOAWAY), the_run.answers
    assert not the_run.of(RST_STREAM), the_run.answers
    assert the_run.is_alive()


def response(stream_id: int = 1, body: bytes = PlainApplication.BODY) -> Answer:
    """A whole response, and nothing else amiss."""

    def check(the_run: Run) -> None:
        assert len(the_run.of(HEADERS, stream_id)) == 1, the_run.answers
        sent = the_run.of(DATA, stream_id)
        assert b"".join(each.payload for each in sent) == body
        assert [*the_run.of(HEADERS, stream_id), *sent][-1].flags & ES
        no_error(the_run)

    return check


def pong(payload: bytes = b"\x01\x23\x45\x67\x89\xab\xcd\xef") -> Answer:
    def check(the_run: Run) -> None:
        assert the_run.of(PING) == [Frame(PING, ACK, 0, payload)]
        no_error(the_run)

    return check


def connection_error(*codes: ErrorCode) -> Answer:
    """GOAWAY with the code, and the connection is over; the first code is the one that we send."""

    def check(the_run: Run) -> None:
        assert the_run.connection.closed is not None, the_run.answers
        assert the_run.answers[-1].kind == GOAWAY
        assert len(the_run.of(GOAWAY)) == 1
        code = int.from_bytes(the_run.answers[-1].payload[4:8], "big")
        assert code in codes if the_run.loosely else code == codes[0]
        if not the_run.loosely:
            assert not the_run.of(RST_STREAM)
        assert not the_run.exchange(ping()), "something was answered after GOAWAY"

    return check


def stream_error(code: ErrorCode, stream_id: int = 1) -> Answer:
    """RST_STREAM with the code, once, and the connection goes on."""

    def check(the_run: Run) -> None:
        if the_run.loosely and the_run.connection.closed is not None:
            assert int.from_bytes(the_run.answers[-1].payload[4:8], "big") == code
            return
        assert the_run.of(RST_STREAM) == [Frame(RST_STREAM, 0, stream_id, word(code))]
        assert not the_run.of(GOAWAY)
        assert the_run.is_alive()

    return check


def settings_acknowledged(the_run: Run) -> None:
    assert the_run.of(SETTINGS) == [Frame(SETTINGS, ACK, 0, b"")]
    no_error(the_run)


def settings_come_first(the_run: Run) -> None:
    assert the_run.answers[0].kind == SETTINGS
    assert not the_run.answers[0].flags & ACK
    assert the_run.answers[0].stream_id == 0
    no_error(the_run)


def data_lengths(*lengths: int, stream_id: int = 1) -> Answer:
    """Exactly these DATA frames were sent on the stream."""

    def check(the_run: Run) -> None:
        assert [len(each.payload) for each in the_run.of(DATA, stream_id)] == list(lengths)
        no_error(the_run)

    return check


def both(*answers: Answer) -> Answer:
    def check(the_run: Run) -> None:
        for answer in answers:
            answer(the_run)

    return check


@dataclass(frozen=True)
class Case:
    id: str
    steps: tuple[Step, ...]
    answer: Answer
    exchanged: bool = True

    def __str__(self) -> str:
        return self.id
