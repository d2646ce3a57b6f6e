"""What an exercise is made of, and what a learner gets to see of it."""

import html
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from dis import get_instructions

import psycopg2

from classroom import flights, servers
from classroom.cells import display_or_print, in_notebook, one_line, show, without_password
from classroom.place import PlaceError
from classroom.questions import INK, QUIET, RIGHT, WRONG

from . import tries
from .deadline import Late, within
from .judge import Judge, NotYet

TRIES = 3  # before the solution is shown to whoever has not solved it


@dataclass(frozen=True)
class Exercise:
    """A task, and all that belongs to it. `tests/test_exercises.py` holds it to its word."""

    name: str  # "04.return_it": the notebook, and a word
    minutes: int
    task: str  # one or two sentences
    accept: list[str]  # what the check looks at
    hints: list[str]  # each gives away more than the one before
    solution: Callable
    wrong: list[tuple[Callable, str]]  # wrong answers, and a part of what each is told
    check: Callable  # check(judge, answer) raises NotYet, or does not
    deadline: float = 5.0  # seconds

    def judge(self, answer, dsn: str) -> "Verdict":
        """Try an answer on the server at `dsn`; return the verdict. Raises nothing of the answer's.

        An answer that is not done after `deadline` seconds is stopped, as far as Python can do so.
        """
        if answer is ... or (inspect.isfunction(answer) and _is_stub(answer)):
            return Verdict(self.name, "not attempted", "write the function and run this cell again")
        if not callable(answer):
            return Verdict(
                self.name,
                "not yet",
                "give the function itself, without calling it: `check(f)`",
            )
        try:
            judge = Judge(dsn)
        except psycopg2.Error as error:
            return self._no_server(error)
        try:
            with judge.watching():
                within(self.deadline, lambda: self.check(judge, answer), judge.free)
            return Verdict(self.name, "correct", judge.summary())
        except NotYet as reason:
            return Verdict(self.name, "not yet", without_password(reason))
        except Late as late:
            at = f", at {late.where}" if late.where else ""
            end = "it was stopped" if late.stopped else "it won't stop: mend it, restart the kernel"
            return Verdict(self.name, "not yet", f"still busy after {self.deadline:g} s{at}; {end}")
        except psycopg2.OperationalError as error:
            return self._no_server(error)
        except Exception as error:  # ours: a slip of the check must not stop a notebook
            said = f"{type(error).__name__}: {one_line(error)}"
            return Verdict(self.name, "not checked", f"the check itself failed: {said}")
        finally:
            judge.close()

    def _no_server(self, error):
        hint = "close the pools of earlier cells, or run start() again"
        return Verdict(self.name, "not checked", f"{one_line(error)}; try: {hint}")


@dataclass
class Verdict:
    """What came of a check. Its text is "correct: …", "not yet: …", "not attempted: …", or "not
    checked: …" if there was no server to check on."""

    exercise: str
    outcome: str
    reason: str  # one line; of a correct answer: what was seen
    more: str = ""  # what to do next
    shown_in: int | None = None  # the number of the cell that has shown it

    @property
    def correct(self) -> bool:
        return self.outcome == "correct"

    def __repr__(self):
        return f"{self.outcome}: {self.reason}"

    def show(self) -> None:
        """Show it here: a block on a page, lines elsewhere."""
        mark, colour = {"correct": ("✓ ", RIGHT), "not yet": ("✗ ", WRONG)}.get(
            self.outcome, ("", QUIET)
        )
        more = f'<div style="opacity: 0.75">{_marked(self.more)}</div>' if self.more else ""
        display_or_print(
            f'<div role="status" style="border-left: 3px solid {colour}; color: {INK}; '
            f'padding: 4px 0 4px 14px; line-height: 1.5"><strong>{mark}'
            f"{self.outcome.capitalize()}:</strong> {_marked(self.reason)}{more}</div>",
            f"{self}\n{self.more}".rstrip(),
            kind="text/html",
        )
        self.shown_in = _cell_number()

    def _ipython_display_(self):
        # As the last line of the cell that checked, it is on the page already.
        if self.shown_in != _cell_number():
            self.show()


class Check:
    """An exercise in a notebook: call it with your function."""

    def __init__(self, exercise: Exercise, lab=None):
        self.exercise = exercise
        self._lab = lab

    def __repr__(self):
        one = self.exercise
        accept = "".join(f"\n  - {line}" for line in one.accept)
        return f"exercise {one.name} ({one.minutes} minutes): {one.task}{accept}"

    def __call__(self, answer=...) -> Verdict:
        """Check an answer, show the verdict and return it. Never raises because of the answer."""
        try:
            verdict = self.exercise.judge(answer, self._dsn())
        except (servers.ServerError, flights.LoadError, PlaceError) as error:
            verdict = Verdict(self.exercise.name, "not checked", one_line(error))
        if verdict.outcome in ("correct", "not yet"):
            tries.record(verdict.exercise, verdict.correct)
        verdict.more = self._more(verdict.outcome)
        verdict.show()
        return verdict

    def hint(self, n: int = 1) -> None:
        """Show the hint number `n`; each gives away more than the one before."""
        hints = self.exercise.hints
        if n not in range(1, len(hints) + 1):
            text = f"there are {len(hints)} hints: check.hint() … check.hint({len(hints)})"
            display_or_print(text, text)
            return
        head = f"Hint {n} of {len(hints)}"
        display_or_print(f"**{head}.** {hints[n - 1]}", f"{head}: {hints[n - 1]}")

    def solution(self) -> None:
        """Show a solution, to whoever has solved the exercise or tried three times."""
        if wait := self._wait():
            text = f"The solution is shown after {wait}; until then: check.hint()"
            display_or_print(text, text)
        else:
            show(self.exercise.solution)

    def _wait(self):
        done = tries.of(self.exercise.name)
        left = 0 if done.solved else TRIES - done.tries
        return "" if left <= 0 else "one more try" if left == 1 else f"{left} more tries"

    def _more(self, outcome):
        if outcome == "correct":
            return "`check.solution()` shows ours"
        if outcome == "not checked":
            return ""
        wait = self._wait()
        later = f" after {wait}" if wait else ""
        return f"`check.hint()` helps; `check.solution()` shows one{later}"

    def _dsn(self):
        if self._lab is not None:
            return self._lab.dsn
        dsn = servers.find().dsn
        flights.load(dsn)
        return dsn


def _is_stub(function):
    code = function.__code__
    return (_steps(code) in _EMPTY) and not code.co_freevars


def _steps(code):
    # What the function does, in whatever instructions this Python has for it.
    return [
        (step.opname, _operand(step))
        for step in get_instructions(code)
        if step.opname not in ("RESUME", "NOP", "CACHE")
    ]


def _operand(step):
    # The message of a NotImplementedError is anybody's own.
    text = "CONST" in step.opname and isinstance(step.argval, str)
    return str if text else step.argval


def _ellipsis(): ...


def _not_implemented():
    raise NotImplementedError


def _not_implemented_yet():
    raise NotImplementedError()


def _not_implemented_because():
    raise NotImplementedError("…")


_EMPTY = [
    _steps(stub.__code__)
    for stub in (
        _ellipsis,
        lambda: ...,
        _not_implemented,
        _not_implemented_yet,
        _not_implemented_because,
    )
]


def _cell_number():
    if not in_notebook():
        return None
    from IPython import get_ipython

    return get_ipython().execution_count


def _marked(text):
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
