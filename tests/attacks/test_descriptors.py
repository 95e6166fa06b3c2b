"""A server that has run out of file descriptors: it waits, quietly, and serves again when there are some."""

import contextlib
import re
import socket
import time

import pytest

from benchmarks.load import frames
from tests.attacks.under_attack import Victim

DESCRIPTORS = 64
CROWD = 200
WATCHED_S = 3.0
CPU_SHARE_MAX = 0.05


@pytest.mark.parametrize("victim", [("--descriptors", str(DESCRIPTORS))], indirect=True)
def test_a_crowd_that_takes_all_descriptors_harms_nobody_who_is_in(victim: Victim) -> None:
    """ulimit -n 64, and two hundred connections: those that are in are served, the rest wait."""
    with victim.attacker() as early, contextlib.ExitStack() as crowd:
        assert early.call("Hello").status == 0
        for _ in range(CROWD):
            one = crowd.enter_context(socket.create_connection(("127.0.0.1", victim.port)))
            one.sendall(frames.opening())
        before, lines, began = victim.cpu_s(), len(victim.log.splitlines()), time.monotonic()
        time.sleep(WATCHED_S)
        told = victim.log.splitlines()[lines:]
        watched_s = time.monotonic() - began
        share = (victim.cpu_s() - before) / watched_s

        assert early.call("Hello").status == 0
        assert all(re.search("cannot accept connections: .*Too many open files", line) for line in told)
        assert len(told) <= watched_s + 1  # a line a second
        assert share < CPU_SHARE_MAX

        crowd.close()
        with victim.attacker() as late:
            assert late.call("Hello").status == 0
    print(f"\nno descriptors: {100 * share:.1f} % CPU, {len(told)} lines in {watched_s:.1f} s")
