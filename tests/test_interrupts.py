"""Ctrl-C at every instant of a checkout and of a return: none of them costs the pool anything.

Python looks for signals at certain instructions only: when a function begins, after a call, and at
the end of a turn of a loop. Here KeyboardInterrupt is raised at each of them in turn, in whatever
the pool's own modules do, and the pool is looked at afterwards.
"""

import dis
import inspect
import sys
from itertools import count
from pathlib import Path
from types import CodeType

import pytest
from fake import Client, Clock, FakeDriver, until

from poolkit import PoolTimeout

traced = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="from 3.13 on, Python traces only some instructions"
)
OURS = {
    sys.modules[f"poolkit.{name}"].__file__
    for name in ("pool", "lending", "slots", "opening", "messages")
}
LOOKS = {"RESUME", "CALL", "CALL_FUNCTION_EX", "CALL_KW", "JUMP_BACKWARD"}


class Interrupt:
    """Raise KeyboardInterrupt at the n-th instant in which Python would look for a signal."""

    def __init__(self, n):
        self.n, self.passed, self.where = n, 0, None
        self._before = {}  # frame -> the instruction that it executed last

    def __enter__(self):
        self._outer = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # from Python 3.12 on, one frame must ask beforehand
        sys.settrace(self._enter)
        return self

    def __exit__(self, *exc_info):
        sys.settrace(self._outer)
        self._before.clear()

    def _enter(self, frame, event, arg):
        if frame.f_code.co_filename not in OURS or frame.f_code.co_flags & inspect.CO_GENERATOR:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self._before[frame] = "RESUME"
        return self._step

    def _step(self, frame, event, arg):
        if event == "return":
            self._before.pop(frame, None)
            if frame.f_back in self._before:  # at the end of a Python function it does not look
                self._before[frame.f_back] = "RETURN"
        elif event == "opcode":
            if self._before.get(frame) in LOOKS:
                self.passed += 1
                if self.passed == self.n:
                    self.where = f"{frame.f_code.co_name}, line {frame.f_lineno}"
                    sys.settrace(self._outer)
                    raise KeyboardInterrupt
            self._before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        return self._step


def interrupt_everywhere(prepare, task):
    """Do `task(*prepare(fake))` again and again, each time with Ctrl-C one instant later, until it
    comes to its end. Yields (the pool, where it was interrupted) each time."""
    for n in count(1):
        fake = FakeDriver()
        pool, *rest = prepare(fake)
        interrupt = Interrupt(n)
        try:
            with interrupt:
                task(pool, *rest)
        except (KeyboardInterrupt, PoolTimeout):
            pass
        if interrupt.where is None:
            break
        assert not pool._lock.locked(), interrupt.where
        yield pool, interrupt.where
        assert fake.under_lock == []
    assert n > 5, "it was never interrupted"


def whole(pool, in_use=0):
    """Can the pool lend all that it may, but for those that are in use?"""
    stats = pool.stats()
    if stats.pending or stats.waiting or stats.in_use != in_use:
        return False
    taken = [pool.getconn() for _ in range(pool.max_size - in_use)]
    for conn in taken:
        pool.putconn(conn)
    pool.close(timeout=0)
    return len(pool._driver.open) == in_use


@traced
def test_ctrl_c_at_any_instant_of_a_checkout_costs_nothing():
    def prepare(fake):
        return (fake.pool(min_size=2, max_size=2),)

    for pool, where in interrupt_everywhere(prepare, lambda pool: pool.getconn()):
        assert whole(pool), where


@traced
def test_ctrl_c_at_any_instant_of_a_checkout_that_finds_a_dead_one_costs_nothing():
    def prepare(fake):
        pool = fake.pool(min_size=2, max_size=2)
        fake.connections[1].dead = True
        return (pool,)

    for pool, where in interrupt_everywhere(prepare, lambda pool: pool.getconn()):
        assert whole(pool), where


@traced
def test_ctrl_c_at_any_instant_of_a_checkout_that_comes_too_late_costs_nothing():
    def prepare(fake):
        pool = fake.pool(min_size=1)
        return pool, pool.getconn()

    for pool, where in interrupt_everywhere(prepare, lambda pool, _: pool.getconn(0.001)):
        assert whole(pool, in_use=1), where


@traced
@pytest.mark.parametrize("close", [False, True])
def test_ctrl_c_at_any_instant_of_a_return_costs_nothing(close):
    def prepare(fake):
        pool = fake.pool(min_size=2, max_size=2)
        return pool, pool.getconn()

    def task(pool, conn):
        pool.putconn(conn, close)

    began = False
    for pool, where in interrupt_everywhere(prepare, task):
        # Until the return has begun, the connection is its client's, who can return it still.
        began = began or not pool.stats().in_use
        assert whole(pool, in_use=0 if began else 1), where
    assert began


@traced
@pytest.mark.parametrize("error", [None, ValueError])
def test_ctrl_c_at_any_instant_of_a_block_costs_nothing_but_as_its_end_begins(error):
    def prepare(fake):
        return (fake.pool(min_size=2, max_size=2),)

    def task(pool):
        try:
            with pool.connection():
                if error:
                    raise error
        except ValueError:
            pass

    lost = []
    for pool, where in interrupt_everywhere(prepare, task):
        if not whole(pool):
            lost.append(where.split(",")[0])
    # A function that is interrupted before its first instruction has not been called, and nobody
    # calls it again: that is Python's, and the pool cannot help it.
    assert set(lost) == {"__exit__", "_give_back"} and len(lost) == 2


@traced
def test_ctrl_c_at_any_instant_of_a_return_leaves_nobody_waiting():
    clients = []

    def prepare(fake):
        pool = fake.pool(min_size=1)
        conn = pool.getconn()
        clients.append(Client(pool.getconn))
        until(lambda: pool.stats().waiting)
        return pool, conn

    for pool, _ in interrupt_everywhere(prepare, lambda pool, conn: pool.putconn(conn)):
        for holder in pool.holders():
            if holder.thread == "MainThread":  # the return had not begun
                pool.putconn(holder.conn)
        pool.putconn(clients[-1].result())
        until(lambda pool=pool: not pool.stats().pending)
        assert whole(pool)


@traced
@pytest.mark.parametrize("age", [0, 1001])  # seconds; all expire at 1000
@pytest.mark.parametrize("what", ["return", "check", "drain", "resize", "close"])
def test_ctrl_c_at_any_instant_in_which_idle_connections_are_closed_costs_nothing(
    monkeypatch, what, age
):
    clock = Clock(monkeypatch)
    task = {
        "return": lambda pool, conn: pool.putconn(conn),
        "check": lambda pool, conn: pool.check(),
        "drain": lambda pool, conn: pool.drain(),
        "resize": lambda pool, conn: pool.resize(0, 1),
        "close": lambda pool, conn: pool.close(timeout=0),
    }[what]

    def prepare(fake):
        pool = fake.pool(min_size=0, max_size=3, max_lifetime=1000, check_idle=1e6)
        conn, *others = [pool.getconn() for _ in range(3)]
        for other in others:
            pool.putconn(other)
        clock.now += age
        return pool, conn

    for pool, where in interrupt_everywhere(prepare, task):
        for holder in pool.holders():
            pool.putconn(holder.conn)
        if what == "close":
            pool.close(timeout=0)  # again
            assert pool.stats()[1:] == (0, 0, 0, 0), where
            assert pool._driver.open == [], where
        else:
            assert whole(pool), where


def test_no_jump_leaves_what_protects_it():
    # From 3.12 on the compiler can leave a conditional jump backwards out of the `try` or `with`
    # that it is in, and from 3.13 on Python raises Ctrl-C just there: past every `finally`.
    escaped = set()
    for path in sorted(OURS):
        todo = [compile(Path(path).read_text("utf-8"), path, "exec")]
        while todo:
            code = todo.pop()
            todo += [const for const in code.co_consts if isinstance(const, CodeType)]
            spans = [(e.start, e.end) for e in dis.Bytecode(code).exception_entries]

            def protected(at, spans=spans):
                return any(start <= at < end for start, end in spans)

            escaped |= {
                code.co_qualname
                for one in dis.get_instructions(code)
                if one.opname.startswith("JUMP_BACKWARD")
                and protected(one.argval)
                and not protected(one.offset)
                and not code.co_flags & inspect.CO_GENERATOR  # whoever runs it is protected
            }
    # Comprehensions, with nothing around them that could be left.
    assert escaped <= {"ConnectionPool.holders", "list_holders"}
