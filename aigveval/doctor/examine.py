"""What `aigveval doctor` looks at: libraries, machine, decoders, weights, and a self-test.

    for finding in examine(): print(finding.line())

Every check runs in another process, which runs all of them as long as it lives. So a library that
cannot be imported, or that ends the process by a signal, is a finding like any other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..errors import one_line
from .checks import EXTRAS, MODULES, Finding, run_check

__all__ = ["Finding", "checks", "examine", "is_well", "run_checks"]

_ADVICE = {
    "SIGILL": "this build wants a newer CPU",
    "SIGKILL": "the system kills what takes too much memory",
}
_RUN = """\
import json, sys
sys.path[:], checks, options = json.loads(sys.argv[1])
from aigveval.cli.console import silence_libraries
from aigveval.doctor.examine import run_checks
silence_libraries()
run_checks(checks, options)
"""


def is_well(findings: Sequence[Finding]) -> bool:
    """Whether scoring works: nothing failed, nothing was skipped."""
    return all(finding.state in ("ok", "note") for finding in findings)


def checks() -> list[str]:
    """The names of all checks, in order."""
    from ..versions import tested_ranges

    extras = [name for name, one in tested_ranges().items() if name in EXTRAS and one.installed]
    libraries = [*MODULES, *extras]
    rest = ("machine", "decoders", "weights", "self-test")
    return [*(f"library {name}" for name in libraries), *rest]


# ---- the process that does the checks -----------------------------------------------------------


def examine(
    *,
    fetch: bool = False,
    device: str | None = None,
    on_check: Callable[[str], None] | None = None,
) -> Iterator[Finding]:
    """Runs all checks; never raises for what they find.

    Args:
        fetch: fetch weights that are missing or damaged. Without it no network is used.
        device: of the self-test, as of `aigveval.load`.
        on_check: called with the name of each check before it runs.
    """
    todo = checks()
    options = {"fetch": fetch, "device": device}
    while todo:
        left = list(todo)
        code: int | str | None = None
        try:
            with _start(todo, options, show_errors=fetch) as process:
                assert process.stdout is not None
                if on_check is not None:
                    on_check(left[0])
                for line in process.stdout:
                    found = json.loads(line)
                    if "done" in found:
                        left.remove(found["done"])
                        if left and on_check is not None:
                            on_check(left[0])
                    else:
                        yield Finding(**found)
            code = process.returncode
        except (OSError, ValueError) as error:
            code = one_line(error)
        if left:  # it ended within a check; the others still have their turn
            check, _, name = left.pop(0).partition(" ")
            ending = _ending(code)
            yield Finding(
                check=check,
                name=name or check,
                state="failed",
                text=f"ends the process ({ending})",
                advice=_ADVICE.get(ending, ""),
            )
        todo = left


def _start(
    names: Sequence[str], options: Mapping[str, Any], *, show_errors: bool
) -> subprocess.Popen[str]:
    # The same modules as here, wherever the command was started.
    roots = [os.path.abspath(entry) for entry in sys.path]
    return subprocess.Popen(
        [sys.executable, "-c", _RUN, json.dumps([roots, list(names), options])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        stderr=None if show_errors else subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
    )


def _ending(code: int | str | None) -> str:
    if isinstance(code, int) and code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return code if isinstance(code, str) else f"exit code {code}"


def run_checks(names: Sequence[str], options: Mapping[str, Any]) -> None:
    """Runs checks in this process and prints their findings as JSON, a line each."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends this process without a traceback
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as out:
        os.dup2(2, 1)  # what libraries print is no finding
        for name in names:
            for finding in run_check(name, **options):
                print(json.dumps(asdict(finding)), file=out)
            print(json.dumps({"done": name}), file=out)
