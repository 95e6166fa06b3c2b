"""grpc-timeout: how long the caller will wait, as at most eight digits and a unit.

    | 1 to 8 digits | H, M, S, m, u or n |        b"500m" is half a second

Source: gRPC over HTTP2, "Timeout".
Knows no clock: a timeout becomes a deadline in the layer that has one.
"""

import math

_DIGITS_MAX = 8
_VALUE_END = 10**_DIGITS_MAX

_NANOSECONDS = {b"n": 1, b"u": 1_000, b"m": 1_000_000, b"S": 10**9, b"M": 60 * 10**9, b"H": 3600 * 10**9}
_MICROSECONDS_FROM, _MICROSECONDS_TO = 0.1, 99.0
_SECONDS = {unit: nanoseconds / 1e9 for unit, nanoseconds in _NANOSECONDS.items()}


def encode_timeout(seconds: float) -> bytes:
    """``seconds`` in the finest unit that fits eight digits, rounded up.

    Rounded down, the server would give up on a call that its caller still awaits.
    What is already over becomes one nanosecond, because the value must be positive;
    what is over eleven thousand years becomes 99999999 hours.

    Raises:
        ValueError: not a finite number; a call without a deadline sends no timeout.
    """
    if _MICROSECONDS_FROM <= seconds < _MICROSECONDS_TO:  # nearly every one: the finest unit is known
        return b"%du" % math.ceil(seconds * 1e6)
    if not math.isfinite(seconds):
        raise ValueError(f"timeout is {seconds!r}; leave it out for a call without a deadline")
    nanoseconds = max(1, math.ceil(seconds * 1e9))
    for unit, size in _NANOSECONDS.items():
        value = -(-nanoseconds // size)
        if value < _VALUE_END:
            return b"%d%b" % (value, unit)
    return b"99999999H"


def decode_timeout(value: bytes) -> float:
    """Seconds in a peer's ``grpc-timeout``.

    Raises:
        ValueError: no digits, more than eight, or an unknown unit.
    """
    digits = value[:-1]
    seconds = _SECONDS.get(value[-1:])
    if seconds is None or not digits.isdigit() or len(digits) > _DIGITS_MAX:
        raise ValueError(
            f"malformed grpc-timeout {value!r}: up to 8 digits and one of H M S m u n are allowed"
        )
    return int(digits) * seconds
