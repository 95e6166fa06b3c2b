r"""Stream states: what may happen to a stream, and what it is afterwards.

                   HEADERS
    IDLE ---------------------------> OPEN
                                    /      \
               they END_STREAM    /          \   we END_STREAM
                                v              v
          HALF_CLOSED_REMOTE                   HALF_CLOSED_LOCAL
                                \              /
               we END_STREAM      \          /   they END_STREAM
                                    v      v
                   RST_STREAM from any of the three goes here too
                                    CLOSED

A pair that the table lacks is refused.  The reserved states are absent: nobody pushes here, a client of
ours forbids it and a server of ours never does.

Source: RFC 9113 section 5.1, figure 2.
Knows nothing of frames' contents.
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    IDLE = 0
    OPEN = 1
    HALF_CLOSED_REMOTE = 2
    HALF_CLOSED_LOCAL = 3
    CLOSED = 4


class Input(IntEnum):
    HEADERS = 0
    RECV_END_STREAM = 1
    SEND_END_STREAM = 2
    RESET = 3


IDLE = State.IDLE
OPEN = State.OPEN
HALF_CLOSED_REMOTE = State.HALF_CLOSED_REMOTE
HALF_CLOSED_LOCAL = State.HALF_CLOSED_LOCAL
CLOSED = State.CLOSED

TRANSITIONS: dict[tuple[State, Input], State] = {
    (IDLE, Input.HEADERS): OPEN,
    (OPEN, Input.RECV_END_STREAM): HALF_CLOSED_REMOTE,
    (OPEN, Input.SEND_END_STREAM): HALF_CLOSED_LOCAL,
    (OPEN, Input.RESET): CLOSED,
    (HALF_CLOSED_REMOTE, Input.SEND_END_STREAM): CLOSED,
    (HALF_CLOSED_REMOTE, Input.RESET): CLOSED,
    (HALF_CLOSED_LOCAL, Input.RECV_END_STREAM): CLOSED,
    (HALF_CLOSED_LOCAL, Input.RESET): CLOSED,
}


def _after(event: Input) -> dict[State, State]:
    return {state: following for (state, happened), following in TRANSITIONS.items() if happened is event}


# The columns of the table that the hot path asks: a state that is not a key refuses the input.
AFTER_RECEIVED_END = _after(Input.RECV_END_STREAM)
AFTER_SENT_END = _after(Input.SEND_END_STREAM)
