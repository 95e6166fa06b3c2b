"""What the commands for the long-lived instance do: start it, tell it what to run, ask how that is.

Each returns an exit code: 0 done, 1 an application failed or there is no instance, 2 a mistake of the
person who gave the command.  Data goes to stdout, what went wrong to stderr.

Knows nothing of click.
"""

import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from trio_serve.instance.admin_client import AdminClient, NoInstance, Refused
from trio_serve.instance.background import told_where
from trio_serve.instance.config_file import ConfigFileError, read_config_file
from trio_serve.instance.detached import run_detached
from trio_serve.instance.foreground import FAILED, MISTAKEN, STOPPED
from trio_serve.instance.rest_schema import config_text, status_text
from trio_serve.instance.start_options import StartOptions
from trio_serve.instance.starting import start_detached, with_options_of_script
from trio_serve.instance.state_directory import StateDirectory


def start(
    given: StartOptions,
    argv: list[str],
    *,
    blocking: bool,
    ready_fd: int | None = None,
    options_fd: int | None = None,
) -> int:
    """Be the instance, or with ``blocking`` false leave one behind that serves; ``argv`` says which."""
    if blocking:
        if options_fd is not None:
            given = with_options_of_script(given, options_fd)
        return run_detached(given, ready_fd, log_to_stderr=ready_fd is None)
    state = StateDirectory(given.state_dir)
    try:
        return told_where(lambda: start_detached(state, argv), state.log_path)
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return FAILED


def deploy(state_dir: str | None, path: str, app_dir: str | None, *, wait: bool) -> int:
    """Let the instance have what the file ``path`` says, and nothing else; wait until it is so."""
    try:
        file = read_config_file(path)
        content = pathlib.Path(path).read_bytes()
    except ConfigFileError as error:
        print(error, file=sys.stderr)
        return MISTAKEN
    except OSError as error:
        print(f"{path}: cannot be read: {error.strerror or error}", file=sys.stderr)
        return MISTAKEN
    folder = os.path.dirname(os.path.abspath(path))
    client = AdminClient(StateDirectory(state_dir))

    def act() -> int:
        warnings = client.deploy(content, folder, [os.path.abspath(app_dir or os.curdir)])
        known = len(file.warnings)  # the instance finds the same ones, without their places
        for warning in (*file.warnings, *warnings[known:]):
            print(f"warning: {warning}", file=sys.stderr)
        if not wait:
            return STOPPED
        applications = client.wait_until_settled()["applications"]
        failed = False
        for app in file.config.applications:
            details = applications.get(
                app.name, {"status": "DELETING", "message": "another deploy took it away"}
            )
            print(f"{app.name} {details['status']}")
            if details["status"] != "RUNNING":
                failed = True
                print(f"application {app.name!r}: {details['message']}", file=sys.stderr)
        return FAILED if failed else STOPPED

    return _told(act)


def status(state_dir: str | None, name: str | None) -> int:
    """Print how all applications are, or the one of this name."""
    return _of_details(state_dir, name, status_text)


def config(state_dir: str | None, name: str | None) -> int:
    """Print the configurations that are wanted."""
    return _of_details(state_dir, name, config_text)


def delete(state_dir: str | None, name: str) -> int:
    """Have the application ``name`` no more, and wait until it is gone."""
    client = AdminClient(StateDirectory(state_dir))

    def act() -> int:
        client.delete(name)
        client.wait_until_settled()
        return STOPPED

    return _told(act)


def shutdown(state_dir: str | None) -> int:
    """Forget all applications and end the instance; wait for it."""
    client = AdminClient(StateDirectory(state_dir))

    def act() -> int:
        client.shut_down()
        return STOPPED

    return _told(act)


def _of_details(state_dir: str | None, name: str | None, text_of: Callable[[Any, str | None], str]) -> int:
    client = AdminClient(StateDirectory(state_dir))

    def act() -> int:
        details = client.details()
        if name is not None and name not in details["applications"]:
            known = ", ".join(details["applications"]) or "none"
            print(f"there is no application {name!r}; there are: {known}", file=sys.stderr)
            return MISTAKEN
        sys.stdout.write(text_of(details, name))
        return STOPPED

    return _told(act)


def _told(act: Callable[[], int]) -> int:
    """Run ``act``; what keeps it from being done is told in one line."""
    try:
        return act()
    except NoInstance as error:
        print(error, file=sys.stderr)
        return FAILED
    except Refused as error:
        print(error, file=sys.stderr)
        return MISTAKEN if error.status < 500 else FAILED
    except KeyboardInterrupt:
        print("no longer waiting; the instance goes on with it", file=sys.stderr)
        return FAILED
