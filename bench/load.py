"""More clients than connections: how much work is done, who waits how long, and who is left out.

Each client checks out, asks its query, reads the answer, commits and returns; again and again. The
commit is the client's own, so no pool has anything left to clean.
"""

from time import monotonic

import psycopg
import psycopg2

from poolkit import Request, Run, together

from . import peers
from .rounds import Figure, in_turns

CLIENTS, CONNECTIONS = 16, 4
QUERIES = {"select 1": "select 1", "5 ms query": "select pg_sleep(0.005)"}
IDEAL_MS = 15.0  # with the 5 ms query: three others of the sixteen come first on each connection
NO_POOL = "No pool"

# psycopg2's pool cannot wait, so its clients have to ask again.
WAITING = (
    peers.Poolkit,
    peers.Psycopg2Retry,
    peers.PsycopgPool,
    peers.SQLAlchemyQueuePool,
    peers.DBUtilsPooledDB,
)
THROUGHPUT, P50, P99, WORST, JAIN = "throughput", "p50 wait", "p99 wait", "worst wait", "Jain"
MEASURES = [  # name, unit, is more better, what of a Run
    (THROUGHPUT, "1/s", True, lambda run: run.throughput),
    (P50, "ms", False, lambda run: run.wait_ms(0.5)),
    (P99, "ms", False, lambda run: run.wait_ms(0.99)),
    (WORST, "ms", False, lambda run: run.wait_ms(1.0)),
    (JAIN, "", True, lambda run: run.fairness),
]


def measure(dsn, plan) -> list[Figure]:
    """Return five figures for each query, and what the two drivers do without any pool."""
    figures = []
    for section, sql in QUERIES.items():
        contests = {
            peer.name: lambda peer=peer, sql=sql: _one_round(peer, dsn, sql, plan.load_time)
            for peer in (*WAITING, peers.Unpooled)
        }
        runs = in_turns(contests, plan.load_rounds)
        figures += [
            Figure(section, name, unit, more, {pool: [*map(of, runs[pool])] for pool in runs})
            for name, unit, more, of in MEASURES
        ]
    return [*figures, _without_pool(dsn, plan)]


def _one_round(peer, dsn, sql, seconds):
    with peer.open(dsn, CONNECTIONS, CONNECTIONS) as pool:
        return drive(pool, sql, seconds)


def drive(pool, sql, seconds, clients=CLIENTS) -> Run:
    """Let so many clients work for so long. A client that waits at the end is waited for."""

    def client(_):
        done, end = [], monotonic() + seconds
        while (asked := monotonic()) < end:
            conn = pool.getconn()
            got = monotonic()
            request(conn, sql)
            pool.putconn(conn)
            done.append((asked, got, monotonic()))
        return done

    outcomes = _all_well(together(client, clients, timeout=seconds + 60))
    requests = [
        Request(outcome.client, *times, None) for outcome in outcomes for times in outcome.result
    ]
    return Run(pool.name, clients, requests, [], _elapsed(outcomes))


def request(conn, sql):
    cursor = conn.cursor()
    cursor.execute(sql)
    cursor.fetchone()
    cursor.close()
    conn.commit()


def _without_pool(dsn, plan):
    """Measure what each driver can do on so many connections, when each is one client's own."""

    def one_round(driver):
        conns = [driver.connect(dsn) for _ in range(CONNECTIONS)]

        def client(i):
            n, end = 0, monotonic() + plan.load_time
            while monotonic() < end:
                request(conns[i], QUERIES["select 1"])
                n += 1
            return n

        outcomes = _all_well(together(client, CONNECTIONS, timeout=plan.load_time + 60))
        for conn in conns:
            conn.close()
        return sum(outcome.result for outcome in outcomes) / _elapsed(outcomes)

    contests = {"psycopg2": lambda: one_round(psycopg2), "psycopg 3": lambda: one_round(psycopg)}
    return Figure(NO_POOL, THROUGHPUT, "1/s", True, in_turns(contests, plan.load_rounds))


def _all_well(outcomes):
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return outcomes


def _elapsed(outcomes):
    return max(outcome.end for outcome in outcomes) - min(outcome.start for outcome in outcomes)
