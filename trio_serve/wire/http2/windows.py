"""Flow-control windows: how much may still be sent, as arithmetic alone.

    send:     available -= sent          available += WINDOW_UPDATE
    receive:  available -= received      consumed bytes gather until half the window, then one WINDOW_UPDATE

A window can be negative: a smaller SETTINGS_INITIAL_WINDOW_SIZE takes back what was already spent.

Source: RFC 9113 sections 5.2 and 6.9.
Knows nothing of frames or streams.
"""

from __future__ import annotations

WINDOW_DEFAULT = 65_535
WINDOW_MAX = (1 << 31) - 1


class WindowOverflow(Exception):
    """The window would pass 2^31 - 1 octets (RFC 9113 section 6.9.1)."""


class Window:
    """What one side may still send."""

    __slots__ = ("available",)

    def __init__(self, available: int = WINDOW_DEFAULT) -> None:
        self.available = available

    def take(self, size: int) -> bool:
        """Spend ``size`` octets; False, and nothing spent, when the window does not hold them."""
        if size > self.available:
            return False
        self.available -= size
        return True

    def widen(self, increment: int) -> None:
        """Apply a WINDOW_UPDATE, or a change of the initial size, which may be negative.

        Raises:
            WindowOverflow: and the window is as it was.
        """
        if self.available + increment > WINDOW_MAX:
            raise WindowOverflow
        self.available += increment


class ReceiveWindow(Window):
    """What the peer may still send, given back in batches as it is consumed.

    With each batch the window doubles, up to ``size_max``: a reader that keeps up earns more bytes in
    flight, and one that does not never holds more than the first ``size``.
    """

    __slots__ = ("consumed", "lent", "size", "size_max")

    def __init__(self, size: int, size_max: int | None = None) -> None:
        super().__init__(size)
        self.size = size
        self.size_max = size if size_max is None else max(size, size_max)
        self.consumed = 0
        self.lent = 0

    def give_back(self, size: int) -> int:
        """Note ``size`` octets as consumed; the increment to announce to the peer now, or 0 for not yet."""
        if self.lent:
            repaid = min(self.lent, size)
            self.lent -= repaid
            size -= repaid
            if not size:
                return 0
        consumed = self.consumed + size
        if consumed * 2 < self.size:
            self.consumed = consumed
            return 0
        self.consumed = 0
        grown = min(self.size * 2, self.size_max)
        increment = consumed + grown - self.size
        self.size = grown
        self.available += increment
        return increment

    def lend(self, increment: int) -> None:
        """Room for ``increment`` octets once; announce it.  Octets consumed repay it first."""
        self.widen(increment)
        self.lent += increment

    def enlarge(self, increment: int) -> None:
        """The window itself is larger by ``increment`` from now on; announce it."""
        self.widen(increment)
        self.size += increment
        self.size_max = max(self.size_max, self.size)
