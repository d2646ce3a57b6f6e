"""What a lesson's cells may rely on: start, the lab, finish, expect and show."""

import json
import sys
import threading
from contextlib import closing

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from classroom import lesson, show, start
from classroom.cells import LessonError, NothingRaised, expect, one_line, without_password
from classroom.observer import Dsn, kernel
from classroom.servers import Server, postgres
from poolkit.pool import ConnectionPool


@pytest.fixture
def lab(server, capsys):
    lab = start("04")
    capsys.readouterr()
    yield lab
    lab.finish()


def connect(dsn):
    return closing(psycopg2.connect(dsn))


# expect


def test_an_expected_failure_is_printed_on_one_line_and_kept(capsys):
    with expect(ValueError, KeyError) as failure:
        raise ValueError("first line\n\n  second   line\n")
    assert capsys.readouterr().out == "ValueError: first line; second line\n"
    assert isinstance(failure.error, ValueError)
    assert failure.error.__traceback__ is None


def test_a_failure_that_does_not_come_is_a_failure():
    with pytest.raises(NothingRaised, match="expected ValueError or KeyError, but nothing went"):
        with expect(ValueError, KeyError):
            pass
    assert issubclass(NothingRaised, AssertionError)


def test_a_failure_that_was_not_expected_passes_through():
    with pytest.raises(ZeroDivisionError), expect(ValueError):
        raise ZeroDivisionError


@pytest.mark.parametrize("wrong", [(), ("ValueError",), (ValueError("x"),)])
def test_expect_takes_exception_classes_only(wrong):
    with pytest.raises(TypeError, match="expect\\(\\) takes the exception classes to expect, got"):
        expect(*wrong)


def test_what_psycopg2_says_on_several_lines_is_told_on_one():
    with pytest.raises(psycopg2.OperationalError) as caught:
        psycopg2.connect("host=127.0.0.1 port=1 dbname=x user=x")
    assert "\n" in str(caught.value)
    assert "\n" not in one_line(caught.value)
    assert "Connection refused" in one_line(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "host=h password=s3cret dbname=d",
        "host=h password = 's3cret tail\\' end' dbname=d",
        "postgresql://ada:s3cret@h:5432/d",
        "postgresql://ada:s3c@ret@h:5432/d",
    ],
)
def test_no_password_is_ever_shown(text):
    shown = without_password(text)
    assert "s3c" not in shown and "ret" not in shown and "tail" not in shown
    assert "***" in shown and shown.endswith("d")
    assert repr(Dsn(text)) == repr(shown)


# show


def greet(name):
    """Say hello."""
    return f"hello {name}"


class Greeter:
    def greet(self):
        return "hello"


def test_show_prints_the_source_and_where_it_can_be_read(capsys):
    show(greet, Greeter.greet)
    out = capsys.readouterr().out
    assert "# tests/test_lesson.py, line " in out
    assert 'def greet(name):\n    """Say hello."""\n    return f"hello {name}"' in out
    assert '\ndef greet(self):\n    return "hello"' in out  # a method moves to the left


@pytest.mark.parametrize("sourceless", [len, 3])
def test_show_says_on_one_line_what_has_no_source(sourceless):
    with pytest.raises(LessonError, match="its source cannot be read"):
        show(sourceless)


# start


@pytest.mark.parametrize("wrong", ["4", "leaks", "04_leaks", 4, None, "٠٤"])
def test_start_takes_two_digits(wrong):
    with pytest.raises(LessonError, match="two digits"):
        start(wrong)


def test_no_server_is_one_line_without_the_password(monkeypatch):
    monkeypatch.setenv("POOLKIT_DSN", "host=127.0.0.1 port=1 user=ada password=s3cret dbname=d")
    with pytest.raises(LessonError) as caught:
        start("04")
    assert "127.0.0.1:1" in str(caught.value)
    assert "\n" not in str(caught.value) and "s3cret" not in str(caught.value)


@pytest.mark.lesson
def test_a_lesson_that_cannot_start_stops_the_notebook_with_one_line():
    # Imported here, as it takes a second, and `make fast` loads this file too.
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell("from classroom import start; start('4')")]
    with pytest.raises(CellExecutionError) as caught:
        NotebookClient(book, kernel_name="python3").execute()
    assert caught.value.ename == "LessonError"
    (output,) = book.cells[0].outputs
    assert len(output.traceback) == 1 and "\n" not in output.traceback[0]
    assert output.traceback[0].startswith(
        "LessonError: start() takes the two digits of the notebook"
    )


@pytest.mark.server
def test_start_says_on_one_line_which_server_this_is(server, capsys):
    lab = start("04")
    out = capsys.readouterr().out
    assert lesson.current is lab
    assert out == f"{lab!r}\n" == f"notebook 04: {server.label}\n"
    for password in {parse_dsn(server.dsn).get("password")} - {None}:
        assert password not in repr(lab) + repr(lab.dsn) + repr(lab.server)
    lab.finish()


@pytest.mark.server
def test_start_ends_what_the_last_run_left_and_says_so(lab, capsys):
    pool = ConnectionPool(lab.dsn_for("web"), min_size=2, max_size=2, name="web")
    pool.getconn()
    with connect(lab.dsn):
        assert lab.until(3) == 3
        lab = start("04")
        assert lab.count() == 0
    assert pool.closed
    left = "left by the last run: 1 pool, closed now; 2 connections, ended now"
    assert capsys.readouterr().out == f"{lab!r}; {left}\n"


@pytest.mark.server
def test_only_this_kernels_connections_are_touched(lab, server):
    others = [
        f"poolkit/04/{'x' * 8}/web",  # another kernel
        f"poolkit/05/{kernel()}",  # another notebook
        f"poolkit/04/{kernel()}x",  # a longer name
    ]
    kept = [psycopg2.connect(make_dsn(server.dsn, application_name=name)) for name in others]
    assert lab.count() == 0
    start("04").finish()
    for conn in kept:
        with closing(conn), conn.cursor() as cur:
            cur.execute("select 1")


@pytest.mark.server
@pytest.mark.parametrize("name", ["web", "it's a “name” / with = all", "long" * 30, ""])
def test_a_name_arrives_at_the_server_as_it_was_sent(lab, name, monkeypatch):
    monkeypatch.setenv("PGAPPNAME", "somebody else")
    with connect(lab.dsn_for(name)) as conn, conn.cursor() as cur:
        cur.execute("show application_name")
        assert cur.fetchone()[0] == lab.app_name(name)
        assert len(lab.app_name(name).encode()) <= 63
        assert lab.count() == lab.count(name) == 1
    assert lab.until(0) == 0


# the server's view


@pytest.mark.server
def test_backends_are_this_kernels_connections_as_the_server_sees_them(lab):
    table = lab.backends()
    assert list(table) == ["pid", "name", "state", "waiting_on", "open_s", "query"]
    assert table.empty
    with connect(lab.dsn) as first, connect(lab.dsn_for("web")) as second:
        second.cursor().execute(f"select  1,\n  '{'x' * 80}'")
        table = lab.backends()
        assert list(table["pid"]) == [first.info.backend_pid, second.info.backend_pid]
        assert list(table["name"]) == ["", "web"]
        assert list(table["state"]) == ["idle", "idle in transaction"]
        assert list(table["query"].str.len()) == [0, 60]
        assert table["query"][1].startswith("select 1, 'xxx")
        assert (table["open_s"] >= 0).all()
        assert (lab.count(), lab.count("web"), lab.count("db")) == (2, 1, 0)
    assert lab.until(0) == 0


@pytest.mark.server
def test_until_gives_up_in_time_and_says_what_there_is(lab):
    with connect(lab.dsn):
        assert lab.until(0, timeout=0.05) == 1
        assert lab.until(1, timeout=0) == 1


@pytest.mark.server
def test_query_returns_a_table_and_takes_what_came_out_of_one(lab):
    with connect(lab.dsn_for("web")):
        pid = lab.backends()["pid"][0]  # numpy's integer
        assert lab.query("select %s + 1 as next", [pid])["next"][0] == pid + 1
        assert lab.query("select %(a)s as a, '%%' as b", {"a": pid}).shape == (1, 2)
    assert lab.query("set statement_timeout = 0").empty
    with pytest.raises(psycopg2.errors.DivisionByZero):
        lab.query("select 1/0")


@pytest.mark.server
def test_lab_may_be_asked_by_several_threads_at_once(lab):
    counts = []
    threads = [
        threading.Thread(target=lambda: counts.extend(lab.count() for _ in range(20)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [0] * 80


@pytest.mark.server
def test_terminate_ends_a_connection_of_ours_and_no_other(lab, dsn):
    with connect(lab.dsn) as ours, connect(dsn) as another:
        assert lab.terminate(lab.backends()["pid"][0]) is True
        assert lab.count() == 0
        with pytest.raises(psycopg2.OperationalError):
            ours.cursor().execute("select 1")
        with pytest.raises(LessonError, match="not a connection of this notebook"):
            lab.terminate(another.info.backend_pid)
        another.cursor().execute("select 1")


@pytest.mark.server
def test_labs_own_connection_comes_back_after_it_was_ended(lab, server):
    own = lab.query("select pg_backend_pid() as pid")["pid"][0]
    with connect(server.admin_dsn or server.dsn) as conn, conn.cursor() as cur:
        cur.execute("select pg_terminate_backend(%s, 2000)", (int(own),))
    assert lab.query("select pg_backend_pid() as pid")["pid"][0] != own


@pytest.mark.server
def test_lab_gets_in_when_every_slot_of_the_server_is_taken(lab, server, capsys):
    if server.admin_dsn is None:
        pytest.skip("needs a superuser's address: only the course's own servers have one")
    lab.disconnect()
    taken = []
    try:
        with expect(psycopg2.OperationalError) as failure:
            while len(taken) < 2000:
                taken.append(psycopg2.connect(lab.dsn_for("web")))
        assert "slots are reserved" in str(failure.error)
        assert lab.count("web") == len(taken)
        assert lab.budget - lab.count() <= 0
        start("04").finish()
    finally:
        for conn in taken:
            conn.close()
    assert f"{len(taken)} connections, ended now" in capsys.readouterr().out


# the budget


@pytest.fixture
def seat(server):
    """A role with room for four connections, as the server of a workshop."""
    if server.admin_dsn is None:
        pytest.skip("needs a superuser's address: only the course's own servers have one")
    with connect(server.admin_dsn) as admin, admin.cursor() as cur:
        admin.autocommit = True
        cur.execute("drop role if exists seat")
        cur.execute("create role seat login password 'seat' connection limit 4")
        dsn = make_dsn(server.dsn, user="seat", password="seat")
        yield Server("address", dsn, None, server.version, "a seat")
        cur.execute("drop role seat")


@pytest.mark.server
def test_the_budget_of_a_seat_is_its_role_s_limit_less_what_others_use(seat):
    lab = lesson.Lab(seat, "04")
    assert lab.budget == 3  # lab's own connection is the fourth
    with connect(lab.dsn):
        assert lab.budget == 3  # of which one is in use
    with connect(seat.dsn):
        assert lab.until(0) == 0
        assert lab.budget == 2
    lab.disconnect()


@pytest.mark.server
def test_the_budget_is_never_more_than_the_server_has(lab):
    limit = int(lab.query("show max_connections").iat[0, 0])
    assert 0 < lab.budget < limit


# somebody else's measurements


@pytest.mark.server
def test_the_server_says_where_the_milliseconds_of_a_connect_go(lab, server, capsys):
    table = lab.setup_durations(5)
    if server.log is None:
        assert table is None
        assert capsys.readouterr().out.startswith("no set-up times: ")
        return
    assert list(table) == ["client_ms", "total_ms", "fork_ms", "authentication_ms"]
    assert len(table) == 5 and (table > 0).all(axis=None)
    assert (table["fork_ms"] + table["authentication_ms"] < table["total_ms"]).all()
    assert lab.until(0) == 0


@pytest.mark.server
def test_a_seat_is_told_in_one_line_why_it_has_no_set_up_times(seat, capsys):
    lab = lesson.Lab(seat, "04")
    assert lab.setup_durations() is None
    assert capsys.readouterr().out == "no set-up times: a seat does not let us read its log\n"
    lab.disconnect()


@pytest.mark.server
def test_pgbench_measures_the_same_effect(lab):
    table = lab.pgbench()
    assert list(table) == ["connections", "per_s", "ms", "times"]
    assert list(table["connections"]) == ["kept", "new each time"]
    assert table["times"][0] == 1 < table["times"][1]
    assert lab.until(0) == 0


@pytest.mark.server
def test_without_pgbench_one_line_says_so(lab, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(postgres, "bin_dir", lambda: tmp_path)
    assert lab.pgbench() is None
    out = capsys.readouterr().out
    assert out.startswith("no pgbench: ") and out.count("\n") == 1


# finish


@pytest.mark.server
def test_finish_says_that_nothing_is_left_and_where_to_go_next(lab, capsys, monkeypatch, tmp_path):
    (tmp_path / "notebooks").mkdir()
    cells = [{"cell_type": "markdown", "source": ["# Raise, wait or starve?\n", "text"]}]
    for name in "04_leaks", "05_exhaustion", "11_timing":
        (tmp_path / f"notebooks/{name}.ipynb").write_text(json.dumps({"cells": cells}))
    monkeypatch.setattr(lesson, "ROOT", tmp_path)
    monkeypatch.delitem(sys.modules, "classroom.exercises", raising=False)
    lab.finish()
    assert capsys.readouterr().out == (
        "finish: nothing left open\nNext: notebooks/05_exhaustion.ipynb\n"
    )
    assert lesson._title(tmp_path / "notebooks/05_exhaustion.ipynb") == "Raise, wait or starve?"
    assert lesson._title(tmp_path / "notebooks/06_build_a_pool.ipynb") == "06 build a pool"


@pytest.mark.server
def test_finish_tells_who_has_tried_an_exercise_how_many_are_solved(lab, capsys):
    from classroom import exercises

    lab.finish()
    score = exercises.score("04")
    assert score and f"\nfinish: {score}\n" in capsys.readouterr().out


@pytest.mark.server
def test_finish_names_what_was_open_and_ends_it(lab, capsys):
    pool = ConnectionPool(lab.dsn_for("web"), min_size=2, max_size=2, name="web")
    pool.getconn().cursor().execute("select 1")
    with connect(lab.dsn):
        lab.finish()
        out = capsys.readouterr().out.splitlines()
        assert out[0].startswith("finish: pool 'web' still has 1 connection out: MainThread for ")
        assert out[0].endswith("test_finish_names_what_was_open_and_ends_it")
        assert out[1] == (
            "finish: 2 connections were still open "
            "(web: 1, idle in transaction; no name: 1, idle); ended them now"
        )
        assert pool.closed and lab.count() == 0
        lab.finish()
        assert capsys.readouterr().out.startswith("finish: nothing left open\n")


@pytest.mark.server
def test_after_finish_not_even_labs_own_connection_is_left(lab, dsn):
    lab.count()
    lab.finish()
    gone = "select count(*) = 0 from pg_stat_activity where starts_with(application_name, %s)"
    with connect(dsn) as conn, conn.cursor() as cur:
        conn.autocommit = True
        for _ in range(1000):
            cur.execute(gone, (lab.prefix,))
            if (empty := cur.fetchone()[0]) is True:
                break
        assert empty
