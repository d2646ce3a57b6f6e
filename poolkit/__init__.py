"""poolkit: a connection pool to read, and what it takes to see one work.

    errors → drivers → pool, unpooled        a pool, and the control without one
    recorder → workload → plots → widgets    what happened, measured, drawn, played with

Read `pool.py` first. What it moves about is in `slots`, its `with` block in `lending`, how it
connects in `opening`, what it says in `messages`, what it refuses in `arguments`; all pools of a
process are in `registry`. The panel's experiment is in `live`, its picture in `svg`.
"""

from .errors import PoolClosed, PoolDeadlock, PoolError, PoolTimeout, TooManyRequests
from .pool import ConnectionPool, Holder, PoolStats
from .recorder import Checkout, Event, Recorder, Wait, checkouts, waits
from .unpooled import Unpooled
from .workload import Outcome, Request, Run, run, together

__all__ = [
    "Checkout",
    "ConnectionPool",
    "Event",
    "Holder",
    "Outcome",
    "PoolClosed",
    "PoolDeadlock",
    "PoolError",
    "PoolStats",
    "PoolTimeout",
    "Recorder",
    "Request",
    "Run",
    "TooManyRequests",
    "Unpooled",
    "Wait",
    "checkouts",
    "run",
    "together",
    "waits",
]
