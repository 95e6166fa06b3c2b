"""The folder of a long-lived instance: one owner, private, and whole files whatever happens."""

import os
import pathlib
import signal
import stat
import subprocess
import sys

import pytest

from trio_serve.instance.state_directory import AnotherInstance, StateDirectory

OWN = """
import signal, sys
from trio_serve.instance.state_directory import StateDirectory
with StateDirectory(sys.argv[1]).owned():
    print("owned", flush=True)
    signal.pause()
"""


@pytest.mark.real_clock
def test_the_lock_goes_with_its_owner_even_when_that_is_killed(tmp_path: pathlib.Path) -> None:
    state = StateDirectory(tmp_path / "state")
    owner = subprocess.Popen([sys.executable, "-c", OWN, str(state.path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"owned\n"

    assert state.is_owned()
    with (
        pytest.raises(AnotherInstance, match=rf"runs in .*state already \(process {owner.pid}\)"),
        state.owned(),
    ):
        pass
    owner.send_signal(signal.SIGKILL)
    owner.communicate()

    assert not state.is_owned()
    with state.owned():
        assert state.is_owned()
    assert not state.is_owned()


def test_folder_and_socket_are_for_the_owner_only_and_a_dead_ones_socket_is_replaced(
    tmp_path: pathlib.Path,
) -> None:
    state = StateDirectory(tmp_path / "state")
    state.make()
    umask = os.umask(0)
    try:
        for path in (state.socket_path, state.code_socket_path):
            state.listen(path).close()  # its file stays, as that of a killed process
            with state.listen(path):
                assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert os.umask(0) == 0
    finally:
        os.umask(umask)
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700


def test_the_desired_state_is_replaced_as_a_whole_and_private(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDirectory(tmp_path)
    assert state.read_desired_state() is None
    state.write_desired_state("one")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(os, "fsync", full)
        state.write_desired_state("two, which does not fit")

    assert state.read_desired_state() == "one"
    assert stat.S_IMODE(state.desired_state_path.stat().st_mode) == 0o600
    state.forget_desired_state()
    state.forget_desired_state()
    assert state.read_desired_state() is None


def test_a_path_that_is_too_long_for_a_socket_is_told(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match=r"too long for a Unix socket \(107 bytes at most\); choose a shorter"):
        StateDirectory(tmp_path / ("x" * 120)).make()
