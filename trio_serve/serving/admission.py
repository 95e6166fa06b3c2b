"""Whether a call that has a deadline is queued: not if it will come too late, or the queue does not go away.

    share of the time that is left
    50 % |--------.                         a call is queued if its wait is likely
         |         `--.                     to be at most this share of the time
         |             `--.                 that is left to its deadline
     4 % |                 `-----------
         +--------1---------3----------->   how long there has been a queue, in lengths of that time

A queue that has not been there for longer than the call may take is a burst, and that is what queues are for:
all of it is served in time.  One that stays means that as many come as are served, or more.  The calls that
are served are then as many whether each waits for long or hardly at all, so they may as well hardly wait.
The share falls slowly, because chance makes queues too, and because those that wait already are not sent
away: a sudden end of the line would refuse everybody until they are served.

Source: K. Nichols and V. Jacobson, "Controlling Queue Delay" (2012), for packets; B. Maurer, "Fail at Scale"
(2015), and H. Zhou et al., "Overload Control for Scaling WeChat Microservices" (2018), for requests: a wait
that stays, and not the length of a queue, is the sign of overload.  They look at what leaves the queue;
here a call is refused as it comes, by the wait to expect, because its caller can still do something else.

Pure: what the queue is like comes in as its `Pace`.
"""

from trio_serve.actors import Pace

WAIT_SHARE_MAX = 0.5
"""The other half is for the work itself, and for the error of the estimate."""

WAIT_SHARE_MIN = 0.04
WAIT_S_MIN = 0.04
"""So long may any call wait, however soon its deadline and however long there has been a queue."""

BURST, OVERLOAD = 1.0, 3.0
"""Where the share begins to fall, and where it would reach 0, in times that are left."""

BURST_S_MIN = 1.0
"""No queue stays for long that is younger than this, however soon the deadlines."""


def why_not(pace: Pace, waiting: int, slots: int, left_s: float, now: float) -> str:
    """Why a call with ``left_s`` seconds to its deadline should not wait behind ``waiting`` others, or "".

    As many may wait as there are ``slots`` to serve them, where that is in time: so that none stands idle.
    """
    wait_s = pace.expected_wait_s(waiting, now)
    if wait_s > WAIT_SHARE_MAX * left_s and pace.is_known:
        return (
            f"Its wait would be about {_about(wait_s)} s, too long with {left_s:.2g} s left to its deadline."
        )
    stood = pace.stood_s(now) / max(left_s, BURST_S_MIN)
    if stood <= BURST or waiting < slots:
        return ""
    share = max(WAIT_SHARE_MIN, WAIT_SHARE_MAX * (OVERLOAD - stood) / (OVERLOAD - BURST))
    if wait_s <= max(share * left_s, WAIT_S_MIN):  # a guess is better than none by now
        return ""
    return f"Its wait would be about {_about(wait_s)} s, in a queue that does not go away."


def _about(seconds: float) -> str:
    """To one digit: a text that many refusals have in common is encoded once."""
    return f"{seconds:.1g}" if seconds < 9.5 else f"{seconds:.0f}"
