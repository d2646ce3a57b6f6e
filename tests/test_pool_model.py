"""The pool against a model of it: both are led through the same random steps, and have to agree
after each.

The model is the pool as it would be if everything happened in one instant and in one thread: two
places, a line, and no lock. The two are compared when every thread that a client or the pool has
started has ended, or is asleep where the model says that it waits.

The same command does the same steps; with POOLKIT_MODEL_RUNS=1000 it goes on from there.
"""

import os
import sys
import threading
from collections import deque
from contextlib import ExitStack, contextmanager
from itertools import product
from random import Random
from typing import NamedTuple

import pytest
from fake import Client, Clock, FakeDriver, until
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import poolkit.opening
from poolkit import PoolClosed, PoolDeadlock, PoolError, PoolTimeout, TooManyRequests

# Seconds, on a clock that goes on in hundreds: nothing is ever between 0.95 lifetimes old, when the
# pool may close it, and 1, when it must.
LIFETIME, MAX_IDLE, CHECK_IDLE = 1000, 500, 200
PATIENCE = 1e6  # seconds that a client waits: no run is as long, by this clock or by any other
TICK = 1 / 1024  # passes after each step: what was there before it is older than what comes of it


class Loan(NamedTuple):
    since: float
    thread: threading.Thread
    in_block: bool


class Request:
    """Somebody's wish for a connection. Its outcome is a connection, or the class of an error, or
    None as long as it waits."""

    def __init__(self, thread, patient, lending=None):
        self.thread, self.patient, self.lending = thread, patient, lending
        self.outcome = None


class Block(NamedTuple):
    """A `with` block that has begun."""

    lending: object
    conn: object
    loan: Loan


class Model:
    """What the pool promises, without threads: a request that has to wait is a line in a list."""

    def __init__(self, fake, clock, min_size, max_size, max_waiting):
        self.fake, self.clock = fake, clock
        self.min_size, self.max_size, self.max_waiting = min_size, max_size, max_waiting
        self.idle = []  # connections, the most recently used on the right
        self.lent = {}  # connection -> Loan
        self.waiting = deque()  # requests, first come first served
        self.closed = False
        self.opened, self.idle_since = {}, {}  # connection -> when
        self.drained = 0.0  # what was opened before that is not wanted any more
        # What takes its time; the first two have a slot, which is pending:
        self.returning = None  # a connection whose cleaning hangs
        self.opening = None  # when the connect began that hangs
        self.hanging = False  # is that what connects do?
        self.pausing = False  # after a connect that failed
        # The database:
        self.failing = {}  # what -> the error that it raises
        self.connects = self.pings = 0
        self.left_open = set()  # those whose close failed
        self.closed_by_clients = set()

    # -- checking out

    def ask(self, request):
        try:
            request.outcome = self.checkout(request)
        except (PoolError, KeyboardInterrupt) as error:
            request.outcome = type(error)
        self.grow()

    def checkout(self, request):
        if self.closed:
            raise PoolClosed
        while self.idle:
            conn = self.idle.pop()
            if self.lend(conn, request):
                return conn
        if not request.patient:
            raise PoolTimeout
        if self.max_waiting and len(self.waiting) >= self.max_waiting:
            raise TooManyRequests
        if self.hopeless(request):
            raise PoolDeadlock
        self.waiting.append(request)

    def lend(self, conn, request):
        """Lend a connection if it is worth it; else close it, and return False."""
        usable = False
        try:
            usable = self.usable(conn)
        finally:
            if usable:
                in_block = request.lending is not None
                self.lent[conn] = Loan(self.clock.now, request.thread, in_block)
            else:
                self.close_connection(conn)
        return usable

    def usable(self, conn):
        if self.expired(conn) or not self.alive(conn):
            return False
        return self.idle_for(conn) < CHECK_IDLE or self.ping(conn)

    def hopeless(self, request):
        asleep = {request.thread, *(other.thread for other in self.waiting)}
        waits_for_itself = [loan.in_block and loan.thread in asleep for loan in self.lent.values()]
        return len(self.lent) >= self.max_size and all(waits_for_itself)

    # -- growing

    def grow(self):
        """Connect, one at a time, for those who wait."""
        while self.waiting and self.size() < self.max_size and not self.closed:
            if self.opening is not None or self.pausing:
                return
            self.connects += 1
            if self.hanging:
                self.opening = self.clock.now
            else:
                self.arrive(self.clock.now)

    def arrive(self, began):
        try:
            self.settle(self.connect(began))
        except OSError:
            self.pausing = True

    def fill(self):
        while self.forget_the_stale() or not self.closed and self.size() < self.min_size:
            self.connects += 1
            self.settle(self.connect(self.clock.now))

    # -- returning

    def give_back(self, conn, close=False):
        del self.lent[conn]
        self.clean(conn, close)

    def leave(self, block, error):
        if self.lent.get(block.conn) is not block.loan:
            if error is None:
                raise PoolError
            return
        try:
            if error is None:
                self.call("commit")
        finally:
            self.give_back(block.conn)

    def clean(self, conn, close=False):
        self.idle_since[conn] = self.clock.now
        usable = False
        try:
            if not close:
                self.call("clean")
                usable = not conn.hopeless and conn not in self.closed_by_clients
        finally:
            self.settle(conn, usable)
            if self.idle and self.stale(self.idle[0]):
                self.close_connection(self.idle.pop(0))
            self.grow()

    def settle(self, conn, usable=True):
        """Lend a connection to the first in line, or keep it idle, or close it: not wanted."""
        outlived = self.expired(conn) or self.opened[conn] < self.drained
        full = self.size() >= self.max_size  # since it was resized
        if not usable or outlived or full or self.closed:
            self.close_connection(conn)
        elif self.waiting:
            self.hand_over(conn, self.waiting.popleft())
        else:
            self.idle.append(conn)

    def hand_over(self, conn, request):
        try:
            if self.lend(conn, request):
                request.outcome = conn
            else:
                self.waiting.appendleft(request)  # it is its turn still
        except KeyboardInterrupt:
            request.outcome = KeyboardInterrupt

    # -- running it

    def resize(self, min_size, max_size):
        self.min_size, self.max_size = min_size, max_size
        while self.idle and self.size() > max_size:
            self.close_connection(self.idle.pop(0))
        self.grow()
        self.fill()

    def drain(self):
        self.drained = self.clock.now
        while self.idle:
            self.close_connection(self.idle.pop())
        self.fill()

    def check(self):
        for conn in list(self.idle):
            if conn.dead or conn.mute or self.expired(conn):
                self.idle.remove(conn)
                self.close_connection(conn)
        self.fill()

    def close(self):
        self.closed = True
        while self.waiting:
            self.waiting.popleft().outcome = PoolClosed
        while self.idle:
            self.close_connection(self.idle.pop())

    # -- the database

    def call(self, what):
        if what in self.failing:
            raise self.failing[what]

    def connect(self, began):
        self.call("connect")
        wait_for(lambda: len(self.fake.connections) > len(self.opened), "the pool to connect")
        conn = self.fake.connections[len(self.opened)]
        self.opened[conn], self.idle_since[conn] = began, self.clock.now
        return conn

    def alive(self, conn):
        self.call("alive")
        return not conn.dead

    def ping(self, conn):
        self.pings += 1
        self.call("ping")
        return not (conn.dead or conn.mute)

    def close_connection(self, conn):
        try:
            self.call("close")
        except OSError:
            self.left_open.add(conn)

    # -- numbers

    def size(self):
        pending = (self.opening is not None) + (self.returning is not None)
        return len(self.idle) + len(self.lent) + pending

    def idle_for(self, conn):
        return self.clock.now - self.idle_since[conn]

    def expired(self, conn):
        return self.clock.now - self.opened[conn] > 0.97 * LIFETIME

    def stale(self, conn):
        surplus = self.idle_for(conn) >= MAX_IDLE and self.size() > self.min_size
        return surplus or self.expired(conn)

    def forget_the_stale(self):
        """Let the pool close stale connections sooner than it must, except at a return."""
        for conn in [conn for conn in self.idle if self.stale(conn)]:
            if ("close", conn.number) in self.fake.calls:
                self.idle.remove(conn)
                self.close_connection(conn)


class Seen(NamedTuple):
    """What can be seen from outside, and is compared."""

    stats: tuple
    closed: bool
    open: list  # numbers of the connections that are open, as the database sees it
    holders: list  # (number, thread, seconds)
    asleep: list  # names of the clients that wait: for a connection, or in a call that hangs
    growing: int  # threads of the pool's
    held_up: int  # calls that hang, and pauses
    connects: int  # that were ever tried


class Pauses:
    """Between failed connects: each lasts until it is told to end."""

    def __init__(self):
        self.now = 0
        self._over = threading.Semaphore(0)
        self._for_good = False

    def sleep(self, seconds):
        if not self._for_good:
            self.now += 1
            self._over.acquire()
            self.now -= 1

    def end(self, for_good=False):
        self._for_good = for_good
        self._over.release()


STEPS = []  # (method of Machine, its arguments …)
WHICH = range(6)  # of those that there are: see pick()
SOME = 1, 1, 3
MIN_SIZE, MORE = (2, 3, 1, 0), (1, 2, 0)  # max_size is that much more


def step(weight, *arguments):
    """Make a method of Machine a step. An argument stands for the values that it may have."""

    def add(method):
        # One draw has to decide on a step, and hypothesis draws evenly only from a few hundred.
        combinations = [(method.__name__, *values) for values in product(*arguments)]
        STEPS.extend(Random(0).choices(combinations, k=8 * weight))
        return method

    return add


class Machine(RuleBasedStateMachine):
    """Leads the pool and its model through the same steps."""

    def __init__(self):
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        self.clock = Clock(self.patches)
        self.pauses = Pauses()
        self.patches.setattr(poolkit.opening, "sleep", self.pauses.sleep)
        self.fake = FakeDriver()
        self.gates = {}  # what -> (gate, its block)
        self.before = threading.enumerate()
        self.requests = []  # of clients in threads of their own
        self.blocks = []
        self.returning = self.closing = None  # clients
        self.steps = 0
        self.exactly = False  # was the step a return, after which one stale connection is closed?

    @initialize(
        min_size=st.sampled_from(MIN_SIZE),
        more=st.sampled_from(MORE),
        max_waiting=st.sampled_from([0, 0, 2]),
    )
    def create(self, min_size, more, max_waiting):
        sizes = min_size, max(1, min_size + more)
        self.pool = self.fake.pool(
            min_size=sizes[0],
            max_size=sizes[1],
            max_waiting=max_waiting,
            max_lifetime=LIFETIME,
            max_idle=MAX_IDLE,
            check_idle=CHECK_IDLE,
        )
        self.model = Model(self.fake, self.clock, *sizes, max_waiting)
        self.model.fill()
        self.limit = self.model.max_size

    # -- checking out

    @step(3, SOME, (True, False), [*[None] * 6, "alive", "ping"])
    def check_out(self, n, in_block, trouble=None):
        for _ in self.several(n):
            self.check_one_out(in_block, trouble)

    def check_one_out(self, in_block, trouble=None):
        lending = self.pool.connection(0) if in_block else None
        request = Request(threading.current_thread(), patient=False, lending=lending)
        pings = self.fake.count("ping") - self.model.pings
        with self.failing_once(trouble, KeyboardInterrupt):
            got = outcome(lending.__enter__) if lending else outcome(self.pool.getconn, 0)
            self.model.ask(request)
        assert got == request.outcome
        assert self.fake.count("ping") - self.model.pings == pings
        self.remember_block(request)

    @step(6, SOME, (True, False))
    def ask_and_wait(self, n, in_block):
        for _ in self.several(n):
            lending = self.pool.connection(PATIENCE) if in_block else None
            client = Client(lending.__enter__) if lending else Client(self.pool.getconn, PATIENCE)
            self.requests.append(Request(client, patient=True, lending=lending))
            self.model.ask(self.requests[-1])

    @step(3, (True, False), [PoolTimeout, KeyboardInterrupt])
    def ask_in_vain(self, take_all_first, how):
        while take_all_first and self.model.idle:
            self.check_one_out(in_block=True)
            self.after_each_step()
        if not self.nothing_will_come():
            return
        request = Request(threading.current_thread(), patient=True)
        if how is KeyboardInterrupt:
            self.pool.on_event = interrupt_who_waits
        got = outcome(self.pool.getconn, 0.001 if how is PoolTimeout else PATIENCE)
        self.pool.on_event = None
        self.model.ask(request)
        if request.outcome is None:
            self.model.waiting.remove(request)
            request.outcome = how
        assert got == request.outcome

    def nothing_will_come(self):
        model = self.model
        growing = model.opening is not None or model.pausing
        return not model.idle and (model.closed or growing or model.size() >= model.max_size)

    def remember_block(self, request):
        if request.lending and request.outcome in self.model.lent:
            loan = self.model.lent[request.outcome]
            self.blocks.append(Block(request.lending, request.outcome, loan))

    # -- returning

    @step(
        10,
        [*["in order"] * 5, "dead", "hopeless", "closed", "close", "interrupted"],
        [0, 0, 0, 5, 10],
        [1, 1, 2, 6],
        WHICH,
    )
    def give_back(self, how, hundreds, n, i):
        if not self.model.lent:
            return self.ask_and_wait(n, in_block=False)
        if self.model.returning:
            return
        self.clock.now += 100 * hundreds
        for _ in self.several(min(n, len(self.model.lent))):
            conn = pick(self.model.lent, i)
            if how in ("dead", "hopeless"):
                setattr(conn, how, True)
            if how == "closed":
                conn.closed = True
                self.model.closed_by_clients.add(conn)
            with self.failing_once("clean" if how == "interrupted" else None, KeyboardInterrupt):
                self.give_one_back(conn, how == "close")

    def give_one_back(self, conn, close=False):
        got = outcome(self.pool.putconn, conn, close)
        assert got == outcome(self.model.give_back, conn, close)
        self.exactly = True

    @step(1, WHICH)
    def give_back_what_is_not_lent(self, i):
        ours = [conn for conn in self.fake.connections if conn not in self.model.lent]
        conn = pick([*ours, object()], i)
        with pytest.raises(PoolError, match="already" if conn in ours else "not one of this pool"):
            self.pool.putconn(conn)

    @step(
        4,
        ["to its end", "raising", "not committed"],
        ["no", "no", "already", "and lent again"],
        WHICH,
    )
    def leave_block(self, how, returned, i):
        if not self.blocks:
            return self.check_one_out(in_block=True)
        if self.model.returning:
            return
        block = pick(self.blocks, i)
        if returned != "no" and block.conn in self.model.lent:
            self.give_one_back(block.conn)
            self.after_each_step()
            if returned != "already":
                self.check_one_out(in_block=False)
                self.after_each_step()
        self.blocks.remove(block)
        error = ValueError() if how == "raising" else None
        with self.failing_once("commit" if how == "not committed" else None, OSError):
            got = outcome(block.lending.__exit__, error and ValueError, error, None)
            assert got == outcome(self.model.leave, block, error)
        self.exactly = True

    # -- what takes its time

    @step(3, (True, False), WHICH)
    def hang(self, connecting, i):
        """Let connects hang from now on, or one return."""
        if connecting and not self.model.hanging:
            self.hold_up("connect")
        elif self.model.lent and not self.model.returning:
            self.begin_a_return(pick(self.model.lent, i))

    @step(4, WHICH)
    def go_on(self, i):
        """Let one of those end that take their time."""
        if ends := self.ends():
            pick(ends, i)()

    def ends(self):
        model = self.model
        return [
            end
            for going_on, end in [
                (model.returning, self.end_the_return),
                (model.hanging, self.end_the_hanging),
                (model.pausing, self.end_the_pause),
            ]
            if going_on
        ]

    def begin_a_return(self, conn):
        self.hold_up("clean")
        self.returning = Client(self.pool.putconn, conn)
        del self.model.lent[conn]
        self.model.returning = conn

    def end_the_return(self):
        conn, self.model.returning = self.model.returning, None
        self.let_go("clean")
        assert outcome(self.returning.result) == outcome(self.model.clean, conn)
        self.exactly = True

    def end_the_hanging(self):
        self.let_go("connect")
        began, self.model.opening = self.model.opening, None
        if began is not None:
            self.model.arrive(began)
        self.model.grow()

    def end_the_pause(self):
        self.model.pausing = False
        self.pauses.end()
        self.model.grow()

    def hold_up(self, what):
        block = ExitStack()
        self.gates[what] = block.enter_context(self.fake.block(what)), block
        self.model.hanging = "connect" in self.gates

    def let_go(self, what):
        _, block = self.gates.pop(what)
        self.model.hanging = "connect" in self.gates
        block.close()

    # -- what goes wrong

    @step(2, [*["connect"] * 4, "alive", "ping", "clean", "commit", "close"])
    def break_down(self, what):
        self.fail(what, KeyboardInterrupt if what in ("alive", "ping", "clean") else OSError)

    @step(3, WHICH)
    def repair(self, i):
        if self.model.failing:
            self.mend(pick(self.model.failing, i))

    @step(2, [5, 1, 2, 10], [None, None, "dead", "mute"], WHICH)
    def pass_time(self, hundreds, lost, i):
        if self.model.returning:
            return  # since when is it idle? that does not matter
        self.clock.now += 100 * hundreds
        if lost and self.model.idle:
            setattr(pick(self.model.idle, i), lost, True)

    @contextmanager
    def failing_once(self, what, error):
        if what is None or what in self.model.failing:
            yield
            return
        self.fail(what, error)
        yield
        self.mend(what)

    def fail(self, what, error):
        self.fake.fail(what, error(what))
        self.model.failing[what] = error(what)

    def mend(self, what):
        self.fake.mend(what)
        del self.model.failing[what]

    # -- running it

    @step(3, MIN_SIZE, MORE)
    def resize(self, min_size, more):
        max_size = max(1, min_size + more)
        if self.model.hanging or self.model.waiting:
            min_size = 0  # or this thread would connect, too, and who knows which one is first
        got = outcome(self.pool.resize, min_size, max_size)
        assert got == outcome(self.model.resize, min_size, max_size)

    @step(1)
    def drain(self):
        if not self.may_fill():
            return
        assert outcome(self.pool.drain) == outcome(self.model.drain)

    @step(2, [0, 5, 10], [None, "dead", "mute"], WHICH)
    def check(self, hundreds, lost, i):
        if not self.may_fill() or self.model.failing.keys() & {"alive", "ping"}:
            return
        self.pass_time(hundreds, lost, i)
        assert outcome(self.pool.check) == outcome(self.model.check)
        self.model.forget_the_stale()
        assert not any(self.model.stale(conn) for conn in self.model.idle)

    def may_fill(self):
        # In this thread, without another one that connects at the same time.
        model = self.model
        return not model.hanging and not (model.waiting and model.size() < model.min_size)

    @step(1, (True, False))
    def close_late(self, wait):
        if self.steps > 30:  # not much happens in a closed pool
            self.close(wait)

    def close(self, wait):
        self.model.close()
        if wait and self.closing is None:
            self.closing = Client(self.pool.close, PATIENCE)
        else:
            left = self.pool.close(timeout=0)
            assert {holder.conn for holder in left} == set(self.model.lent)

    # One rule for all of them: of many rules hypothesis would leave out half in each run, and it
    # would choose among the others without weights.
    @rule(step=st.sampled_from(STEPS))
    def do(self, step):
        name, *arguments = step
        getattr(self, name)(*arguments)

    # -- what holds after every step

    @invariant()
    def after_each_step(self):
        self.they_agree()
        self.there_are_never_more_than_max_size()
        self.nobody_waits_beside_an_idle_connection()
        assert self.fake.under_lock == []
        self.clock.now += TICK
        self.steps += 1

    def several(self, n):
        for k in range(n):
            if k:
                self.after_each_step()
            yield

    def they_agree(self):
        wait_for(self.agreed, self.difference)
        for request in [request for request in self.requests if request.outcome is not None]:
            self.requests.remove(request)
            assert outcome(request.thread.result) == request.outcome
            self.remember_block(request)
        self.exactly = False

    def agreed(self):
        if not self.exactly:
            self.model.forget_the_stale()
        return self.seen() == self.expected()

    def difference(self):
        both = zip(Seen._fields, self.seen(), self.expected(), strict=True)
        differ = [f"{name} {got}, expected {want}" for name, got, want in both if got != want]
        return "; ".join(differ)

    def seen(self):
        threads = [thread for thread in threading.enumerate() if thread not in self.before]
        clients = [thread.name for thread in threads if isinstance(thread, Client)]
        gates = [gate for gate, _ in self.gates.values()]
        return Seen(
            stats=self.pool.stats(),
            closed=self.pool.closed,
            open=sorted(conn.number for conn in self.fake.open),
            holders=sorted((h.conn.number, h.thread, h.age) for h in self.pool.holders()),
            asleep=sorted(clients),
            growing=len(threads) - len(clients),
            held_up=sum(gate.waiting for gate in gates) + self.pauses.now,
            connects=self.fake.count("connect"),
        )

    def expected(self):
        model, now = self.model, self.clock.now
        kept = {*model.idle, *model.lent, *model.left_open, model.returning} - {None}
        pending = (model.opening is not None) + (model.returning is not None)
        asleep = [request.thread for request in self.requests if request.outcome is None]
        if model.returning:
            asleep.append(self.returning)
        if self.closing and (model.lent or pending):
            asleep.append(self.closing)
        return Seen(
            stats=(model.max_size, len(model.lent), len(model.idle), pending, len(model.waiting)),
            closed=model.closed,
            open=sorted(conn.number for conn in kept - model.closed_by_clients),
            holders=sorted(
                (conn.number, loan.thread.name, now - loan.since)
                for conn, loan in model.lent.items()
            ),
            asleep=sorted(thread.name for thread in asleep),
            growing=(model.opening is not None) + model.pausing,
            held_up=pending + model.pausing,
            connects=model.connects,
        )

    def there_are_never_more_than_max_size(self):
        # After a resize, what was above the new limit may be there until it is returned or opened.
        there = len([conn for conn in self.fake.open if conn not in self.model.left_open])
        there += self.model.opening is not None
        assert there <= max(self.limit, self.pool.max_size)
        self.limit = max(self.pool.max_size, min(self.limit, there))

    def nobody_waits_beside_an_idle_connection(self):
        stats = self.pool.stats()
        assert not (stats.idle and stats.waiting)

    # -- the end

    def teardown(self):
        try:
            if sys.exc_info()[0] is None:
                self.end()
        finally:
            self.clear_up()

    def end(self):
        """Once all goes well again and everything is returned, nothing is left."""
        for what in list(self.model.failing):
            self.mend(what)
        while ends := self.ends():
            ends[0]()
            self.after_each_step()
        while self.model.lent:
            if len(self.model.lent) == 1 and not self.model.waiting:
                self.close(wait=True)
                self.after_each_step()
            self.give_one_back(pick(self.model.lent, 0))
            self.after_each_step()
        assert self.requests == []
        self.close(wait=False)
        self.after_each_step()
        assert all(conn.closed or conn in self.model.left_open for conn in self.fake.connections)
        assert self.pool.stats() == (self.pool.max_size, 0, 0, 0, 0)

    def clear_up(self):
        """Leave no thread behind, even where the pool went wrong."""
        for what in ("connect", "clean", "close", "alive", "ping"):
            self.fake.mend(what)
        for what in list(self.gates):
            self.let_go(what)
        self.pauses.end(for_good=True)
        if hasattr(self, "pool"):
            self.pool.close(timeout=0)
            for holder in self.pool.holders():
                self.pool.putconn(holder.conn)
        self.patches.undo()


def outcome(call, *args):
    """What a call comes to: what it returns, or the class of what it raises."""
    try:
        return call(*args)
    except (PoolError, OSError, KeyboardInterrupt) as error:
        return type(error)


def pick(options, i):
    return list(options)[i % len(options)]


def interrupt_who_waits(name, kind, number, where):
    if kind == "waiting":
        raise KeyboardInterrupt


_waits = [2.0]  # seconds, until something went wrong for the first time: then much less


def wait_for(condition, what):
    try:
        until(condition, _waits[-1])
    except AssertionError:
        _waits.append(0.1)
        raise AssertionError(what() if callable(what) else what) from None


# -- the test ----------------------------------------------------------------------------------

RUNS = int(os.environ.get("POOLKIT_MODEL_RUNS", "25"))


@pytest.mark.slow
def test_the_pool_does_what_its_model_does_whatever_happens():
    few = settings(
        max_examples=9,  # of more, hypothesis would make most by changing one step of another
        stateful_step_count=30,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    for n in range(RUNS):
        run_state_machine_as_test(seed(n)(Machine), settings=few)
