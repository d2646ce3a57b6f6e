"""What the clients do with a pool: everything that is right, and everything that is wrong.

Each operation is called with the client that does it, and lets errors out: which may come is said
in `clients`.
"""

import threading
from contextlib import suppress
from time import sleep

import psycopg2
from psycopg2 import InterfaceError
from psycopg2.errors import DivisionByZero
from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ

from poolkit import PoolError

# psycopg2's attributes of a connection, and what they are changed to.
ATTRIBUTES = {
    "autocommit": True,
    "isolation_level": ISOLATION_LEVEL_REPEATABLE_READ,
    "readonly": True,
    "deferrable": True,
}


class Mistake(Exception):
    """A client's own."""


def writes(client):
    with client.block() as loan:
        loan.write()
        loan.write()


def reads(client):
    with client.block() as loan:
        loan.run("SELECT max(id) FROM written")


def makes_a_mistake(client):
    with client.block() as loan:
        loan.write()
        raise Mistake


def lets_an_sql_error_out(client):
    with client.block() as loan:
        loan.write()
        loan.run("SELECT 1 / 0")


def swallows_an_sql_error(client):
    with client.raises(PoolError):
        with client.block() as loan:
            if client.random.random() < 0.5:
                loan.begin()
            loan.write()
            with suppress(DivisionByZero):
                loan.run("SELECT 1 / 0")


def swallows_everything(client):
    with client.block() as loan:
        with suppress(psycopg2.Error):
            loan.write()
            loan.run("SELECT pg_sleep(0.01)")


def closes_its_connection(client):
    with client.raises(InterfaceError):
        with client.block() as loan:
            loan.write()
            loan.conn.close()


def closes_and_returns(client):
    with client.bare() as loan:
        loan.write()
        loan.conn.close()


def types_begin(client):
    with client.block() as loan:
        loan.begin()
        loan.write()
        if client.random.random() < 0.5:
            raise Mistake


def types_begin_and_leaves_it(client):
    with client.bare() as loan:
        loan.begin()
        loan.write()


def types_commit(client):
    with client.block() as loan:
        loan.write()
        with loan.committing():
            loan.run("COMMIT")


def changes_attributes(client):
    with client.block() as loan:
        for name in client.random.sample([*ATTRIBUTES], client.random.randint(1, 4)):
            setattr(loan.conn, name, ATTRIBUTES[name])
        loan.run("SELECT 1")


def writes_in_autocommit(client):
    with client.block() as loan:
        loan.conn.autocommit = True
        loan.write_at_once()
        if client.random.random() < 0.5:
            raise Mistake


def sets(client):
    with client.block() as loan:
        loan.run("SET chaos.mark = 'left behind'")


def listens_or_notifies(client):
    with client.block() as loan:
        loan.run(client.random.choice(["LISTEN chaos", "NOTIFY chaos"]))


def takes_its_time(client):
    with client.block() as loan:
        loan.write()
        loan.run("SELECT pg_sleep(%s)", client.random.uniform(0.02, 0.1))


def has_no_patience(client):
    with client.block(client.hardly_any_time()) as loan:
        loan.write()


def tries_a_bare_one(client):
    with client.bare(client.hardly_any_time()):
        pass


def leaves_a_transaction_open(client):
    with client.bare() as loan:
        loan.write()


def commits_a_bare_one(client):
    with client.bare() as loan:
        loan.write()
        with loan.committing():
            loan.conn.commit()


def has_it_closed(client):
    with client.bare(close=True) as loan:
        loan.write()


def nests(client):
    with client.block() as outer:
        outer.write()
        with client.block(client.random.uniform(0.0, 0.2)) as inner:
            inner.write()


# Twice: only what nobody else can have by now, for a second return of that is told apart.


def returns_twice(client):
    with client.bare(close=True) as loan:
        loan.write()
    with client.raises(PoolError):
        client.pool.putconn(loan.conn)


def returns_in_its_block(client):
    with client.raises(PoolError):
        with client.block() as loan:
            loan.write()
            client.returns(loan)
            sleep(0.002)  # somebody else is in the middle of something now


def returns_from_two_threads(client):
    refused = []

    def put(conn):
        try:
            client.pool.putconn(conn)
        except PoolError as error:
            refused.append(error)

    try:
        with client.block() as loan:
            client.gives(loan)
            loan.conn.close()  # so that nobody else gets it
            other = threading.Thread(target=put, args=(loan.conn,), daemon=True)
            other.start()
    except InterfaceError:
        pass  # there was nothing to commit any more, but it was this block that returned it
    except PoolError as error:
        if type(error) is not PoolError:
            raise
        refused.append(error)
    other.join()
    if len(refused) != 1:
        client.judge.violated(f"two threads returned one checkout, refused were {refused}")


def returns_a_stranger(client):
    with client.raises(PoolError):
        client.pool.putconn(client.random.choice([None, object(), "conn"]))


# How often, compared with each other.
OPERATIONS = {
    reads: 20,
    writes: 20,
    has_no_patience: 10,
    tries_a_bare_one: 10,
    commits_a_bare_one: 6,
    leaves_a_transaction_open: 6,
    makes_a_mistake: 5,
    lets_an_sql_error_out: 5,
    swallows_an_sql_error: 5,
    types_begin: 5,
    types_begin_and_leaves_it: 5,
    changes_attributes: 5,
    nests: 5,
    types_commit: 4,
    writes_in_autocommit: 4,
    sets: 4,
    takes_its_time: 4,
    listens_or_notifies: 3,
    swallows_everything: 3,
    returns_in_its_block: 3,
    returns_a_stranger: 2,
    # These cost a connection each.
    closes_its_connection: 1,
    closes_and_returns: 1,
    has_it_closed: 1,
    returns_twice: 1,
    returns_from_two_threads: 1,
}
