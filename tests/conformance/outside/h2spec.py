"""h2spec: the HTTP/2 and HPACK RFCs, section by section, from the client's side."""

import re
import subprocess

from tests.conformance.outside.finding import Outcome, find, missing

NAME, VARIABLE = "h2spec", "TRIO_SERVE_H2SPEC"


def run(port: int, tls: bool) -> Outcome:
    tool, against = "h2spec --strict", "our server, TLS" if tls else "our server, h2c"
    program = find(NAME, VARIABLE)
    if program is None:
        return missing(tool, against, NAME, VARIABLE)
    command = [
        program,
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "--strict",
        "-o",
        "2",
        *(["-t", "-k"] if tls else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    counts = re.search(r"(\d+) tests?, (\d+) passed, (\d+) skipped, (\d+) failed", done.stdout)
    if counts is None:
        return Outcome(tool, against, failed=(done.stdout[-300:] + done.stderr[-300:],))
    # Failures are listed again after the summary's word; each begins with a cross.
    listed = tuple(dict.fromkeys(line.strip() for line in done.stdout.splitlines() if "×" in line))
    unlisted = int(counts[4]) - len(listed)
    return Outcome(tool, against, int(counts[2]), listed + ("?",) * unlisted)
