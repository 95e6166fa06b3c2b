"""A wall clock that jumps changes nothing but what is shown: nobody waits, expires or counts by it.

Time is Trio's, or the monotonic clock where Trio does not run.  Who reads the wall clock stands in the table
below, with what for; whoever else does is a failure.
"""

import ast
import pathlib

PACKAGE = pathlib.Path(__file__).parent.parent / "trio_serve"

WALL_CLOCK = {
    "time": {"time", "time_ns", "localtime", "gmtime", "ctime", "strftime"},
    "datetime": {"now", "utcnow", "today"},
}

SHOWN = {
    "observe/log_lines.py": "when a record was made",
    "observe/log_files.py": "the name of a session's directory",
    "proxy/access_log.py": "when a call began",
    "instance/rest_schema.py": "when a replica was started",
    "serving/controller.py": "when an application was deployed",
    "instance/imports.py": "compared with the times of files, which are the wall clock's",
}


def readers(source: str) -> set[str]:
    """The names of the wall clock that ``source`` mentions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in WALL_CLOCK.get(node.value.id, ()):
                found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            found |= {f"time.{name.name}" for name in node.names if name.name in WALL_CLOCK["time"]}
    return found


def test_only_what_is_shown_comes_from_the_wall_clock() -> None:
    found = {
        module.relative_to(PACKAGE).as_posix()
        for module in PACKAGE.rglob("*.py")
        if readers(module.read_text())
    }
    assert found == set(SHOWN)


def test_a_reader_is_found_however_it_is_written() -> None:
    assert readers("import time\ntime.time()") == {"time.time"}
    assert readers("from time import time as now\nnow()") == {"time.time"}
    assert readers("from datetime import datetime\ndatetime.now()") == {"datetime.now"}
    assert readers("import time\ntime.monotonic()") == set()
