"""What is done to the pool and its server while the clients are at work."""

from contextlib import suppress
from random import Random
from time import monotonic, sleep

import psycopg2

from .judge import backends

EVERY = 0.02  # seconds between two terminated backends
LARGEST = 10  # the pool is resized up to that


def terminate_backends(judge, admin, seed):
    """End the session of one of the pool's backends, whatever it does, again and again."""
    random, then = Random(f"{seed}/terminate"), monotonic()
    while not judge.over.wait(then - monotonic()):
        then = max(then + EVERY, monotonic())
        if shown := backends(admin):
            pid = random.choice(sorted(shown))
            judge.terminated[pid] = monotonic()  # before: who loses it asks the judge why
            judge.doomed.add(pid)
            if admin.ask("SELECT pg_terminate_backend(%s)", pid) == [(True,)]:
                judge.done["backends terminated"] += 1


def observe(judge, admin, pool):
    """Look as often as that goes."""
    while not judge.over.is_set():
        judge.sample(pool, admin)


def operate(judge, server, pool, seconds, seed):
    """Do what an operator may do to a running pool, and let its server crash in the middle."""
    random = Random(f"{seed}/operate")
    middle = monotonic() + seconds / 2
    while not judge.over.wait(random.uniform(0.02, 0.2)):
        if monotonic() > middle and not judge.restarts:
            restart(judge, server)
            continue
        judge.slow = random.choice([0.0, 0.0, 0.0, 0.002, 0.02])
        judge.lull = random.choice([0.0, 0.0, 0.0, 0.0, 0.02, 0.1])
        action = random.choice([resize, resize, drain, check, look, stampede])
        judge.done[action.__name__] += 1
        with suppress(psycopg2.OperationalError):  # they connect, too, and may be terminated at it
            action(judge, pool, random)


def restart(judge, server):
    start = monotonic()
    judge.restarts += 1
    server.restart()
    judge.restarts += 1
    judge.restarted = monotonic()
    judge.restart_took = judge.restarted - start
    judge.done["restart"] += 1


def resize(judge, pool, random):
    max_size = random.randint(3, LARGEST)
    min_size = random.randint(0, min(4, max_size))
    if max_size >= judge.sizes[-1]:
        judge.sizes.append(max_size)
        pool.resize(min_size, max_size)
        return
    try:
        pool.resize(min_size, max_size)
    finally:
        resized = monotonic()
        judge.came_true(
            lambda: shrunk(judge, pool, resized), lambda: f"resized, and still: {pool.stats()}"
        )
        judge.sizes.append(max_size)


def shrunk(judge, pool, resized):
    # Those in use above the new size stay until they are returned, and then go to nobody.
    lent = judge.lent()
    stats = pool.stats()
    too_many = stats.in_use + stats.idle > stats.max_size
    if too_many and any(loan.asked > resized for loan in lent):
        judge.violated(f"one was lent although there were too many: {stats}")
    return not too_many and stats.in_use + stats.idle + stats.pending <= stats.max_size


def stampede(judge, pool, random):
    judge.gate.clear()
    sleep(0.05)
    judge.gate.set()


def drain(judge, pool, random):
    pool.drain()


def check(judge, pool, random):
    pool.check()


def look(judge, pool, random):
    if odd := [holder for holder in pool.holders() if holder.age < 0 or not holder.where]:
        judge.violated(f"odd holders: {odd}")
    repr(pool)


def close(judge, pool, patience):
    """Close the pool in the middle of everything, and of a connect that takes its time."""
    judge.slow = 0.3
    sleep(0.3)
    judge.closing = True
    if holders := pool.close(timeout=patience):
        judge.violated(f"close() waited for {patience} s, and these have not returned: {holders}")
    else:
        judge.nothing_left(pool)
    judge.over.set()
