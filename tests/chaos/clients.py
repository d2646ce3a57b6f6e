"""The clients, each of which watches what it gets from the pool.

A client may meet these errors, and no others:

    Mistake, DivisionByZero         its own, which leave a block as they are
    PoolTimeout                     at a checkout with less than PATIENCE seconds
    PoolDeadlock, TooManyRequests   at any checkout
    PoolClosed                      when the pool is being closed
    PoolError, InterfaceError       where the operation says so, and there it must come
    any psycopg2.Error              in a block, or at its commit, and only if that connection's
                                    backend was terminated, or the server restarted
"""

import threading
from collections import Counter
from contextlib import contextmanager
from random import Random
from time import monotonic

import psycopg2
from psycopg2.errors import DivisionByZero
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from poolkit import PoolClosed, PoolDeadlock, PoolError, PoolTimeout, TooManyRequests

from .judge import COMMITTED, UNDONE, UNKNOWN
from .operations import ATTRIBUTES, OPERATIONS, Mistake

PATIENCE = 20.0  # seconds: whoever has waited for so long waits for what will never come

SESSION = """
    SELECT pg_backend_pid(), pg_current_xact_id_if_assigned() IS NULL,
           current_setting('transaction_isolation'), current_setting('transaction_read_only'),
           current_setting('chaos.mark', true)
"""


class Loan:
    """One checkout, and what its client wrote on it."""

    def __init__(self, client, conn, asked):
        self.client, self.conn = client, conn
        self.asked = asked  # when, on the clock of time.monotonic()
        self.returned = False
        self._written = []  # in a transaction

    def run(self, sql, *values):
        with self.conn.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchone() if cursor.description else None

    def write(self):
        """Write a row in a transaction, and read it again."""
        n = self.client.judge.new_id()
        self._written.append(n)
        self.promise(UNDONE)
        self._insert(n)

    def write_at_once(self):
        """Write a row outside of any transaction."""
        n = self.client.judge.new_id()
        self.client.ledger[n] = UNKNOWN
        self._insert(n)
        self.client.ledger[n] = COMMITTED

    def _insert(self, n):
        self.run("INSERT INTO written VALUES (%s)", n)
        if self.run("SELECT count(*) FROM written WHERE id = %s", n) != (1,):
            self.client.judge.violated(f"row {n} is not there for the one who wrote it")

    def begin(self):
        """Begin a transaction that psycopg2 does not know of."""
        self.conn.autocommit = True
        self.run("BEGIN")

    @contextmanager
    def committing(self):
        """Around what commits the transaction."""
        self.promise(UNKNOWN)
        yield
        self.promise(COMMITTED)

    def promise(self, what):
        for n in self._written:
            self.client.ledger[n] = what


class Client(threading.Thread):
    def __init__(self, number, pool, judge, seed, reset):
        super().__init__(name=f"client-{number}", daemon=True)
        self.pool, self.judge, self.reset = pool, judge, reset
        self.random = Random(f"{seed}/{number}")
        self.did, self.met = Counter(), Counter()
        self.checkouts, self.longest_wait = 0, 0.0
        self.ledger = {}  # id of a row -> what the pool has promised about it

    def run(self):
        while not self.judge.over.is_set():
            self.judge.gate.wait(1.0)
            (operation,) = self.random.choices([*OPERATIONS], OPERATIONS.values())
            self.did[operation.__name__] += 1
            self.loans, self.timeout = [], PATIENCE
            try:
                operation(self)
            except BaseException as error:
                self.meets(error)
                if not self.expected(error):
                    self.judge.violated(f"{operation.__name__} met {error!r}", error)
            # A pool that refuses at once would be asked a million times a second.
            pause = self.judge.lull if self.loans else 0.01
            self.judge.over.wait(self.random.uniform(0.0, pause))

    def meets(self, error):
        self.met[type(error).__name__] += 1

    def expected(self, error):
        if type(error) is PoolTimeout:
            return self.timeout < PATIENCE
        if type(error) is PoolClosed:
            return self.judge.closing
        if type(error) in (Mistake, DivisionByZero, PoolDeadlock, TooManyRequests):
            return True
        lost = isinstance(error, psycopg2.Error)
        return lost and any(self.judge.excused(loan.conn) for loan in self.loans)

    @contextmanager
    def raises(self, kind):
        """Around what must raise `kind`, unless something expected comes first."""
        try:
            yield
        except kind as error:
            if type(error) is not kind:  # a PoolTimeout is a PoolError, too
                raise
            self.meets(error)
        else:
            self.judge.violated(f"there was no {kind.__name__} where one must be")

    # -- checking out and returning --------------------------------------------------------------

    @contextmanager
    def block(self, timeout=PATIENCE):
        """`with pool.connection()`: what was written is committed if it ends well."""
        loan = own = None
        start, self.timeout = monotonic(), timeout
        try:
            with self.pool.connection(timeout) as conn:
                loan = self.takes(conn, start)
                try:
                    self.examine(loan)
                    yield loan
                    if not conn.closed:
                        loan.promise(UNKNOWN)
                except BaseException as error:
                    own = error
                    raise
                finally:
                    self.gives(loan)
        except BaseException as error:
            if loan is None:
                self.waited(start)
            elif own not in (None, error):
                self.judge.violated(f"the block's own error was replaced: {own!r}", error)
            elif type(error) is PoolError:
                loan.promise(UNDONE)
            raise
        loan.promise(COMMITTED)

    @contextmanager
    def bare(self, timeout=PATIENCE, close=False):
        """`getconn` and `putconn`: what was written is undone."""
        loan = self.checks_out(timeout)
        try:
            self.examine(loan)
            yield loan
        finally:
            self.returns(loan, close)

    def checks_out(self, timeout=PATIENCE):
        start, self.timeout = monotonic(), timeout
        try:
            conn = self.pool.getconn(timeout)
        except PoolError:
            self.waited(start)
            raise
        return self.takes(conn, start)

    def hardly_any_time(self):
        return self.random.choice([0, 0.001, self.random.uniform(0.0, 0.02)])

    def waited(self, start):
        self.longest_wait = max(self.longest_wait, monotonic() - start)

    def takes(self, conn, start):
        self.waited(start)
        self.checkouts += 1
        loan = Loan(self, conn, start)
        self.loans.append(loan)
        self.judge.took(loan)
        return loan

    def gives(self, loan):
        """To be called before the return: from then on anybody may have it."""
        if not loan.returned:
            loan.returned = True
            self.judge.gives(loan)

    def returns(self, loan, close=False):
        self.gives(loan)
        try:
            self.pool.putconn(loan.conn, close=close)
        except psycopg2.Error as error:
            self.judge.violated(f"putconn raised {error!r}", error)

    def examine(self, loan):
        """Is it as good as new?"""
        conn = loan.conn
        found = {name: getattr(conn, name) for name in ("closed", *ATTRIBUTES)}
        if any(found.values()):  # as opened, each is 0, False or None
            self.judge.violated(f"lent with {found}")
        if conn.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            self.judge.violated(f"lent with transaction status {conn.get_transaction_status()}")
        if self.random.random() < 0.5:  # the client could not change its settings in a transaction
            return
        pid, *session, mark = loan.run(SESSION)
        if pid != conn.pid or session != [True, "read committed", "off"]:
            self.judge.violated(f"backend {conn.pid} was lent in this session: {pid}, {session}")
        if mark and self.reset == "discard":
            self.judge.violated(f"somebody's SET has survived: {mark!r}")
        conn.rollback()
