"""What the pool promises on a real PostgreSQL, whose pg_stat_activity is the judge."""

import json
import select
import socket
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg2
import pytest
from fake import Client, until
from psycopg2 import extensions
from psycopg2.extensions import make_dsn, parse_dsn
from psycopg2.extras import DictCursor

import poolkit
from poolkit import ConnectionPool, PoolError, PoolTimeout
from poolkit.drivers import PATIENCE, Psycopg2

pytestmark = pytest.mark.server


class Observer:
    """Another connection, that sees what the server sees of a test's own."""

    def __init__(self, dsn):
        self.name = parse_dsn(dsn)["application_name"]
        self.conn = psycopg2.connect(dsn, application_name="tests/observer")
        self.conn.autocommit = True

    def ask(self, sql, *values):
        with self.conn.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else None

    def backends(self):
        """The state of each of the test's backends, by pid."""
        return dict(
            self.ask("SELECT pid, state FROM pg_stat_activity WHERE application_name=%s", self.name)
        )

    def kill(self, *pids):
        for pid in pids:
            self.ask("SELECT pg_terminate_backend(%s, 5000)", pid)


@pytest.fixture
def observer(dsn):
    watching = Observer(dsn)
    yield watching
    until(lambda: not watching.backends())  # every test closes what it opened
    watching.conn.close()


@pytest.fixture
def table(observer):
    """An empty table with one column, `n`, unique at the end of a transaction."""
    observer.ask("CREATE TABLE pool_test (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    yield "pool_test"
    observer.ask("DROP TABLE pool_test")


def run(conn, sql, *values):
    with conn.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchone()[0] if cursor.description else None


def pid(conn):
    return conn.get_backend_pid()


@contextmanager
def lent(pool):
    """A bare checkout: no commit at the end."""
    conn = pool.getconn()
    try:
        yield conn
    finally:
        pool.putconn(conn)


# -- the connections ----------------------------------------------------------------------------


@pytest.mark.promise(18)
def test_the_same_backend_serves_again_and_none_is_left_after_close(dsn, observer):
    with ConnectionPool(dsn, max_size=2) as pool:
        pids = set()
        for _ in range(3):
            with pool.connection() as conn:
                assert run(conn, "SELECT 1") == 1
                pids.add(pid(conn))
        assert list(observer.backends().items()) == [(pids.pop(), "idle")]
    until(lambda: not observer.backends())


@pytest.mark.promise(1)
def test_a_wrong_address_raises_the_drivers_error(dsn, observer):
    with closing(psycopg2.connect(dsn)) as conn:
        port = conn.info.port
    with pytest.raises(psycopg2.OperationalError, match="does not exist|not permitted|no pg_hba"):
        ConnectionPool(make_dsn(dsn, dbname="no_such_database"))
    with pytest.raises(psycopg2.OperationalError, match="Connection refused"):
        ConnectionPool(f"host=127.0.0.1 port={1 if port != 1 else 2}")
    with pytest.raises(psycopg2.ProgrammingError, match="dsn"):
        ConnectionPool("not a dsn")


@pytest.mark.promise(1)
def test_min_size_connections_are_there_when_the_constructor_returns(dsn, observer):
    with ConnectionPool(dsn, min_size=3, max_size=5):
        assert len(observer.backends()) == 3


@pytest.mark.promise(6, 15)
def test_an_address_that_never_answers_costs_no_more_than_the_timeout(dsn, observer):
    before = set(threading.enumerate())
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        address = make_dsn(dsn, host="127.0.0.1", port=silent.getsockname()[1])
        pool = ConnectionPool(address, min_size=0, max_size=2, connect_timeout=60)
        for _ in range(2):
            with pytest.raises(PoolTimeout, match="0 of 2 in use, 0 idle, 1 pending, 0 waiting"):
                pool.getconn(timeout=0.01)
        assert pool.close(timeout=0) == []
    until(lambda: before >= set(threading.enumerate()))


@pytest.mark.promise(16)
def test_a_timeout_carries_what_the_server_said(dsn, observer):
    with ConnectionPool(make_dsn(dsn, dbname="no_such_database"), min_size=0) as pool:
        with pytest.raises(PoolTimeout) as caught:
            pool.getconn(timeout=0.2)
        assert isinstance(caught.value.__cause__, psycopg2.OperationalError)
        password = parse_dsn(dsn).get("password")
        assert not password or password not in str(caught.value)


@pytest.mark.promise(22)
def test_connections_are_patient_but_not_for_ever_and_carry_the_pools_name(dsn, observer):
    nameless = {k: v for k, v in parse_dsn(dsn).items() if k != "application_name"}
    with ConnectionPool(make_dsn(**nameless), name="front desk", keepalives_idle=99) as pool:
        with pool.connection() as conn:
            assert run(conn, "SHOW application_name") == "front desk"
            given = conn.get_dsn_parameters()
    assert given["keepalives_idle"] == "99"
    assert given["connect_timeout"] == str(PATIENCE["connect_timeout"])
    assert given["tcp_user_timeout"] == "10000"
    with ConnectionPool(make_dsn(dsn, connect_timeout=3)) as pool, pool.connection() as conn:
        assert conn.get_dsn_parameters()["connect_timeout"] == "3"
        assert run(conn, "SHOW application_name") == observer.name
    with ConnectionPool(dsn, application_name="mine") as pool, pool.connection() as conn:
        assert run(conn, "SHOW application_name") == "mine"


def test_what_configure_does_stays(dsn, observer):
    def configure(conn):
        conn.isolation_level = "SERIALIZABLE"
        run(conn, "SET statement_timeout = '7s'")

    for reset in ("rollback", None):
        with ConnectionPool(dsn, configure=configure, reset=reset) as pool:
            for _ in range(3):
                with pool.connection() as conn:
                    assert run(conn, "SHOW transaction_isolation") == "serializable"
                    assert run(conn, "SHOW statement_timeout") == "7s"


# -- alive --------------------------------------------------------------------------------------


@pytest.mark.promise(9)
def test_an_idle_connection_that_the_server_ended_is_not_lent(dsn, observer):
    with ConnectionPool(dsn, min_size=3) as pool:
        before = set(observer.backends())
        observer.kill(*before)
        with pool.connection() as conn:
            assert run(conn, "SELECT 42") == 42
            assert pid(conn) not in before
        assert repr(pool).endswith(": 0 of 3 in use, 1 idle, 0 pending, 0 waiting>")


@pytest.mark.promise(9)
def test_an_idle_connection_that_ran_into_the_servers_idle_timeout_is_not_lent(dsn, observer):
    options = f"{parse_dsn(dsn).get('options', '')} -c idle_session_timeout=20"
    with ConnectionPool(dsn, options=options) as pool:
        (first,) = observer.backends()
        until(lambda: first not in observer.backends())
        with pool.connection() as conn:
            assert run(conn, "SELECT 42") == 42


@pytest.mark.promise(4, 9)
def test_a_connection_whose_time_is_over_is_replaced(dsn, observer):
    with ConnectionPool(dsn, max_lifetime=0.02) as pool:
        with lent(pool) as conn:
            first = pid(conn)

        def another_one():
            with pool.connection() as conn:
                return pid(conn) != first

        until(another_one)
        until(lambda: first not in observer.backends())
        assert len(observer.backends()) <= 1


@pytest.mark.promise(20)
def test_resize_and_max_idle_are_what_the_server_sees_of_them(dsn, observer):
    with ConnectionPool(dsn, min_size=4, max_size=4) as pool:
        held = [pool.getconn() for _ in range(3)]
        pool.resize(1, 2)
        until(lambda: set(observer.backends()) == {pid(conn) for conn in held})
        pool.putconn(held[0])
        until(lambda: len(observer.backends()) == 2)
        pool.putconn(held[1])
        pool.putconn(held[2])
        pool.resize(2, 4)
        assert set(observer.backends()) == {pid(held[1]), pid(held[2])}
    with ConnectionPool(dsn, min_size=1, max_size=3, max_idle=0) as pool:
        for conn in [pool.getconn() for _ in range(3)]:
            pool.putconn(conn)
        pool.check()
        until(lambda: len(observer.backends()) == 1)


def test_after_drain_every_connection_is_opened_anew(dsn, observer):
    driver = Psycopg2(dsn)
    with ConnectionPool(driver=driver, min_size=2) as pool:
        before = set(observer.backends())
        with pool.connection():
            driver.kwargs["options"] = "-c work_mem=1234kB"  # a new password, say
            pool.drain()
        for conn in [pool.getconn(), pool.getconn()]:
            assert run(conn, "SHOW work_mem") == "1234kB"
            pool.putconn(conn)
        until(lambda: not before & set(observer.backends()))


@pytest.mark.promise(20)
def test_check_replaces_what_the_server_ended(dsn, observer):
    with ConnectionPool(dsn, min_size=2) as pool:
        before = set(observer.backends())
        observer.kill(*before)
        pool.check()
        assert len(observer.backends()) == 2 and not before & set(observer.backends())


@pytest.mark.promise(10)
def test_a_ping_leaves_no_transaction(dsn, observer):
    with ConnectionPool(dsn, check_idle=0) as pool, pool.connection() as conn:
        assert conn.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE


@pytest.mark.promise(9)
def test_notifications_are_for_who_listens_and_not_for_the_next(dsn, observer):
    with ConnectionPool(dsn) as pool:
        with pool.connection() as conn:
            run(conn, "LISTEN news")
            first = pid(conn)
        with pool.connection() as conn:
            observer.ask("NOTIFY news, 'one'")
            run(conn, "SELECT 1")
            assert [notify.payload for notify in conn.notifies] == ["one"]
        with pool.connection() as conn:
            assert conn.notifies == []
        for n in range(3):
            observer.ask("NOTIFY news, %s", str(n))
        run(observer.conn, "SELECT pg_sleep(0.01)")  # they come while the connection is idle
        with pool.connection() as conn:
            assert pid(conn) == first and conn.notifies == []
        observer.ask("NOTIFY news, 'last'")
        observer.kill(first)
        with pool.connection() as conn:
            assert pid(conn) != first


@pytest.mark.promise(9)
def test_a_farewell_that_comes_with_a_notification_is_heard(dsn, observer):
    with (
        relay(dsn) as (address, held),
        ConnectionPool(address, max_size=1) as pool,
    ):
        with pool.connection() as conn:
            run(conn, "LISTEN news")
            first = pid(conn)
        held.set()
        observer.ask("NOTIFY news, 'one'")
        observer.kill(first)
        until(lambda: select.select([conn], [], [], 0)[0])
        held.clear()
        with pool.connection() as conn:
            assert pid(conn) != first


@contextmanager
def relay(dsn):
    """Yield an address that leads to the server, and an Event: while that is set, what the server
    says is kept back, up to the end, and comes at once then. The end itself never comes."""
    given, held, ends = parse_dsn(dsn), threading.Event(), []
    if given.get("host", "/").startswith("/"):
        pytest.skip("the server is not reached by TCP")

    def pass_on(source, target):
        kept = b""
        with suppress(OSError):
            while data := source.recv(65536):
                kept += data
                if not held.is_set():
                    target.sendall(kept)
                    kept = b""
            target.sendall(kept)

    def serve():
        with suppress(OSError):
            while True:
                near, _ = door.accept()
                far = socket.create_connection((given["host"], int(given["port"])))
                ends.extend([near, far])
                Client(pass_on, near, far)
                Client(pass_on, far, near)

    with socket.create_server(("127.0.0.1", 0)) as door:
        serving = Client(serve)
        try:
            yield make_dsn(dsn, host="127.0.0.1", port=door.getsockname()[1]), held
        finally:
            door.shutdown(socket.SHUT_RDWR)
            serving.result()
            for end in ends:
                end.close()


# -- the end of a block -------------------------------------------------------------------------


@pytest.mark.promise(11)
def test_a_block_commits_and_an_exception_rolls_back(dsn, observer, table):
    with ConnectionPool(dsn) as pool:
        with pool.connection() as conn:
            run(conn, f"INSERT INTO {table} VALUES (1)")
        with pytest.raises(KeyError), pool.connection() as conn:
            run(conn, f"INSERT INTO {table} VALUES (2)")
            raise KeyError
        assert observer.ask(f"SELECT n FROM {table}") == [(1,)]
        assert list(observer.backends().values()) == ["idle"]


@pytest.mark.promise(11)
def test_a_swallowed_sql_error_raises_because_nothing_was_committed(dsn, observer, table):
    with ConnectionPool(dsn) as pool:
        with pytest.raises(PoolError, match="nothing was committed: an SQL error was swallowed"):
            with pool.connection() as conn:
                run(conn, f"INSERT INTO {table} VALUES (1)")
                with pytest.raises(psycopg2.errors.DivisionByZero):
                    run(conn, "SELECT 1/0")
        assert observer.ask(f"SELECT n FROM {table}") == []
        assert list(observer.backends().values()) == ["idle"]


@pytest.mark.promise(11)
def test_an_error_behind_a_savepoint_is_no_reason_not_to_commit(dsn, observer, table):
    with ConnectionPool(dsn) as pool, pool.connection() as conn:
        run(conn, f"INSERT INTO {table} VALUES (1)")
        run(conn, "SAVEPOINT here")
        with pytest.raises(psycopg2.errors.DivisionByZero):
            run(conn, "SELECT 1/0")
        run(conn, "ROLLBACK TO here")
    assert observer.ask(f"SELECT n FROM {table}") == [(1,)]


@pytest.mark.promise(11)
def test_a_commit_that_the_server_refuses_is_raised(dsn, observer, table):
    with ConnectionPool(dsn) as pool:
        with pytest.raises(psycopg2.errors.UniqueViolation), pool.connection() as conn:
            run(conn, f"INSERT INTO {table} VALUES (1), (1)")  # the constraint is deferred
        assert list(observer.backends().values()) == ["idle"]
        assert repr(pool).endswith(": 0 of 1 in use, 1 idle, 0 pending, 0 waiting>")


@pytest.mark.promise(11)
def test_a_begin_typed_in_autocommit_is_committed(dsn, observer, table):
    with ConnectionPool(dsn) as pool:
        with pool.connection() as conn:
            conn.autocommit = True
            run(conn, "BEGIN")
            run(conn, f"INSERT INTO {table} VALUES (1)")
        assert observer.ask(f"SELECT n FROM {table}") == [(1,)]
        with pytest.raises(PoolError, match="nothing was committed"), pool.connection() as conn:
            conn.autocommit = True
            run(conn, "BEGIN")
            with pytest.raises(psycopg2.errors.DivisionByZero):
                run(conn, "SELECT 1/0")
        assert list(observer.backends().values()) == ["idle"]


@pytest.mark.promise(11)
def test_a_connection_lost_in_a_block_raises_at_its_end_and_is_replaced(dsn, observer, table):
    with ConnectionPool(dsn) as pool:
        with pytest.raises(psycopg2.OperationalError), pool.connection() as conn:
            run(conn, f"INSERT INTO {table} VALUES (1)")
            observer.kill(pid(conn))
        with pytest.raises(ZeroDivisionError), pool.connection() as conn:
            run(conn, f"INSERT INTO {table} VALUES (1)")
            observer.kill(pid(conn))
            1 / 0  # noqa: B018
        assert repr(pool).endswith(": 0 of 1 in use, 0 idle, 0 pending, 0 waiting>")
        with pool.connection() as conn:
            assert run(conn, f"SELECT count(*) FROM {table}") == 0


# -- what comes back is clean -------------------------------------------------------------------


def left_in_transaction(conn):
    run(conn, "CREATE TABLE never (n int)")


def left_in_error(conn):
    with pytest.raises(psycopg2.errors.DivisionByZero):
        run(conn, "SELECT 1/0")


def typed_begin(conn):
    conn.autocommit = True
    run(conn, "BEGIN")
    run(conn, "SELECT 1")


def typed_begin_and_failed(conn):
    typed_begin(conn)
    left_in_error(conn)


def typed_commit(conn):
    run(conn, "SELECT 1")
    run(conn, "COMMIT")


def left_a_cursor_open(conn):
    cursor = conn.cursor("named")
    cursor.execute("SELECT generate_series(1, 1000)")
    cursor.fetchone()


@pytest.mark.promise(12)
@pytest.mark.parametrize(
    "leave",
    [
        left_in_transaction,
        left_in_error,
        typed_begin,
        typed_begin_and_failed,
        typed_commit,
        left_a_cursor_open,
    ],
)
def test_however_it_was_left_the_next_client_starts_afresh(dsn, observer, table, leave):
    with ConnectionPool(dsn) as pool:
        with lent(pool) as conn:
            first = pid(conn)
            leave(conn)
        assert observer.backends() == {first: "idle"}
        with lent(pool) as conn:
            assert pid(conn) == first and conn.autocommit is False
            run(conn, f"INSERT INTO {table} VALUES (1)")
            conn.rollback()
            assert run(conn, f"SELECT count(*) FROM {table}") == 0  # it was in a transaction


@pytest.mark.promise(12)
@pytest.mark.parametrize("how", ["closed", "killed", "killed in transaction", "tpc"])
def test_putconn_never_raises_for_a_connection_beyond_repair(dsn, observer, how):
    with ConnectionPool(dsn) as pool:
        conn = pool.getconn()
        if how == "closed":
            conn.close()
        elif how == "tpc":
            conn.tpc_begin(conn.xid(1, "gtrid", "bqual"))
        else:
            if "transaction" in how:
                run(conn, "SELECT 1")
            observer.kill(pid(conn))
        pool.putconn(conn)
        idle = 1 if how == "killed" else 0  # nobody knows yet; the next checkout does
        assert pool.stats() == (1, 0, idle, 0, 0)
        with pool.connection() as conn:
            assert run(conn, "SELECT 42") == 42


@pytest.mark.promise(12)
def test_a_connection_in_the_middle_of_a_query_is_discarded(dsn, observer):
    with ConnectionPool(dsn) as pool:
        conn = pool.getconn()
        first = pid(conn)
        asking = Client(run, conn, "SELECT pg_sleep(0.05)")
        until(lambda: observer.backends() == {first: "active"})
        pool.putconn(conn)
        assert conn.closed and pool.stats() == (1, 0, 0, 0, 0)
        asking.join()


AS_OPENED = (False, None, None, None, None)


def attributes(conn):
    of_the_session = conn.autocommit, conn.isolation_level, conn.readonly, conn.deferrable
    return *of_the_session, conn.cursor_factory


@pytest.mark.promise(13)
@pytest.mark.parametrize("autocommit", ["", "first", "last"])
@pytest.mark.parametrize("reset", ["rollback", "discard", lambda conn: None])
def test_the_settings_of_a_returned_connection_are_as_when_it_was_opened(
    dsn, observer, autocommit, reset
):
    with ConnectionPool(dsn, reset=reset) as pool:
        with lent(pool) as conn:
            first = pid(conn)
            if autocommit == "first":
                conn.autocommit = True
            conn.isolation_level = "SERIALIZABLE"
            conn.readonly = True
            conn.deferrable = True
            conn.cursor_factory = DictCursor
            if autocommit == "last":
                conn.autocommit = True
            run(conn, "SELECT 1")
        with lent(pool) as conn:
            assert pid(conn) == first
            assert attributes(conn) == AS_OPENED
            # psycopg2 sets them on the server as well, while autocommit is on
            for what in ("read_only", "deferrable"):
                assert run(conn, f"SHOW default_transaction_{what}") == "off"
                assert run(conn, f"SHOW transaction_{what}") == "off"
            assert run(conn, "SHOW transaction_isolation") == "read committed"


@pytest.mark.promise(13)
def test_without_a_reset_the_settings_stay(dsn, observer):
    with ConnectionPool(dsn, reset=None) as pool:
        with lent(pool) as conn:
            conn.readonly = True
            run(conn, "SELECT 1")
        with lent(pool) as conn:
            assert conn.readonly is True
            assert conn.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE


@pytest.mark.promise(13)
def test_discard_ends_everything_the_session_had(dsn, observer):
    def leave_traces(conn):
        run(conn, "SET application_name = 'somebody else'")
        run(conn, "CREATE TEMP TABLE scratch (n int)")
        run(conn, "PREPARE question AS SELECT 1")
        run(conn, "SELECT pg_advisory_lock(4711)")
        run(conn, "LISTEN news")
        run(conn, "SELECT set_config('role', current_user, false)")  # SET ROLE

    def traces(conn):
        return (
            run(conn, "SHOW application_name") == "somebody else",
            run(conn, "SELECT to_regclass('pg_temp.scratch')") is not None,
            run(conn, "SELECT count(*) FROM pg_prepared_statements") == 1,
            run(conn, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 1,
            run(conn, "SELECT count(*) FROM pg_listening_channels()") == 1,
            run(conn, "SHOW role") != "none",
        )

    for reset, left in [("discard", (False,) * 6), ("rollback", (True,) * 6)]:
        with ConnectionPool(dsn, reset=reset) as pool:
            with pool.connection() as conn:
                leave_traces(conn)
            with pool.connection() as conn:
                assert traces(conn) == left


@pytest.mark.promise(13)
def test_a_reset_function_does_as_it_likes_and_its_transaction_is_ended(dsn, observer):
    with ConnectionPool(dsn, reset=lambda conn: run(conn, "SET LOCAL work_mem = '1MB'")) as pool:
        with lent(pool) as conn:
            first = pid(conn)
        assert observer.backends() == {first: "idle"}


@pytest.mark.promise(12, 13)
def test_a_reset_function_that_raises_costs_the_connection_and_nothing_else(dsn, observer):
    with ConnectionPool(dsn, reset=lambda conn: run(conn, "SELECT 1/0")) as pool:
        with pool.connection() as conn:
            run(conn, "SELECT 1")
        assert repr(pool).endswith(": 0 of 1 in use, 0 idle, 0 pending, 0 waiting>")


@pytest.mark.promise(9)
def test_a_healthy_connection_costs_the_server_nothing_to_lend_and_return(dsn, observer):
    """The server counts a backend's statements: not one comes of a hundred checkouts."""
    with ConnectionPool(dsn) as pool:
        with pool.connection() as conn:
            run(conn, "SELECT 1")
        sql = "SELECT query, state_change FROM pg_stat_activity WHERE application_name = %s"
        before = observer.ask(sql, observer.name)
        for _ in range(100):
            pool.putconn(pool.getconn())
        assert observer.ask(sql, observer.name) == before


# -- fork ---------------------------------------------------------------------------------------

FORK = """
import json, os, sys, traceback
from poolkit import ConnectionPool, PoolError

def ask(conn):
    with conn.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]

pool = ConnectionPool(sys.argv[1], min_size=2, max_size=3, name="web")
held = pool.getconn()
parents = ask(held)
told = {"parent": parents}
reading, writing = os.pipe()
with pool.connection() as conn:
    other = ask(conn)
    if not os.fork():
        try:
            seen = {"repr": repr(pool)}
            try:
                pool.putconn(held)
            except PoolError as error:
                seen["return"] = str(error)
            with pool.connection() as mine:
                seen["own"] = ask(mine)
            grandchild = os.fork()
            if not grandchild:
                with pool.connection() as mine:
                    os._exit(3 if ask(mine) not in (seen["own"], parents, other) else 1)
            seen["grandchild"] = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])
            with pool.connection() as mine:
                seen["again"] = ask(mine)
            os.write(writing, json.dumps(seen).encode())
            pool.close()
        except BaseException:
            traceback.print_exc()
        del held, conn
        sys.exit()  # the block ends here, and so do all objects: nothing of the parent's may
    os.close(writing)
    told["child"] = json.loads(os.read(reading, 10000) or b"{}")
    os.wait()
    told["still"] = [ask(conn), ask(held)]
told["other"] = other
pool.putconn(held)
told["repr"] = repr(pool)
pool.close()
print(json.dumps(told))
"""


@pytest.mark.promise(19)
def test_after_a_fork_the_child_starts_empty_and_the_parents_sessions_live(dsn, observer):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK, dsn],
        cwd=Path(poolkit.__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    child = told["child"]
    assert told["still"] == [told["other"], told["parent"]]
    assert told["repr"] == "<ConnectionPool 'web': 0 of 3 in use, 2 idle, 0 pending, 0 waiting>"
    assert child["repr"] == "<ConnectionPool 'web': 0 of 3 in use, 0 idle, 0 pending, 0 waiting>"
    assert "it is not one of this pool's" in child["return"]
    assert child["own"] == child["again"] not in told["still"]
    assert child["grandchild"] == 3


# -- all at once --------------------------------------------------------------------------------


@pytest.mark.promise(3)
def test_the_server_never_sees_more_than_max_size_and_nothing_is_left(dsn, observer):
    pool = ConnectionPool(dsn, min_size=0, max_size=4, timeout=30)
    peak, over, used = [0], threading.Event(), Counter()
    gate = threading.Barrier(12)

    def watch():
        while not over.is_set():
            peak[0] = max(peak[0], len(observer.backends()))

    def client(i):
        gate.wait()
        for k in range(50):
            with lent(pool) as conn:
                used[run(conn, "SELECT pg_backend_pid()")] += 1
                # None is closed: the server counts, for a moment, one that is.
                (left_in_error, typed_commit, left_a_cursor_open)[k % 3](conn)

    watching = Client(watch)
    clients = [Client(client, i) for i in range(12)]
    for each in clients:
        each.result(30)
    over.set()
    watching.result()
    assert 1 <= peak[0] <= 4
    assert sum(used.values()) == 600 and pool.stats().in_use == 0
    until(lambda: not pool.stats().pending)
    assert pool.close() == []
    until(lambda: not observer.backends())
