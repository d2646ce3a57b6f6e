"""End a run with how long the notebooks took, what was left out, and the command for that.

`make test` and `make fast` load it with `-p tests.plugin_skips`. A test that is skipped says why,
and what to type, in its reason: "no docker here; try: sudo apt install docker.io".
"""

from collections import Counter


def pytest_terminal_summary(terminalreporter):
    passed = terminalreporter.stats.get("passed", [])
    times = [times for report in passed if (times := notebook_times(report))]
    if times:
        terminalreporter.section("machine time of the notebooks")
    for line in times:
        terminalreporter.line(line)
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


def notebook_times(report):
    """Return "04_leaks: 4.1 s, then 2.0 s" for the report of a notebook's test, "" for others."""
    runs = [said for name, said in report.user_properties if name.endswith(" run")]
    return runs and f"{runs[0][0]}: {', then '.join(f'{seconds:.1f} s' for _, seconds in runs)}"


def tests(n):
    return f"{n} test" if n == 1 else f"{n} tests"
