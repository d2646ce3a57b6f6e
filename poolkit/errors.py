"""What can go wrong with a pool.

    PoolError                 everything below; `except PoolError` catches all of it
    ├── PoolClosed            the pool was closed before, or while, you asked
    ├── PoolTimeout           no connection within the time you gave (also a TimeoutError)
    │   └── PoolDeadlock      … and none could ever have come: who holds them waits here too
    └── TooManyRequests       the queue is as long as `max_waiting` allows

What the *server* says (a wrong password, a broken query) is not in this tree: the driver's own
errors reach you untouched. psycopg2's own pools raise `psycopg2.pool.PoolError`, another class.
"""


class PoolError(Exception):
    """Something is wrong with how the pool is used."""


class PoolClosed(PoolError):
    """The pool is closed: it lends nothing any more."""


class PoolTimeout(PoolError, TimeoutError):
    """No connection came within the time given. The message says who holds them all."""


class PoolDeadlock(PoolTimeout):
    """Every connection is held by a thread that itself waits here for another one."""


class TooManyRequests(PoolError):
    """So many requests wait already that this one was not let into the queue."""
