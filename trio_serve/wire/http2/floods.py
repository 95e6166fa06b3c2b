"""Floods: frames that are cheap to send and dear to receive, counted until the limit that ends them.

Source: RFC 9113 section 10.5; CVE-2019-9511 to 9518, CVE-2023-44487 (rapid reset), CVE-2024-27316
(CONTINUATION) and CVE-2025-8671 (MadeYouReset) are what the counts answer to.
Knows nothing of clocks: the time comes with the bytes.
"""

from __future__ import annotations

from .errors import ConnectionFault, ErrorCode
from .limits import Allowance, Limits


class FloodWatch:
    """Counts for one connection; every method raises ConnectionFault one past its limit."""

    __slots__ = ("_glitches", "_limits", "_priorities", "_resets", "_window_updates", "empty_data", "replies")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._resets = Allowance(limits.resets_burst, limits.resets_per_s)
        self._glitches = Allowance(limits.glitches_burst, limits.glitches_per_s)
        self._priorities = 0
        self._window_updates = 0
        self.empty_data = 0  # in a row; the first DATA with content sets it to 0
        self.replies = 0  # acknowledgements queued since our bytes were last taken

    def reset(self, now: float) -> None:
        """A stream was reset by the peer, or by us because of what the peer sent."""
        if not self._resets.spend(now):
            burst, per_s = self._limits.resets_burst, self._limits.resets_per_s
            _calm(f"streams reset faster than resets_burst={burst}, resets_per_s={per_s}")

    def glitch(self, now: float) -> None:
        """A frame that is legal and moves nothing forward."""
        if not self._glitches.spend(now):
            burst, per_s = self._limits.glitches_burst, self._limits.glitches_per_s
            _calm(f"idle frames came faster than glitches_burst={burst}, glitches_per_s={per_s}")

    def reply(self) -> None:
        """An acknowledgement is about to be queued."""
        self.replies += 1
        if self.replies > self._limits.control_replies_max:
            limit = self._limits.control_replies_max
            _calm(f"over control_replies_max={limit} acknowledgements wait for the peer")

    def empty(self) -> None:
        """A DATA without content and without END_STREAM."""
        self.empty_data += 1
        if self.empty_data > self._limits.empty_data_max:
            _calm(f"over empty_data_max={self._limits.empty_data_max} empty DATA in a row")

    def priority(self, streams_opened: int) -> None:
        self._priorities += 1
        allowed = self._limits.priorities_per_stream * (1 + streams_opened)
        if self._priorities > allowed:
            _calm(
                f"over {allowed} PRIORITY for {streams_opened} streams "
                f"(priorities_per_stream={self._limits.priorities_per_stream})"
            )

    def window_update(self, streams_opened: int, data_sent: int) -> None:
        self._window_updates += 1
        limits = self._limits
        if self._window_updates <= limits.window_updates_spare:
            return
        allowed = (
            limits.window_updates_spare
            + limits.window_updates_per_stream * streams_opened
            + limits.window_updates_per_data * data_sent
        )
        if self._window_updates > allowed:
            _calm(
                f"over {allowed} WINDOW_UPDATE for {streams_opened} streams and {data_sent} DATA "
                f"(window_updates_spare={limits.window_updates_spare})"
            )


def _calm(text: str) -> None:
    raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, text)
