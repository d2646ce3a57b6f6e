"""One run: everybody is let go, stopped, and asked what happened."""

import faulthandler
import gc
import os
import re
import sys
import tempfile
import threading
import warnings
from contextlib import contextmanager
from time import monotonic

from psycopg2.extensions import make_dsn, parse_dsn

from poolkit import ConnectionPool

from . import trouble
from .clients import PATIENCE, Client
from .judge import APPLICATION, Judge, open_files
from .report import report
from .server import Admin

CLIENTS = 24
MAX_SIZE = 8
SWITCH = 1e-6  # seconds that a thread has while others want to run, instead of 5 ms


def run(server, seconds, seed, reset):
    """Let the chaos go on for so many seconds, print what happened, and return whether every
    promise was kept."""
    judge, admins = Judge(MAX_SIZE), [Admin(server) for _ in range(3)]
    prepare(server, admins)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        with nothing_unheard(judge):
            clients = let_go(server, judge, admins, seconds, seed, reset)
        judge.audit(clients, admins[0])
    finally:
        judge.over.set()
        sys.setswitchinterval(switch)
        for admin in admins:
            admin.close()
    report(judge, clients)
    return not judge.violations


def let_go(server, judge, admins, seconds, seed, reset):
    """Return the clients, when all is over."""
    judge.files_before = open_files()
    pool = make_pool(address(server, admins[0]), judge, reset)
    clients = [Client(n + 1, pool, judge, seed, reset) for n in range(2 * CLIENTS)]
    everybody = [
        *clients[:CLIENTS],
        task(trouble.terminate_backends, judge, admins[1], seed),
        task(trouble.observe, judge, admins[2], pool),
        task(trouble.operate, judge, server, pool, seconds, seed),
    ]
    latecomers = [*clients[CLIENTS:], task(trouble.close, judge, pool, PATIENCE)]
    (
        work(everybody, judge, seconds)
        and work([task(judge.account, pool, admins[0])], judge)
        and work(latecomers, judge, 2 * PATIENCE)
        and work([task(judge.account_for_nothing, pool, admins[0])], judge)
    )
    return clients


def task(function, *args):
    return threading.Thread(target=function, args=args, name=function.__name__, daemon=True)


def work(threads, judge, seconds=0.0):
    """Let the threads work for so long, or until one of them says that it is over. Returns whether
    all then ended by themselves, and nothing was violated."""
    judge.over.clear()
    for thread in threads:
        thread.start()
    judge.over.wait(seconds)
    judge.over.set()
    deadline = monotonic() + PATIENCE + 10
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    if hung := [thread.name for thread in threads if thread.is_alive()]:
        faulthandler.dump_traceback(all_threads=True)
        judge.violated(f"still running, see the stacks: {', '.join(hung)}")
    return not judge.violations


def prepare(server, admins):
    admin, given = admins[0], parse_dsn(server.dsn)
    admin.ask("CREATE TABLE written (id bigint PRIMARY KEY)")
    admin.ask("GRANT ALL ON written TO PUBLIC")
    # Half of a connect would be the hashing of the password, and there is to be much connecting.
    admin.ask("SET scram_iterations = 1")
    admin.ask(f"ALTER ROLE {given['user']} PASSWORD %s", given["password"])
    for admin in admins[1:]:
        admin.ask("SELECT 'here'")  # and so is connected, before files are counted


def address(server, admin):
    """Return the address for the pool: the server's Unix socket, on systems that have such."""
    [[folder]] = admin.ask("SHOW unix_socket_directories")
    host = {"host": folder} if folder else {}
    return make_dsn(server.dsn, application_name=APPLICATION, **host)


def make_pool(dsn, judge, reset):
    return ConnectionPool(
        dsn,
        min_size=2,
        max_size=MAX_SIZE,
        timeout=PATIENCE,
        max_waiting=20,
        max_lifetime=0.3,
        max_idle=0.15,
        check_idle=0.05,
        reset=reset,
        name=APPLICATION,
        on_event=judge.heard,
        connection_factory=judge.connect,
    )


@contextmanager
def nothing_unheard(judge):
    """What would only be printed is a violation: warnings, errors that nobody catches."""
    hooks = threading.excepthook, sys.unraisablehook
    threading.excepthook = lambda args: judge.violated(
        f"{args.thread.name} ended with {args.exc_value!r}", args.exc_value
    )
    sys.unraisablehook = lambda args: judge.violated(
        f"{args.err_msg or 'ignored'}: {args.exc_value!r} in {args.object!r}", args.exc_value
    )
    try:
        with stderr_heard(judge), warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            yield
            gc.collect()
    finally:
        threading.excepthook, sys.unraisablehook = hooks
    for warning in heard:
        judge.violated(f"warning: {warning.message} ({warning.filename}:{warning.lineno})")


@contextmanager
def stderr_heard(judge):
    # When a backend is terminated in the moment in which it is ready, libpq prints its farewell:
    # psycopg2 had no time to tell it where else to put that. Nothing else may be printed.
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile("w+") as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            rest = [line for line in said if not re.match("(FATAL|WARNING|DETAIL|HINT):  ", line)]
        if rest:
            sys.stderr.writelines(rest)
            judge.violated(f"printed to stderr: {len(rest)} lines")
