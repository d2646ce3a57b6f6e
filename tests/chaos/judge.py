"""What must hold, and what is known of everybody's doings to tell whether it does.

Nothing here asks the pool about its private matters: the judge hears from the clients what they
got, from psycopg2 what is open, and from the server what it sees.
"""

import gc
import threading
import traceback
from collections import Counter
from itertools import count
from random import uniform
from time import monotonic, sleep
from weakref import WeakSet

import psutil
from psycopg2.extensions import connection

APPLICATION = "chaos"  # the application_name of the pool's backends
BACKENDS = f"""
    SELECT pid FROM pg_stat_activity
    WHERE application_name = '{APPLICATION}' AND backend_type = 'client backend'
"""

# What the pool promised about a row that a client wrote.
UNDONE = "undone"  # not committed, and never will be
UNKNOWN = "unknown"  # the connection was lost while it was committed
COMMITTED = "committed"


UNSURE = -1  # which server it was: there was a restart while it connected


class Connection(connection):
    """One of psycopg2's, that still knows its backend after it was closed."""

    def __init__(self, dsn, **kwargs):
        super().__init__(dsn, **kwargs)
        self.pid = self.get_backend_pid()
        self.slow = 0.0

    def close(self):
        if not self.closed:
            sleep(uniform(self.slow / 2, self.slow))
        super().close()


class Judge:
    def __init__(self, max_size):
        self.over = threading.Event()  # the time is up, or something was violated
        self.violations = []  # lines; the first is the one to read
        self.traceback = ""
        self.sizes = [max_size]  # every max_size that was in force, in order
        self.terminated = {}  # pid -> when its end was ordered
        self.gone = {}  # pid -> when that was seen to have come
        self.doomed = set()  # pids between the two
        self.restarts = 0  # counted at its begin and its end: odd while the server restarts
        self.restarted = 0.0  # when
        self.closing = False  # whether clients may meet PoolClosed
        self.lull = 0.0  # for how many seconds at most clients pause now
        self.slow = 0.0  # … and how much longer it takes at most to connect or close
        self.gate = threading.Event()  # shut: clients wait before it
        self.gate.set()
        self.done = Counter()  # to the pool, by trouble.py
        self.events = Counter()  # what the pool told its on_event, by kind
        self.new_id = count(1).__next__
        self.opened = 0  # connections
        self.samples = self.peak_open = self.peak_shown = 0  # see `sample`
        self.restart_took = 0.0  # seconds
        self.at_the_end = None  # the pool's stats, when everybody had stopped
        self.arrived = 0  # rows, lost while they were committed, that are there
        self.files_before = 0  # open, when there was no pool
        self._began = monotonic()
        self._lent = {}  # pid -> the loan
        self._connections = WeakSet()
        self._lock = threading.Lock()

    def violated(self, line, error=None):
        """Take down what went wrong, and end the run. The traceback of `error` is kept of the first
        one: the others often follow from it."""
        with self._lock:
            if error is not None and not self.violations:
                self.traceback = "".join(traceback.format_exception(error))
            who, when = threading.current_thread().name, monotonic() - self._began
            self.violations.append(f"at {when:.2f} s by {who}: {line}")
        self.over.set()

    def heard(self, pool, kind, number, where):
        """The pool's on_event."""
        with self._lock:
            self.events[kind] += 1

    # -- connections -----------------------------------------------------------------------------

    def connect(self, dsn, **kwargs):
        """The pool's connection_factory."""
        sleep(uniform(self.slow / 2, self.slow))
        restarts, began = self.restarts, monotonic()
        conn = Connection(dsn, **kwargs)
        conn.slow, conn.began = self.slow, began
        conn.server = restarts if restarts == self.restarts else UNSURE
        conn.on_unix_socket = conn.info.host.startswith("/")
        with self._lock:
            self.opened += 1
            self._connections.add(conn)
        return conn

    def open(self):
        """Return the pids of the connections whose client side is open."""
        with self._lock:
            return {conn.pid for conn in self._connections if not conn.closed}

    def excused(self, conn):
        """Whether something was done to this connection's backend from outside of the pool."""
        restarted = conn.server % 2 or conn.server != self.restarts
        return restarted or self.terminated.get(conn.pid, 0.0) > conn.began

    def took(self, loan):
        conn = loan.conn
        other = self._lent.setdefault(conn.pid, loan)
        if other is not loan:
            self.violated(f"backend {conn.pid} was lent while {other.client.name} had it")
        # A backend says good-bye before it goes, and on a Unix socket that has arrived when it was
        # said. So a pool that is asked later than that can know.
        if conn.on_unix_socket and not conn.server % 2:
            for gone in (self.gone.get(conn.pid, 0.0), self.restarted):
                if conn.began < gone < (asked := loan.asked):
                    self.violated(f"lent backend {conn.pid}, {asked - gone:.6f} s after its end")

    def lent(self):
        """Return the loans of now."""
        return list(self._lent.values())

    def gives(self, loan):
        if self._lent.pop(loan.conn.pid, None) is not loan:
            self.violated(f"backend {loan.conn.pid} was lent to somebody else in the meantime")

    # -- how many --------------------------------------------------------------------------------

    def sample(self, pool, admin):
        """Look at the pool and at the server.

        A backend needs some ms to go after its connection was closed or its end was ordered, and
        the server shows it meanwhile. So only those count whose client side is still open *after*
        the server has answered: each was there before that moment and after it, hence all of them
        were open at that moment, at once. That accuses nobody wrongly, and needs no tolerance.
        """
        sizes, doomed = len(self.sizes) - 1, self.doomed.copy()
        stats = pool.stats()
        shown = backends(admin)
        if shown is None:
            return
        self.gone |= dict.fromkeys(doomed - shown, monotonic())
        self.doomed -= doomed - shown
        both = shown & self.open()
        allowed = max(self.sizes[sizes:])  # all that were in force while we looked
        if len(both) > allowed:
            self.violated(f"the server saw {len(both)} connections open at once, not {allowed}")
        if stats.in_use + stats.idle + stats.pending > allowed:
            self.violated(f"more than {allowed} slots: {stats}")
        # Whoever was handed a dead one is first in line again, however long that is by now.
        if stats.waiting > pool.max_waiting + allowed:
            self.violated(f"more than max_waiting={pool.max_waiting} wait: {stats}")
        if stats.idle and stats.waiting:
            self.violated(f"somebody waits although one is idle: {stats}")
        self.samples += 1
        self.peak_shown = max(self.peak_shown, len(shown))
        self.peak_open = max(self.peak_open, len(both))

    # -- the end ---------------------------------------------------------------------------------

    def account(self, pool, admin):
        """Everybody has stopped: compare what the pool says with what is there."""

        def quiet():
            return not any(pool.stats()._replace(max_size=0, idle=0))

        def agreed():
            pids = self.open()
            return quiet() and len(pids) == pool.stats().idle and pids == backends(admin)

        self.came_true(quiet, lambda: f"not everything came back: {pool.stats()}")
        self.came_true(
            lambda: len(self.open()) == pool.stats().idle,
            lambda: f"{len(self.open())} connections are open, the pool knows of {pool.stats()}",
        )
        pool.check()  # some of the idle ones were terminated, which nobody has noticed yet
        self.came_true(
            agreed,
            lambda: f"the server shows {backends(admin)}, the pool says {pool.stats()}",
        )
        self.at_the_end = pool.stats()

    def account_for_nothing(self, pool, admin):
        """The pool was closed, and everybody has stopped: nothing must be left of it."""
        self.nothing_left(pool)
        gc.collect()  # errors keep alive what they met
        self.came_true(
            lambda: backends(admin) == set(),
            lambda: f"the server still shows {backends(admin)} after close()",
        )
        self.came_true(lambda: not strangers(), lambda: f"threads were left: {strangers()}")
        self.came_true(
            lambda: open_files() <= self.files_before,
            lambda: f"{open_files()} files are open, {self.files_before} were before the pool",
        )
        heard = self.events
        if heard["checkout"] != heard["return"]:
            self.violated(f"on_event heard of other checkouts than returns: {dict(heard)}")
        if not self.opened == heard["opened"] == heard["closed"]:
            self.violated(f"on_event heard wrongly of {self.opened} connections: {dict(heard)}")

    def nothing_left(self, pool):
        if any(pool.stats()[1:]) or self.open():
            self.violated(f"after close(): {len(self.open())} connections open, {pool.stats()}")

    def audit(self, clients, admin):
        """Compare what clients were told about the rows they wrote with the rows."""
        ledger = {n: said for client in clients for n, said in client.ledger.items()}
        found = {n for (n,) in admin.ask("SELECT id FROM written")}
        lost = [n for n, said in ledger.items() if said == COMMITTED and n not in found]
        stray = [n for n in found if ledger.get(n, UNDONE) == UNDONE]
        if lost:
            self.violated(f"{len(lost)} rows were reported committed and are not there: {lost}")
        if stray:
            self.violated(f"{len(stray)} rows were not committed and are there: {stray}")
        self.arrived = sum(ledger[n] == UNKNOWN for n in found)

    def came_true(self, condition, otherwise, timeout=10.0):
        """Wait for a state; if it does not come, `otherwise()` is what was violated."""
        deadline = monotonic() + timeout
        while not condition():
            if monotonic() > deadline:
                self.violated(otherwise())
                return
            sleep(0.002)


def backends(admin):
    """Return the pids of the pool's backends that the server shows; None: it is not there."""
    rows = admin.ask(BACKENDS)
    return None if rows is None else {pid for (pid,) in rows}


def open_files():
    """Return how many files and sockets this process has open; 0 where that can't be counted."""
    process = psutil.Process()
    return process.num_fds() if hasattr(process, "num_fds") else 0


def strangers():
    """The threads that nobody but the pool can have started: everybody else has stopped."""
    known = threading.main_thread(), threading.current_thread()
    return [thread for thread in threading.enumerate() if thread not in known]
