"""Exercises: a task, a check of what the answer *does* on the real server, hints, a solution.

    check = exercise("04.return_it", lab)
    check(answer)           correct, not yet (and why), or not attempted
    check.hint(2)           a nudge; check.solution() after success, or after three tries
    progress()              a table of all of them

To add one, put this into the file of its notebook, `nb04.py`; nothing else has to know of it:

    def answer(pool, flight_id):                      # the solution: a real function
        with pool.connection() as conn:
            return flights.lookup(conn, flight_id)

    def answer_of_nothing(pool, flight_id):           # wrong: three at least; None is no attempt
        return ()

    def check_answer(judge, answer):                  # runs in a thread, five seconds at the most
        pool = judge.pool(max_size=2)
        found = judge.call(answer, pool, 7)           # an exception in here is "not yet" already
        row = flights.lookup(judge.conn, 7)
        judge.expect_equal(found.result, row, "for flight 7")   # the work first
        judge.expect_only(pool)                       # no connection but the pool's
        judge.expect_returned("after a call that went well")

    ANSWER = Exercise(
        name="04.answer", minutes=5, task="Write `answer(pool, flight_id)` …",
        accept=["…"], hints=["…", "…"], solution=answer, check=check_answer,
        wrong=[(answer_of_nothing, "for flight 7 it returned ()"), …],
    )

What else can be asked of an answer stands in `judge.py`. `tests/test_exercises.py` finds every
exercise and tries its solution, its wrong answers and an empty stub.
"""

import pkgutil
import re
import sys
from difflib import get_close_matches
from importlib import import_module

from classroom.cells import LessonError

from . import tries
from .task import Check, Exercise

__all__ = ["Exercise", "exercise", "find", "progress", "score"]


def exercise(name: str, lab=None) -> Check:
    """Return the check of an exercise, to be called with the learner's function.

    Runs against the server of `lab`, else of the lab that this kernel started last, else of
    whatever server the course finds. Raises LessonError for a name that there is not.
    """
    known = {one.name: one for one in find(str(name)[:2])}
    if name not in known:
        every = [one.name for one in find()]
        close = get_close_matches(str(name), every, 1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(every)}"
        raise LessonError(f"no exercise {name!r}; {hint}")
    return Check(known[name], lab or getattr(sys.modules.get("classroom.lesson"), "current", None))


def find(notebook: str | None = None) -> list[Exercise]:
    """Return the exercises of a notebook ("04"), or of all, in the order of their files."""
    modules = sorted(m.name for m in pkgutil.iter_modules(__path__) if re.match(r"nb\d\d$", m.name))
    return [
        one
        for module in modules
        if notebook is None or module == f"nb{notebook}"
        for one in vars(import_module(f"{__name__}.{module}")).values()
        if isinstance(one, Exercise)
    ]


def score(notebook: str) -> str:
    """Say how far a notebook's exercises are done: "2 of 3 exercises solved"; "" if it has none."""
    names = [one.name for one in find(notebook)]
    if not names:
        return ""
    solved = sum(tries.of(name).solved for name in names)
    return f"{solved} of {len(names)} exercise{'s' * (len(names) > 1)} solved"


def progress():
    """Return a pandas DataFrame of all exercises: exercise, solved (yes or no), tries, minutes."""
    import pandas as pd

    rows = []
    for one in find():
        done = tries.of(one.name)
        rows.append((one.name, "yes" if done.solved else "no", done.tries, one.minutes))
    return pd.DataFrame(rows, columns=["exercise", "solved", "tries", "minutes"])
