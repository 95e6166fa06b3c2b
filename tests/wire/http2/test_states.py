"""Stream states: every pair of state and input is in the table or refused (RFC 9113 section 5.1)."""

import itertools

from trio_serve.wire.http2.states import AFTER_RECEIVED_END, AFTER_SENT_END, TRANSITIONS, Input, State

# What figure 2 shows, told another way: which sides are still open in each state.
OURS_OPEN = {State.OPEN, State.HALF_CLOSED_REMOTE}
THEIRS_OPEN = {State.OPEN, State.HALF_CLOSED_LOCAL}


def expected(state: State, happened: Input) -> State | None:
    if happened is Input.HEADERS:
        return State.OPEN if state is State.IDLE else None
    if state not in OURS_OPEN | THEIRS_OPEN:
        return None
    ours, theirs = state in OURS_OPEN, state in THEIRS_OPEN
    if happened is Input.RESET:
        return State.CLOSED
    if happened is Input.RECV_END_STREAM:
        if not theirs:
            return None
        theirs = False
    if happened is Input.SEND_END_STREAM:
        if not ours:
            return None
        ours = False
    return {(True, False): State.HALF_CLOSED_REMOTE, (False, True): State.HALF_CLOSED_LOCAL}.get(
        (ours, theirs), State.CLOSED
    )


def test_every_pair_is_as_the_figure_shows() -> None:
    for pair in itertools.product(State, Input):
        assert TRANSITIONS.get(pair) == expected(*pair), pair


def test_the_columns_of_the_hot_path_are_the_tables() -> None:
    for state in State:
        assert AFTER_RECEIVED_END.get(state) == TRANSITIONS.get((state, Input.RECV_END_STREAM))
        assert AFTER_SENT_END.get(state) == TRANSITIONS.get((state, Input.SEND_END_STREAM))


def test_a_closed_stream_stays_closed() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] is State.CLOSED]
