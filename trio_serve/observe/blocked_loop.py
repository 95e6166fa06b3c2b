"""Tells when something holds up the event loop, and what: no call moves on while it does.

    thread ── knock ──> loop ── answer ──> thread       every half second
              └── no answer within ``blocked_s``: where is it? ── a warning with the loop's stack
                                                                └── another line when it answers again

The usual cause is a blocking call in an ``async def``.
"""

import logging
import sys
import threading
import time
import traceback

import trio

logger = logging.getLogger("trio_serve.loop")

BLOCKED_S = 1.0


async def watch_loop(blocked_s: float = BLOCKED_S) -> None:
    """Watch the loop that runs this, from a thread, until cancelled."""
    watch = _Watch(trio.lowlevel.current_trio_token(), threading.get_ident(), blocked_s)
    thread = threading.Thread(target=watch.run, name="trio_serve loop watch", daemon=True)
    thread.start()
    try:
        await trio.sleep_forever()
    finally:
        watch.stop()


class _Watch:
    def __init__(self, token: trio.lowlevel.TrioToken, loop_thread: int, blocked_s: float) -> None:
        self._token = token
        self._loop_thread = loop_thread
        self._blocked_s = blocked_s
        self._answered = threading.Event()
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()
        self._answered.set()

    def run(self) -> None:
        while not self._stopped.wait(self._blocked_s / 2):
            self._answered.clear()
            began = time.monotonic()
            try:
                self._token.run_sync_soon(self._answered.set)
            except trio.RunFinishedError:
                return
            if self._answered.wait(self._blocked_s):
                continue
            if not self._stopped.is_set():
                self._tell()
            self._answered.wait()
            if not self._stopped.is_set():
                logger.warning("the event loop goes on, after %.1f s", time.monotonic() - began)

    def _tell(self) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else None
        logger.handle(
            logger.makeRecord(
                logger.name,
                logging.WARNING,
                __file__,
                0,
                "the event loop has been blocked for over %g s, and every call waits; it is here:",
                (self._blocked_s,),
                None,
                sinfo=stack,
            )
        )
