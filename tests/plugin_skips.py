"""End a run with what it left out, and the command that would put each back in.

`make test` and `make fast` load it with `-p tests.plugin_skips`. A test that is skipped says why,
and what to type, in its reason: "no docker here; try: sudo apt install docker.io".
"""

from collections import Counter


def pytest_terminal_summary(terminalreporter):
    reasons = Counter(reason(report) for report in terminalreporter.stats.get("skipped", []))
    left_out = len(terminalreporter.stats.get("deselected", []))
    terminalreporter.section("left out of this run")
    for text, n in sorted(reasons.items()):
        terminalreporter.line(f"{tests(n)} skipped: {text}")
    if left_out:
        terminalreporter.line(f"{tests(left_out)} not chosen; try: make test")
    if not reasons and not left_out:
        terminalreporter.line("nothing")


def reason(report):
    """Return why a test was skipped; a reason without a command is shown to lack one."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    text = text.removeprefix("Skipped: ")
    return text if "; " in text else f"{text} (its reason names no command)"


def tests(n):
    return f"{n} test" if n == 1 else f"{n} tests"
