"""What a lesson's cells call that needs no server: a failure on one line, a function's source.

with expect(PoolTimeout):     the failure is real, printed on one line, and must happen
    pool.getconn()

show(leak.broken)             the source, in the colours of the page
"""

import inspect
import re
import sys
from pathlib import Path

from classroom.place import ROOT

PASSWORDS = [
    # key=value addresses, where a value with spaces stands in quotes
    (re.compile(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s,;)]+)", re.IGNORECASE), r"\1***"),
    # postgresql://user:password@host; a password may hold an @, a host may not
    (re.compile(r"(://[^:/@\s]*:)\S*@"), r"\1***@"),
]


class LessonError(Exception):
    """A lesson cannot go on; the message is one line that says why, and what to try.

    In a notebook the run stops there, and the line stands alone, without a traceback.
    """

    def _render_traceback_(self):  # IPython asks for this name, and shows the lines it gets
        return [f"{type(self).__name__}: {self}"]


class NothingRaised(LessonError, AssertionError):
    """A cell promised a failure, and nothing went wrong."""


def without_password(text) -> str:
    """The text with every password in it, of either kind of address, replaced by ***."""
    for pattern, replacement in PASSWORDS:
        text = pattern.sub(replacement, str(text))
    return text


def one_line(error) -> str:
    """What an exception says, on one line: psycopg2 spreads its messages over several."""
    lines = (" ".join(line.split()) for line in str(error).splitlines())
    return without_password("; ".join(line for line in lines if line.strip("^ ")))


class expect:
    """Run a cell that must fail: `with expect(PoolTimeout) as failure: ...`

    The failure is printed on one line and swallowed; `failure.error` keeps it. If nothing goes
    wrong, NothingRaised says so, so that a pitfall that stops biting is noticed. Any other
    exception passes through.
    """

    def __init__(self, *exceptions: type[BaseException]):
        wrong = [
            e for e in exceptions if not (isinstance(e, type) and issubclass(e, BaseException))
        ]
        if wrong or not exceptions:
            got = ", ".join(map(repr, wrong)) or "nothing"
            raise TypeError(f"expect() takes the exception classes to expect, got {got}")
        self.exceptions = exceptions
        self.error = None

    def __enter__(self):
        self.error = None
        return self

    def __exit__(self, kind, error, traceback):
        if error is None:
            names = " or ".join(e.__name__ for e in self.exceptions)
            raise NothingRaised(f"expected {names}, but nothing went wrong")
        if not isinstance(error, self.exceptions):
            return False
        # A traceback holds the frames it went through, and they hold connections.
        self.error = error.with_traceback(None)
        print(f"{kind.__name__}: {one_line(error)}".rstrip(": "))
        return True


def show(*functions) -> None:
    """Show the source of functions, methods or classes, with the file it can be read in."""
    for function in functions:
        display_or_print(*_source(function))


def _source(function):
    name = getattr(function, "__qualname__", repr(function))
    target = inspect.unwrap(function) if callable(function) else function
    try:
        source = inspect.cleandoc("\n" + inspect.getsource(target))
        file, line = Path(inspect.getsourcefile(target)), inspect.getsourcelines(target)[1]
    except (OSError, TypeError) as error:
        raise LessonError(f"show({name}): its source cannot be read ({one_line(error)})") from None
    where = ""
    if file.is_relative_to(ROOT):  # what a cell defined lies in a temporary file: no use to anyone
        where = f"{file.relative_to(ROOT).as_posix()}, line {line}"
    markdown = f"~~~~python\n{source}\n~~~~"
    return (f"*{where}*\n\n{markdown}", f"# {where}\n{source}") if where else (markdown, source)


def in_notebook() -> bool:
    """Whether an IPython shell will show what it is given."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def display_or_print(rich: str, plain: str, kind: str = "text/markdown") -> None:
    """Show `rich` where pages can (JupyterLab colours code in Markdown for its own theme)."""
    if in_notebook():
        from IPython.display import display

        display({kind: rich, "text/plain": plain}, raw=True)
    else:
        print(plain)
