"""Many requests at once, when few connections are open and a new one takes long.

The scenario is HikariCP's "Welcome to the Jungle". The five open connections can serve all 35
requests before a single new one is there: whoever connects is late, and whoever connects while
others have to wait for that makes all of them late.
"""

import time

from poolkit import together

from . import peers
from .load import request
from .rounds import Figure, in_turns

SECTION = "Spike"
OPEN, MAX, REQUESTS = 5, 35, 35
QUERY = "select pg_sleep(0.002)"
TIME, CONNECTS = "until all are served", "connects"

PEERS = (
    peers.Poolkit,
    peers.Psycopg2Threaded,  # it has room for everybody, so nobody needs to retry
    peers.PsycopgPool,
    peers.SQLAlchemyQueuePool,
    peers.DBUtilsPooledDB,
)


def measure(dsn, plan) -> list[Figure]:
    """Return two figures: ms until all requests were served, and connects beyond the open five."""
    contests = {
        peer.name: lambda peer=peer: _one_round(peer, dsn, plan.connect_delay) for peer in PEERS
    }
    took = in_turns(contests, plan.spike_rounds)
    times = {pool: [ms for ms, _ in took[pool]] for pool in took}
    connects = {pool: [n for _, n in took[pool]] for pool in took}
    return [
        Figure(SECTION, TIME, "ms", False, times),
        Figure(SECTION, CONNECTS, "", False, connects),
    ]


def _one_round(peer, dsn, delay):
    spiking, connects = False, []

    def before_connect():
        if spiking:
            connects.append(1)
            time.sleep(delay)

    def client(_):
        conn = pool.getconn()
        request(conn, QUERY)
        pool.putconn(conn)

    with peer.open(dsn, OPEN, MAX, before_connect=before_connect) as pool:
        spiking = True
        outcomes = together(client, REQUESTS, timeout=60)
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
    start, end = min(o.start for o in outcomes), max(o.end for o in outcomes)
    return (end - start) * 1000, len(connects)
