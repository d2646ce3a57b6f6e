"""What is tried on each pool: every cell of the behaviour table is seen to happen here.

An experiment is one function: it gets a `Trial` (one kind of pool, and a connection of its own by
which to watch the server) and returns a Finding. It runs in a process made for it, see behaviour,
because it may be forked, interrupted, or never come to an end.
"""

import linecache
import os
import re
import select
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial

import psycopg2
import psycopg_pool
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from . import peers
from .trials import Finding, ask, backend, block, bounded, duration, lends, name

# What tells a pool to ask the server about each connection that it lends.
CHECKS = {
    peers.Poolkit: {"check_idle": 0.0},
    peers.PsycopgPool: {"check": psycopg_pool.ConnectionPool.check_connection},
    peers.SQLAlchemyQueuePool: {
        "pre_ping": True,
        "dialect": PGDialect_psycopg2(dbapi=psycopg2),  # the pool's own way to know what to send
    },
    peers.DBUtilsPooledDB: {"ping": "SELECT 1"},
}


EXPERIMENTS = {}  # by name, in the order of the rows


def row(title):
    """Make a row of the table of a function that takes a Trial and returns a Finding."""

    def register(experiment):
        experiment.title = title
        EXPERIMENTS[experiment.__name__] = experiment
        return experiment

    return register


@contextmanager
def held(pool, count):
    """Let another thread, the "front desk", have `count` connections until the end of the block."""
    checkout, give_back = pool.native  # an adapter's getconn would be the one who asked
    conns, enough, ready = [], threading.Event(), threading.Event()

    def hold():
        for _ in range(count):
            conns.append(checkout())
        ready.set()
        enough.wait()
        for conn in conns:
            give_back(conn)

    desk = threading.Thread(target=hold, name="front desk", daemon=True)
    desk.start()
    ready.wait()
    try:
        yield conns
    finally:
        enough.set()
        desk.join()


# -- connections that the server ends --------------------------------------------------------------


@row("8 requests after the server has ended 4 idle connections")
def stale(trial):
    failed, _ = _after_a_restart(trial)
    return Finding(f"{failed} of 8 fail", good=failed == 0)


@row("the same, with the pool's own check switched on")
def stale_and_checked(trial):
    if trial.peer not in CHECKS:
        return Finding("has no such switch")
    failed, slowest = _after_a_restart(trial, **CHECKS[trial.peer])
    said = f"{failed} of 8 fail, the slowest takes {duration(slowest)}"
    return Finding(said, good=failed == 0 and slowest < 1)


def _after_a_restart(trial, **options):
    with trial.opened(4, 4, timeout=30.0, **options) as pool:
        conns = [pool.getconn() for _ in range(4)]
        pids = [backend(conn) for conn in conns]
        for conn in conns:
            pool.putconn(conn)
        trial.server.terminate(*pids)
        failed, slowest = 0, 0.0
        for _ in range(8):
            start = time.monotonic()
            try:
                with block(pool) as conn:
                    ask(conn, "SELECT 1")
            except Exception:
                failed += 1
            slowest = max(slowest, time.monotonic() - start)
        return failed, slowest


@row("the connection is ended in a transaction, and the block raises its own error")
def ended_in_transaction(trial):
    class OwnError(Exception):
        pass

    with trial.opened(1, 1) as pool:
        try:
            with block(pool) as conn:
                trial.server.terminate(backend(conn))
                raise OwnError
        except Exception as error:
            raised = error
        whole = lends(pool)
    own = isinstance(raised, OwnError)
    told = "its own error comes out" if own else f"{name(raised)} hides it"
    return Finding(f"{told}, slot {'back' if whole else 'lost'}", good=own and whole)


# -- transactions that end otherwise than they seem to ---------------------------------------------


@row("returned after BEGIN was typed with autocommit on")
def typed_begin(trial):
    with trial.opened(1, 1) as pool:
        conn = pool.getconn()
        pool.driver_connection(conn).autocommit = True
        ask(conn, "BEGIN")
        pid = backend(conn)
        pool.putconn(conn)
        state = trial.server.state(pid) or "closed"
        conn = pool.getconn()
        status = pool.driver_connection(conn).info.transaction_status
        pool.putconn(conn)
    inherited = status != TRANSACTION_STATUS_IDLE
    heir = ", and the next client is in it" if inherited else ""
    return Finding(f"{state}{heir}", good=state in ("idle", "closed") and not inherited)


@row("an SQL error is swallowed in a block that then ends well")
def swallowed_error(trial):
    with trial.opened(1, 1) as pool:

        def ended(swallow, commit):
            """The transaction's end as the server knows it, and the error at the block's."""
            told = None
            try:
                with block(pool) as conn:
                    number = ask(conn, "SELECT pg_current_xact_id()::text")
                    if swallow:
                        with suppress(Exception):
                            ask(conn, "SELECT 1/0")
                    if commit:
                        conn.commit()
            except Exception as error:
                told = error
            [(end,)] = trial.server.ask("SELECT pg_xact_status(%s::xid8)", number)
            return end, told

        by_hand = ended(swallow=False, commit=False)[0] != "committed"
        end, told = ended(swallow=True, commit=by_hand)
    if told:
        return Finding(f"told: {name(told)}", good=True, detail=str(told))
    return Finding(f"silent, though the transaction was {end}", good=end == "committed")


# -- waiting ---------------------------------------------------------------------------------------


@row("timeout=0 while a connection is idle")
def no_patience(trial):
    if not trial.peer.waits:
        return Finding("never waits")
    with trial.opened(1, 1) as pool:
        try:
            pool.putconn(pool.getconn(timeout=0))
        except TypeError:
            return Finding("has no timeout per checkout")
        except Exception as error:
            idle = "" if lends(pool) else ", and nothing was idle"
            return Finding(f"refused: {name(error)}{idle}", good=False)
    return Finding("served", good=True)


@row("Ctrl-C while waiting for the only connection, which is then returned")
def interrupted(trial):
    if not trial.peer.waits:
        return Finding("never waits")
    if not hasattr(signal, "pthread_kill"):
        return Finding("not to be tried on this platform")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & would have it ignored
    with trial.opened(1, 1, timeout=5.0) as pool:
        with held(pool, 1) as [conn]:
            pid = backend(conn)
            threading.Thread(target=_press_ctrl_c, daemon=True).start()
            with suppress(KeyboardInterrupt):
                pool.getconn()
                raise AssertionError("got a connection that somebody else has")
        whole = lends(pool)
        lost = f"lost: {trial.server.state(pid)} on the server, and not lent"
    return Finding("whole" if whole else lost, good=whole)


def _press_ctrl_c():
    """Interrupt the main thread as soon as it waits: has been at the same instruction for 0.1 s."""
    main = threading.main_thread().ident
    before, since = None, time.monotonic()
    while time.monotonic() - since < 0.1:
        frame = sys._current_frames()[main]
        now = id(frame), frame.f_lasti
        del frame
        if now != before:
            before, since = now, time.monotonic()
        time.sleep(0.005)
    signal.pthread_kill(main, signal.SIGINT)


@row("a block within a block, on a pool of one")
def nested(trial):
    def attempt():
        with block(pool), block(pool):
            pass

    with trial.opened(1, 1, timeout=0.4) as pool:
        first = bounded(attempt, patience=1.0)
        if first is None:
            return Finding("still waiting after 1 s", good=False)
        attempts = [first, bounded(attempt), bounded(attempt)]
    # The fastest of three: the others may have had to wait for a processor.
    best = min(attempts, key=lambda outcome: outcome.end - outcome.start)
    seconds, error = best.end - best.start, best.error
    if error is None:
        return Finding("works")
    said = f"{name(error)} after {duration(seconds)}"
    if not trial.peer.waits:
        return Finding(f"{said}, as it never waits")
    return Finding(said, good=seconds < 0.05, detail=str(error))


@row("what the error says when both connections are in use")
def exhausted(trial):
    if not trial.peer.limited:
        return Finding("has no limit")
    with trial.opened(2, 2, timeout=0.1) as pool, held(pool, 2):
        outcome = bounded(pool.getconn, patience=1.0)
    if outcome is None:
        return Finding("nothing: still waiting after 1 s", good=False)
    said = str(outcome.error)
    unquoted = re.sub("'.*?'", "", said)  # a pool's name may have a number, too
    lines = re.findall(rf"{os.path.basename(__file__)}:(\d+)", said)
    facts = {
        "counts": re.search(r"\b2\b", unquoted),
        "line": any("checkout()" in linecache.getline(__file__, int(line)) for line in lines),
        "thread": "front desk" in said,
    }
    named = [fact for fact, there in facts.items() if there]
    names = ", ".join(named) or "no counts, no line, no thread"
    return Finding(names, good=len(named) == len(facts), detail=f"{name(outcome.error)}: {said}")


# -- processes, and connects -----------------------------------------------------------------------


@row("a forked child uses the pool, closes it, and ends")
def forked(trial):
    if not hasattr(os, "fork"):
        return Finding("nothing forks on this platform")
    if not trial.peer.limited:
        return Finding("keeps nothing to share")
    with trial.opened(1, 2) as pool:
        conn = pool.getconn()
        parents, pid = pool.driver_connection(conn), backend(conn)
        pool.putconn(conn)
        answer = _in_forked_child(partial(_use_and_close, pool))
        try:
            lives = backend(parents) == pid
        except Exception:
            lives = False
    used = "the same backend" if answer == str(pid) else "a backend of its own"
    if not answer.isdecimal():
        used = answer  # an error's name
    fate = "lives" if lives else "is dead"
    good = used == "a backend of its own" and lives
    return Finding(f"{used}; the parent's {fate}", good=good)


def _use_and_close(pool):
    conn = pool.getconn()
    used = backend(conn)
    pool.putconn(conn)
    pool.close()
    return used


def _in_forked_child(task):
    """Return what `task()` returns in a forked child, or the error there, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = str(task())
        except BaseException as error:
            said = name(error)
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    said = "no answer"
    if select.select([reading], [], [], 5.0)[0]:
        said = os.read(reading, 1000).decode()
    os.close(reading)
    os.kill(child, signal.SIGKILL)  # it has ended by itself, or never will
    os.waitpid(child, 0)
    return said


@row("connects for 100 checkouts, four at a time, on a pool of 1 to 4")
def churn(trial):
    connects = []
    with trial.opened(1, 4, before_connect=lambda: connects.append(1)) as pool:
        for _ in range(25):
            conns = [pool.getconn() for _ in range(4)]
            for conn in conns:
                pool.putconn(conn)
    return Finding(str(len(connects)), good=len(connects) <= 4)


# -- returns that should not be --------------------------------------------------------------------


@row("returned twice")
def returned_twice(trial):
    with trial.opened(2, 2) as pool:
        conn = pool.getconn()
        pool.putconn(conn)
        told = _raised(pool.putconn, conn)
        return _after_the_return(told, [pool.getconn(), pool.getconn()])


@row("returned again by hand, when somebody else has it already")
def returned_late(trial):
    with trial.opened(1, 2) as pool:
        conn = pool.getconn()
        pool.putconn(conn)
        others = pool.getconn()
        told = _raised(pool.putconn, conn)
        return _after_the_return(told, [others, pool.getconn()])


@row("returned by hand in its block, and somebody else has it at the block's end")
def returned_in_its_block(trial):
    told = None
    with trial.opened(1, 2) as pool:
        try:
            with block(pool) as conn:
                pool.putconn(conn)
                others = pool.getconn()
        except Exception as error:
            told = error
        return _after_the_return(told, [others, pool.getconn()])


def _after_the_return(told, conns):
    one, other = map(backend, conns)
    shared = one == other
    said = f"told: {name(told)}" if told else "silent"
    if shared:
        said += ", two clients share a backend"
    elif not told:
        said += ", and harmless"
    return Finding(said, good=not shared, detail=str(told or ""))


@row("returned to another pool")
def returned_elsewhere(trial):
    if not trial.peer.limited:
        return Finding("there is no pool")
    with trial.opened(1, 1) as home, trial.opened(1, 1) as elsewhere:
        conn = home.getconn()
        told = _raised(elsewhere.putconn, conn)
        if told:
            return Finding(f"told: {name(told)}", good=True, detail=str(told))
        if lends(home):
            return Finding("goes home: no pool is named in a return", good=True)
    return Finding("silent, and lost to its own pool", good=False)


def _raised(function, *args):
    try:
        function(*args)
    except Exception as error:
        return error
