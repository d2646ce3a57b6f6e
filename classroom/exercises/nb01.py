"""Notebook 01, why a pool: measuring what a connection costs."""

import time
from statistics import median

import psycopg2

from .task import Exercise

# -- 01.connect_ms -------------------------------------------------------------------------------


def connect_ms(dsn, rounds):
    times = []
    for _ in range(rounds):
        before = time.perf_counter()
        conn = psycopg2.connect(dsn)
        times.append((time.perf_counter() - before) * 1000)
        conn.close()
    return median(times)


def check_connect_ms(judge, connect_ms):
    rounds = 7
    found = judge.call(connect_ms, judge.dsn, rounds)
    took = (found.end - found.start) * 1000
    opened = len(judge.own)
    judge.expect(
        isinstance(found.result, int | float),
        f"it returned {found.result!r}, and a number of milliseconds was expected",
    )
    judge.expect(opened, "no connection to `dsn` was opened: there was nothing to measure")
    judge.expect(
        opened == rounds, f"asked for {rounds} rounds, it opened {opened} connections, not {rounds}"
    )
    judge.expect(
        judge.until(0) == 0,
        f"{judge.until(0)} connections are still open: close each before you open the next",
    )
    judge.expect(found.result > 0, f"it returned {found.result!r}: no connect takes no time")
    # The median of the rounds fits into all of them more often than half their number. A sum does
    # not; and seconds are a thousand times too small to be any part of it.
    fits = (rounds // 2 + 1) * found.result <= took
    judge.expect(
        fits,
        f"all {rounds} rounds took {took:.1f} ms, and it returned {found.result:.1f}: is that the "
        "median of one, or the sum of all?",
    )
    judge.expect(
        found.result > took / rounds / 100,
        f"all {rounds} rounds took {took:.1f} ms, and it returned {found.result:.4f}: "
        "are those seconds?",
    )


def measures_nothing(dsn, rounds):
    return 5.0


def measures_once(dsn, rounds):
    return connect_ms(dsn, 1)


def measures_seconds(dsn, rounds):
    return connect_ms(dsn, rounds) / 1000


def measures_the_sum(dsn, rounds):
    return sum(connect_ms(dsn, 1) for _ in range(rounds))


def leaves_all_open(dsn, rounds):
    times = []
    for _ in range(rounds):
        before = time.perf_counter()
        kept.append(psycopg2.connect(dsn))
        times.append((time.perf_counter() - before) * 1000)
    return median(times)


kept = []  # a reference anywhere keeps a connection open


CONNECT_MS = Exercise(
    name="01.connect_ms",
    minutes=6,
    task="Write `connect_ms(dsn, rounds)`: it opens and closes `rounds` connections to `dsn`, one "
    "after the other, and returns the median of the times that opening took, in milliseconds.",
    accept=[
        "exactly `rounds` connections are opened, and none is left open",
        "the median, in milliseconds",
    ],
    hints=[
        "`time.perf_counter()` before and after `psycopg2.connect(dsn)`; it counts seconds.",
        "Collect the differences in a list, times 1000; `conn.close()` comes after the second look "
        "at the watch. `statistics.median` does the rest.",
    ],
    solution=connect_ms,
    check=check_connect_ms,
    wrong=[
        (measures_nothing, "nothing to measure"),
        (measures_once, "it opened 1 connections"),
        (measures_seconds, "are those seconds?"),
        (measures_the_sum, "the sum of all?"),
        (leaves_all_open, "still open"),
    ],
)
