"""Sessions, the link to the newest, rotation, and disks that are full."""

import errno
import pathlib
from datetime import datetime

import pytest

from trio_serve.observe.log_files import RotatingFile, default_logs_dir, open_session


def test_the_newest_session_is_linked(tmp_path: pathlib.Path) -> None:
    first = open_session(tmp_path, datetime(2026, 1, 31, 12))
    second = open_session(tmp_path, datetime(2026, 1, 31, 13))

    assert first != second
    assert (tmp_path / "session_latest").resolve() / "logs" / "serve" == second.resolve()
    assert first.is_dir()
    assert sorted(path.name[:26] for path in tmp_path.iterdir()) == [
        "session_2026-01-31_12-00-0",
        "session_2026-01-31_13-00-0",
        "session_latest",
    ]


def test_a_folder_that_cannot_be_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(OSError, match=r"logs_dir='.*file' cannot be used: Not a directory"):
        open_session(tmp_path / "file")


def test_sessions_lie_in_the_users_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/home/ada/state")

    assert default_logs_dir() == pathlib.Path("/home/ada/state/trio-serve")


def test_a_file_is_rotated_before_it_grows_too_large_and_no_line_is_cut(tmp_path: pathlib.Path) -> None:
    file = RotatingFile(tmp_path / "serve.log", bytes_max=20, older_files=2)
    for number in range(8):
        file.write(f"line {number}")
    file.close()

    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {
        "serve.log": "line 6\nline 7\n",
        "serve.log.1": "line 4\nline 5\n",
        "serve.log.2": "line 2\nline 3\n",
    }


def test_a_new_file_goes_on_where_the_old_one_ended(tmp_path: pathlib.Path) -> None:
    for text in ("one", "two"):
        file = RotatingFile(tmp_path / "serve.log")
        file.write(text)
        file.close()
        file.close()

    assert (tmp_path / "serve.log").read_text() == "one\ntwo\n"


def test_a_full_disk_is_told_to_the_writer() -> None:
    file = RotatingFile(pathlib.Path("/dev/full"))
    try:
        with pytest.raises(OSError) as raised:
            file.write("lost")
    finally:
        file.close()

    assert raised.value.errno == errno.ENOSPC


def test_lone_surrogates_are_written(tmp_path: pathlib.Path) -> None:
    file = RotatingFile(tmp_path / "serve.log")
    file.write("\ud800")
    file.close()

    assert (tmp_path / "serve.log").read_text() == "\\ud800\n"
