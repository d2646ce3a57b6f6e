"""A lesson's first and last cell, and the lab between them.

    lab = start("04")       finds the server, loads the board, tidies up after the last run
    ...
    lab.finish()            closes the pools, asks the server what is still open, and ends it

Both may be run again and again in one kernel. Whatever goes wrong is one line: LessonError.
"""

import json
import sys
from contextlib import suppress

import psycopg2

from classroom import flights, pgbench, serverlog, servers
from classroom.cells import LessonError, NothingRaised, display_or_print, expect, one_line, show
from classroom.observer import Observer, kernel
from classroom.place import ROOT, PlaceError
from classroom.questions import predict, quiz
from poolkit.registry import live_pools

__all__ = [
    "Lab",
    "LessonError",
    "NothingRaised",
    "expect",
    "kernel",
    "predict",
    "quiz",
    "show",
    "start",
]

current = None  # the Lab that this kernel started last, for those who come without one
_labs = {}  # notebook -> its Lab, so that the next start() in this kernel can tidy up after it


def start(notebook: str) -> "Lab":
    """Get everything ready for a notebook ("04") and say so on one line; return its Lab.

    Finds the server (and starts the private one), ends what the last run of this notebook in this
    kernel left open, and loads the departures board unless it is there. Raises LessonError, one
    line, if anything is missing.
    """
    global current
    key = str(notebook)
    if not (len(key) == 2 and key.isascii() and key.isdigit()):
        raise LessonError(
            f'start() takes the two digits of the notebook, as in "04", got {notebook!r}'
        )
    tidied = ""
    if previous := _labs.pop(key, None):
        # Before anything connects: what the last run left may have used up the server.
        with suppress(LessonError, psycopg2.Error):  # that server may be gone, and all with it
            tidied = previous.tidy()
        previous.disconnect()
    try:
        lab = current = _labs[key] = Lab(servers.find(), key)
        flights.load(lab.dsn_for("lab"))
    except (servers.ServerError, PlaceError) as error:
        # One line that names no password; the example of an address in it would lose its own.
        raise LessonError(str(error)) from None
    except flights.LoadError as error:
        raise LessonError(one_line(error)) from None
    except psycopg2.Error as error:
        raise LessonError(f"the server would not serve notebook {key}: {one_line(error)}") from None
    print(f"{lab!r}; left by the last run: {tidied}" if tidied else repr(lab))
    return lab


class Lab(Observer):
    """What a notebook works with: an address, and the server's view of what it does with it."""

    def __repr__(self):
        return f"notebook {self.notebook}: {self.server.label}"

    def setup_durations(self, n: int = 20):
        """Open and close `n` connections; return where their milliseconds went, a row for each.

        Columns: client_ms, measured around the connect here; and what the server itself logged of
        the same connection (PostgreSQL 18): total_ms from the accept until it was ready, of which
        fork_ms to start the backend's process and authentication_ms. Returns None, and says on one
        line why, on a server whose log it cannot read.
        """
        return _or_say_why(serverlog.setup_durations, self, n)

    def pgbench(self, seconds: int = 1, clients: int = 1):
        """Let PostgreSQL's own benchmark measure the same thing; return its two results.

        `pgbench -S` (one lookup per transaction) for `seconds` on connections that are kept, and
        again with `-C`, a new connection for each transaction. Columns: connections, per_s, ms
        (mean of a transaction), times (how much slower than kept). Returns None, and says on one
        line why, where pgbench cannot run.
        """
        return _or_say_why(pgbench.run, self, seconds, clients)

    def tidy(self) -> str:
        """Close this kernel's pools and end this notebook's connections; say what there was."""
        done = []
        close_panels()
        if pools := live_pools():
            done.append(f"{_plural(len(pools), 'pool')}, closed now")
        for pool in pools:
            pool.close(timeout=0)
        self.until(0, timeout=0.2)  # what a pool has closed, the server lets go in its own time
        if left := len(self.end_all()):
            done.append(f"{_plural(left, 'connection')}, ended now")
        return "; ".join(done)

    def finish(self) -> None:
        """Close what this notebook opened, check with the server, and point to the next notebook.

        Pools are closed, whoever still holds one of their connections is named, and what the server
        still has of this notebook is ended, so that nothing is left in any case. Says how many of
        its exercises are solved.
        """
        close_panels()
        for pool in live_pools():
            if out := [str(holder) for holder in pool.close(timeout=0)]:
                more = f"; and {len(out) - 3} more" if out[3:] else ""
                print(
                    f"finish: pool {pool.name!r} still has {_plural(len(out), 'connection')} out: "
                    f"{'; '.join(out[:3])}{more}"
                )
        try:
            self.until(0, timeout=0.5)
            print(f"finish: {_verdict(self.end_all())}")
        finally:
            self.disconnect()
        if score := _score(self.notebook):
            print(f"finish: {score}")
        _point_to_the_next(self.notebook)


def close_panels():
    """Stop the panels of poolkit.widgets that this kernel shows, if it has ever loaded them."""
    widgets = sys.modules.get("poolkit.widgets")
    for panel in widgets.live_panels() if widgets else ():
        panel.close()


def _verdict(left):
    if left.empty:
        return "nothing left open"
    kinds = {}
    for name, state in zip(left["name"], left["state"], strict=True):
        kinds[name or "no name", state] = kinds.get((name or "no name", state), 0) + 1
    details = "; ".join(f"{name}: {n}, {state}" for (name, state), n in kinds.items())
    was, them = ("was", "it") if len(left) == 1 else ("were", "them")
    return f"{_plural(len(left), 'connection')} {was} still open ({details}); ended {them} now"


def _score(notebook):
    # Exercises stand above lessons, so they are not imported here: who has tried one, has them.
    exercises = sys.modules.get("classroom.exercises")
    return exercises.score(notebook) if exercises else ""


def _point_to_the_next(notebook):
    later = sorted(
        p for p in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb") if p.name[:2] > notebook
    )
    if not later:
        return
    display_or_print(
        f"Next: [{_title(later[0])}](../notebooks/{later[0].name})",
        f"Next: notebooks/{later[0].name}",
    )


def _title(path):
    # The heading in the notebook's first cell, or what the name of the file says.
    try:
        cell = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
        heading = "".join(cell["source"]).splitlines()[0]
    except (OSError, ValueError, LookupError, TypeError):
        heading = ""
    return heading[2:] if heading.startswith("# ") else path.stem.replace("_", " ")


def _or_say_why(measure, *args):
    try:
        return measure(*args)
    except LessonError as error:
        print(error)
        return None


def _plural(n, word):
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
