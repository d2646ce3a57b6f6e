"""Notebook 11, timing: where two lines cross, and a stop watch around the whole request."""

import math
import time
from statistics import mean, median

from .judge import connect_beside
from .task import Exercise

# -- 11.pays_from --------------------------------------------------------------------------------


def pays_from(pooled, unpooled):
    (once, each), (control_once, control_each) = pooled, unpooled
    if once + each < control_once + control_each:
        return 1
    if each >= control_each:
        return None  # behind already, and nothing to catch up with
    return math.floor((once - control_once) / (control_each - each)) + 1


def check_pays_from(judge, pays_from):
    for pooled, unpooled, wanted in [
        ((11, 1), (0, 6), 3),
        ((10, 1), (0, 6), 3),  # with 2 queries both take 12 ms
        ((8, 1), (2, 3), 4),
        ((3, 1), (0, 6), 1),
        ((100, 1), (0, 2), 101),
        ((5, 6), (0, 6), None),
        ((0, 6), (0, 6), None),
        ((5, 7), (0, 6), None),
    ]:
        found = judge.call(pays_from, pooled, unpooled).result
        judge.expect_equal(found, wanted, f"for pooled={pooled}, unpooled={unpooled}")


def pays_always(pooled, unpooled):
    return 1


def pays_at_the_crossing(pooled, unpooled):
    return (pooled[0] - unpooled[0]) / (unpooled[1] - pooled[1])


def pays_when_equal(pooled, unpooled):
    if unpooled[1] <= pooled[1]:
        return None
    return max(1, math.ceil((pooled[0] - unpooled[0]) / (unpooled[1] - pooled[1])))


def pays_at_zero(pooled, unpooled):
    if unpooled[1] <= pooled[1]:
        return None
    return math.floor((pooled[0] - unpooled[0]) / (unpooled[1] - pooled[1]) + 1e-9) + (
        pooled[0] - unpooled[0] >= unpooled[1] - pooled[1]
    )


def pays_without_the_controls_a(pooled, unpooled):
    return math.floor(pooled[0] / (unpooled[1] - pooled[1])) + 1


def pays_sooner_or_later(pooled, unpooled):
    return math.floor((pooled[0] - unpooled[0]) / (unpooled[1] - pooled[1])) + 1


def pays_the_other_way_round(pooled, unpooled):
    return pays_from(unpooled, pooled)


PAYS_FROM = Exercise(
    name="11.pays_from",
    minutes=5,
    task="Write `pays_from(pooled, unpooled)`: of two lines T = a + b·n, each given as `(a, b)`, "
    "it returns the smallest number of queries with which the pool is faster, or `None`.",
    accept=[
        "a whole number, 1 or more; equally fast is not faster",
        "`None` where the pool never gets ahead",
    ],
    hints=[
        "What does the pool pay more in advance, and how much of that does each query bring back?",
        "With `(a, b), (c, d) = pooled, unpooled` the lines cross at n = (a - c) / (d - b). What "
        "if d is not larger than b? And what if they cross before the first query?",
        "`math.floor(…) + 1` is the next whole number behind the crossing, also where the crossing "
        "is a whole number itself.",
    ],
    solution=pays_from,
    check=check_pays_from,
    wrong=[
        (pays_always, "for pooled=(11, 1), unpooled=(0, 6) it returned 1"),
        (pays_at_the_crossing, "it returned 2.2"),
        (pays_when_equal, "for pooled=(10, 1), unpooled=(0, 6) it returned 2"),
        (pays_at_zero, "for pooled=(3, 1), unpooled=(0, 6) it returned 0"),
        (pays_without_the_controls_a, "for pooled=(8, 1), unpooled=(2, 3) it returned 5"),
        (pays_sooner_or_later, "ZeroDivisionError"),
        (pays_the_other_way_round, "it returned 1, and 3"),
    ],
)


# -- 11.measure ----------------------------------------------------------------------------------


def measure(pool, job, rounds):
    times = []
    for _ in range(1 + rounds):
        before = time.perf_counter()
        with pool.connection() as conn:
            job(conn)
        times.append((time.perf_counter() - before) * 1000)
    return times[0], median(times[1:])


class Slow:
    """Lets every checkout and every return of a pool take 20 ms, and those that it is told to take
    longer; notes what each request has taken at least, in ms."""

    def __init__(self, pool, **longer):
        self.longer = {1: longer["first"], 3: longer["third"]}
        self.heard, self.began, self.took = pool.on_event, 0.0, []
        pool.on_event = self

    def __call__(self, pool, kind, *more):
        self.heard(pool, kind, *more)
        if kind == "checkout":
            self.began = time.perf_counter()
            time.sleep(self.longer.get(len(self.took) + 1, 0.02))
        elif kind == "return":
            time.sleep(0.02)
            self.took.append((time.perf_counter() - self.began) * 1000)


def check_measure(judge, measure):
    pool, rounds, jobs = judge.pool(max_size=1), 3, []
    slow = Slow(pool, first=0.2, third=0.5)

    def job(conn):
        jobs.append(conn)
        time.sleep(0.005)

    found = judge.call(measure, pool, job, rounds).result
    judge.expect_only(pool)
    judge.expect_returned("after the last round")
    made = len(judge.checkouts(pool))
    judge.expect(
        made == len(jobs) == 1 + rounds,
        f"asked for {rounds} rounds, it made {made} checkouts and did the job {len(jobs)} times: "
        f"1 + {rounds} of each were expected",
    )
    judge.expect(
        isinstance(found, tuple | list) and len(found) == 2,
        f"it returned {found!r}: two numbers were expected, the first request and the median",
    )
    first, typical = found
    least = median(slow.took[1:])
    judge.expect(
        first > 1 and typical > 1, f"it returned {first:.3g} and {typical:.3g}: are those seconds?"
    )
    judge.expect(
        first >= slow.took[0] and typical >= least,
        f"the first request took {slow.took[0]:.0f} ms and the median of the others was "
        f"{least:.0f} ms, and it returned {first:.0f} and {typical:.0f}: what is outside the stop "
        "watch, the checkout or the return?",
    )
    judge.expect(
        typical < least + 40,
        f"the median of the rounds was {least:.0f} ms, and it returned {typical:.0f}: is that the "
        "mean, or is the first request among them?",
    )

    def failing(conn):
        raise ValueError("no such flight")

    judge.call(measure, pool, failing, rounds, raises=ValueError)
    judge.expect_returned("when the job failed")


def measures_nothing(pool, job, rounds):
    return 1.0, 1.0


def measures_a_connection_of_its_own(pool, job, rounds):
    conn = connect_beside(pool)
    times = []
    for _ in range(1 + rounds):
        before = time.perf_counter()
        job(conn)
        times.append((time.perf_counter() - before) * 1000)
    conn.close()
    return times[0], median(times[1:])


def measures_on_one_checkout(pool, job, rounds):
    times = []
    with pool.connection() as conn:
        for _ in range(1 + rounds):
            before = time.perf_counter()
            job(conn)
            times.append((time.perf_counter() - before) * 1000)
    return times[0], median(times[1:])


def measures_the_job_only(pool, job, rounds):
    times = []
    for _ in range(1 + rounds):
        with pool.connection() as conn:
            before = time.perf_counter()
            job(conn)
            times.append((time.perf_counter() - before) * 1000)
    return times[0], median(times[1:])


def measures_without_the_return(pool, job, rounds):
    times = []
    for _ in range(1 + rounds):
        before = time.perf_counter()
        with pool.connection() as conn:
            job(conn)
            times.append((time.perf_counter() - before) * 1000)
    return times[0], median(times[1:])


def measures_no_first(pool, job, rounds):
    return measure(pool, job, rounds - 1)


def times_of(pool, job, rounds):
    times = []
    for _ in range(1 + rounds):
        before = time.perf_counter()
        with pool.connection() as conn:
            job(conn)
        times.append((time.perf_counter() - before) * 1000)
    return times


def measures_the_median_of_all(pool, job, rounds):
    times = times_of(pool, job, rounds)
    return times[0], median(times)


def measures_the_mean(pool, job, rounds):
    times = times_of(pool, job, rounds)
    return times[0], mean(times[1:])


def measures_the_median_alone(pool, job, rounds):
    return measure(pool, job, rounds)[1]


def measures_seconds(pool, job, rounds):
    first, typical = measure(pool, job, rounds)
    return first / 1000, typical / 1000


def measures_until_it_fails(pool, job, rounds):
    times = []
    for _ in range(1 + rounds):
        before = time.perf_counter()
        conn = pool.getconn()
        job(conn)
        pool.putconn(conn)
        times.append((time.perf_counter() - before) * 1000)
    return times[0], median(times[1:])


MEASURE = Exercise(
    name="11.measure",
    minutes=8,
    task="Write `measure(pool, job, rounds)` for poolkit's pool: it makes one request and then "
    "`rounds` more, and returns what the first took and the median of the others, in milliseconds.",
    accept=[
        "1 + `rounds` requests, each with its own checkout and return, one after the other",
        "checkout, `job(conn)` and return are inside the stop watch",
        "an error of the job reaches the caller, and leaves nothing checked out",
    ],
    hints=[
        "`time.perf_counter()` before the `with` block, and again after it: on which level of "
        "indentation do you look at the watch?",
        "Collect all times in a list, in ms. The first is `times[0]`; the others are `times[1:]`.",
        "`statistics.median` takes a list. The job's error needs no line of yours: "
        "`with pool.connection()` returns the connection and lets the error pass.",
    ],
    solution=measure,
    check=check_measure,
    wrong=[
        (measures_nothing, "was never used"),
        (measures_a_connection_of_its_own, "beside the pool"),
        (measures_on_one_checkout, "it made 1 checkouts and did the job 4 times"),
        (measures_the_job_only, "the checkout or the return?"),
        (measures_without_the_return, "the checkout or the return?"),
        (measures_no_first, "it made 3 checkouts"),
        (measures_the_median_of_all, "is the first request among them?"),
        (measures_the_mean, "is that the mean"),
        (measures_the_median_alone, "two numbers were expected"),
        (measures_seconds, "are those seconds?"),
        (measures_until_it_fails, "not returned when the job failed"),
    ],
)
