"""Strictness: a test that passes may still show that the application is not what it should be.

    Strict.process_boundary    values that could not go to another process, and so not to a cluster
    Strict.leaks               tasks, threads, sockets and answers that the test leaves behind

What is found fails the test at its end; where the test fails anyway, its own error comes first and has the
findings as notes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import attrs

from trio_serve.serving.application import Application
from trio_serve.testing.leaks import Leaks, watching_for_leaks

Prepare = Callable[[Application], Application]


@attrs.frozen(kw_only=True)
class Strict:
    """What to be strict about."""

    process_boundary: bool = True
    leaks: bool = True


@contextmanager
def strictly(strict: Strict) -> Iterator[Prepare]:
    """Watch over the block; gives what to put each application through before it runs.

    Raises:
        WouldNotSurvive, Leaked: the block has raised nothing, and there are findings.
    """
    prepare: Prepare = lambda application: application  # noqa: E731
    raise_findings: list[Callable[[], None]] = []
    if strict.process_boundary:
        # Imported here: those who are not strict need no cloudpickle.
        from trio_serve.testing.process_boundary import Found, across_processes

        found = Found()
        prepare = lambda application: across_processes(application, found)  # noqa: E731
        raise_findings.append(found.raise_if_any)
    watch = watching_for_leaks() if strict.leaks else nullcontext(Leaks())
    try:
        with watch as leaks:
            yield prepare
    except BaseException as error:
        for raise_if_any in (*raise_findings, leaks.raise_if_any):
            try:
                raise_if_any()
            except AssertionError as finding:
                error.add_note(str(finding))
        raise
    for raise_if_any in (*raise_findings, leaks.raise_if_any):
        raise_if_any()
