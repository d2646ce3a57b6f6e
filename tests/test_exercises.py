"""Every exercise: its solution is right, a stub is no attempt, each wrong answer is told why."""

import json
import re
import signal
import threading
import time

import psycopg2
import pytest
from psycopg2.pool import SimpleConnectionPool

from classroom import exercises, flights
from classroom.cells import LessonError
from classroom.exercises.deadline import is_library
from classroom.exercises.judge import Judge, connect_beside
from classroom.exercises.task import Check, Exercise, Verdict
from poolkit import ConnectionPool

EXERCISES = exercises.find()
WRONG = [
    pytest.param(one, wrong, told, id=f"{one.name}-{wrong.__name__}")
    for one in EXERCISES
    for wrong, told in one.wrong
]
each_exercise = pytest.mark.parametrize("one", EXERCISES, ids=lambda one: one.name)


@pytest.fixture
def board(server, dsn):
    """The address of a server that has the departures board. Checks leave nothing open there."""
    flights.load(server.dsn)
    yield dsn
    assert open_at(dsn) == 0, "the check left connections open"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder of its own for progress.json. Returns the path."""
    monkeypatch.setenv("POOLKIT_HOME", str(tmp_path))
    return tmp_path


def open_at(dsn):
    label = psycopg2.extensions.parse_dsn(dsn)["application_name"]
    # Its own connection is not among those counted: it carries another name.
    conn = psycopg2.connect(dsn, application_name="tests/counting")
    sql = "select count(*) from pg_stat_activity where starts_with(application_name, %s)"
    deadline = time.monotonic() + 2
    try:
        conn.autocommit = True
        with conn.cursor() as cur:
            while True:  # what was closed a moment ago, the server lets go in its own time
                cur.execute(sql, (label,))
                [(left,)] = cur.fetchall()
                if not left or time.monotonic() > deadline:
                    return left
    finally:
        conn.close()


# -- the exercises themselves ----------------------------------------------------------------------


@pytest.mark.server
@each_exercise
def test_the_solution_is_correct(one, board):
    verdict = one.judge(one.solution, board)
    assert verdict.correct, verdict


@pytest.mark.server
@pytest.mark.parametrize("one, wrong, told", WRONG)
def test_a_wrong_answer_is_told_what_is_wrong_with_it(one, wrong, told, board):
    verdict = one.judge(wrong, board)
    assert verdict.outcome == "not yet", verdict
    assert told in verdict.reason


@each_exercise
def test_an_untouched_stub_is_not_an_attempt(one):
    def stub(pool, *more):
        """Do something."""
        ...

    for untouched in (stub, ...):
        assert one.judge(untouched, "no server is asked").outcome == "not attempted"


@each_exercise
def test_an_exercise_is_complete(one):
    assert re.fullmatch(r"\d\d\.[a-z_]+", one.name)
    assert one.solution.__module__ == f"classroom.exercises.nb{one.name[:2]}"
    assert one.task.endswith(".") and one.accept and 1 <= one.minutes <= 15
    assert len(one.hints) >= 2 and len(one.wrong) >= 3
    assert not [hint for hint in one.hints if hint[-1] not in ".?"]


def test_names_are_unique():
    names = [one.name for one in EXERCISES]
    assert len(set(names)) == len(names)


# -- what counts as no attempt ---------------------------------------------------------------------


def empty(): ...
def passed():
    pass


def documented():
    """Return something."""


def promised():
    raise NotImplementedError


def promised_later():
    raise NotImplementedError("write me")


def a_number():
    return 7


def a_text():
    return "seven"


def another_error():
    raise ValueError("seven")


def a_call():
    print()


@pytest.mark.parametrize("stub", [..., empty, passed, documented, promised, promised_later])
def test_an_empty_body_is_no_attempt(stub):
    assert trial(never).judge(stub, "").outcome == "not attempted"


@pytest.mark.server
@pytest.mark.parametrize("answer", [a_number, a_text, another_error, a_call])
def test_whatever_does_something_is_an_attempt(answer, board):
    assert trial(lambda judge, answer: None).judge(answer, board).correct


def test_a_result_in_place_of_the_function_is_explained():
    verdict = trial(never).judge("B6 725", "")
    assert verdict.outcome == "not yet" and "function itself" in verdict.reason


# -- answers that misbehave ------------------------------------------------------------------------


def never(judge, answer):
    raise AssertionError("this check must not run")


def trial(check, deadline=5.0):
    return Exercise("99.trial", 1, "Try.", ["it works"], ["Try."], empty, [], check, deadline)


def on_a_pool(judge, answer):
    pool = judge.pool(max_size=2)
    judge.call(answer, pool)
    judge.expect_only(pool)
    judge.expect_returned()


@pytest.mark.server
def test_an_exception_is_reported_with_its_line(board):
    def answer(pool):
        return pool.conection()

    verdict = trial(on_a_pool).judge(answer, board)
    line = answer.__code__.co_firstlineno + 1
    assert verdict.reason.startswith("your function raised AttributeError: ")
    assert verdict.reason.endswith(f", at test_exercises.py:{line} in answer")


@pytest.mark.server
@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()])
def test_leaving_python_is_a_mistake_like_any_other(error, board):
    def answer(pool):
        raise error

    assert type(error).__name__ in trial(on_a_pool).judge(answer, board).reason


@pytest.mark.server
def test_a_query_that_never_ends_is_ended_and_its_line_is_named(board):
    def answer(pool):
        with pool.connection() as conn, conn.cursor() as cur:
            cur.execute("select pg_sleep(600)")

    verdict = trial(on_a_pool, deadline=0.3).judge(answer, board)
    line = answer.__code__.co_firstlineno + 2
    assert verdict.outcome == "not yet"
    assert verdict.reason == (
        f"still busy after 0.3 s, at test_exercises.py:{line} in answer; it was stopped"
    )


@pytest.mark.server
def test_a_wait_for_a_lock_on_a_connection_of_its_own_is_ended(board):
    def answer(pool):
        beside = connect_beside(pool)
        with pool.connection() as conn, conn.cursor() as cur, beside.cursor() as other:
            other.execute("update board.boarding set passengers = passengers")
            cur.execute("update board.boarding set passengers = passengers")

    verdict = trial(on_a_pool, deadline=0.3).judge(answer, board)
    assert "still busy" in verdict.reason and "it was stopped" in verdict.reason


def forever(pool):
    while True:
        pass


def forever_and_deaf(pool):
    while True:
        try:
            pool.stats()
        except Exception:
            pass


def forever_in_a_thread(pool):
    thread = threading.Thread(target=forever, args=(pool,), daemon=True)
    thread.start()
    thread.join()


@pytest.mark.server
@pytest.mark.parametrize("answer", [forever, forever_and_deaf, forever_in_a_thread])
def test_an_endless_loop_is_stopped(answer, board):
    before = threading.active_count()
    verdict = trial(on_a_pool, deadline=0.2).judge(answer, board)
    assert f"in {answer.__name__}; it was stopped" in verdict.reason
    assert threading.active_count() == before


@pytest.mark.server
def test_what_cannot_be_stopped_is_said(board, monkeypatch):
    monkeypatch.setattr("classroom.exercises.deadline.PATIENCE", 0.1)
    asleep = threading.Event()

    def answer(pool):
        asleep.wait(30)  # in one call, into which nothing can break

    before = set(threading.enumerate())
    verdict = trial(on_a_pool, deadline=0.1).judge(answer, board)
    assert "it won't stop: mend it, restart the kernel" in verdict.reason
    asleep.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)


@pytest.mark.server
def test_an_interrupted_check_leaves_nothing_running(board):
    def answer(pool):
        with pool.connection() as conn, conn.cursor() as cur:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # as Ctrl-C does
            cur.execute("select pg_sleep(600)")

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        trial(on_a_pool).judge(answer, board)
    assert threading.active_count() == before


@pytest.mark.server
def test_one_that_leaks_until_nothing_is_left_is_told_where(board):
    def answer(pool):
        return pool.getconn()

    def check(judge, answer):
        pool = judge.pool(max_size=2, timeout=0.1)
        for _ in range(3):
            judge.call(answer, pool)

    line = answer.__code__.co_firstlineno + 1
    assert trial(check).judge(answer, board).reason == (
        "the pool has none left: 2 connections checked out at "
        f"test_exercises.py:{line} in answer never came back"
    )


@pytest.mark.server
def test_a_pool_that_nobody_asked_is_noticed(board):
    verdict = trial(on_a_pool).judge(lambda pool: 7, board)
    assert verdict.reason == "the pool that the function is given was never used"


@pytest.mark.server
@pytest.mark.parametrize("how", ["connect", "a pool", "a thread"])
def test_a_connection_beside_the_pool_is_noticed_even_if_it_is_closed(how, board):
    def connect(pool):
        connect_beside(pool).close()

    def answer(pool):
        with pool.connection():
            pass
        if how == "connect":
            connect(pool)
        elif how == "a pool":
            ConnectionPool(pool._driver.dsn).close()
        else:
            thread = threading.Thread(target=connect, args=(pool,))
            thread.start()
            thread.join()

    assert "beside the pool" in trial(on_a_pool).judge(answer, board).reason


@pytest.mark.server
def test_a_check_that_fails_itself_blames_nobody(board):
    def check(judge, answer):
        judge.rows("select 1 from board.nowhere")

    verdict = trial(check).judge(a_number, board)
    assert verdict.outcome == "not checked" and "the check itself failed" in verdict.reason


@pytest.mark.server
def test_a_server_that_is_full_is_not_the_answers_fault(server):
    if not server.admin_dsn:
        pytest.skip("needs a superuser's address: make test without POOLKIT_DSN")
    admin = psycopg2.connect(server.admin_dsn)
    admin.autocommit = True
    with admin.cursor() as cur:
        cur.execute("create role one_seat login password 'seat' connection limit 1")
    try:
        dsn = psycopg2.extensions.make_dsn(server.dsn, user="one_seat", password="seat")
        verdict = trial(on_a_pool).judge(a_number, dsn)
        assert verdict.outcome == "not checked" and "too many connections" in verdict.reason
        assert verdict.reason.endswith(
            "try: close the pools of earlier cells, or run start() again"
        )
    finally:
        with admin.cursor() as cur:
            cur.execute("drop role one_seat")
        admin.close()


def test_without_a_server_nothing_is_judged():
    verdict = trial(never).judge(a_number, "host=127.0.0.1 port=1 password=secret")
    assert verdict.outcome == "not checked" and "secret" not in repr(verdict)


# -- what the judge sees ---------------------------------------------------------------------------


@pytest.fixture
def judge(board):
    judge = Judge(board)
    with judge.watching():
        yield judge
    judge.close()


@pytest.mark.server
def test_the_judge_counts_what_is_checked_out_at_once(judge):
    pool = judge.pool(max_size=3)
    with pool.connection(), pool.connection():
        assert (judge.peak(), len(judge.leaked()), judge.until(2)) == (2, 2, 2)
    with pool.connection():
        pass
    assert (judge.peak(), judge.leaked(), judge.opened(pool)) == (2, [], 2)
    assert judge.summary() == "3 checkouts, all returned, at most 2 at once"


@pytest.mark.server
@pytest.mark.parametrize("kind", ["pool", "psycopg2_pool"])
def test_the_judge_sees_in_what_state_a_connection_comes_back(judge, kind):
    pool = getattr(judge, kind)()
    for statement in ("select 1", "select 1/0"):
        conn = pool.getconn()
        try:
            with conn.cursor() as cur:
                cur.execute(statement)
        except psycopg2.Error:
            pass
        pool.putconn(conn)
    assert judge.unclean == ["in a transaction", "in a failed transaction"]


def a_pool_of_psycopg2s(dsn):
    return SimpleConnectionPool(1, 2, dsn)


def a_pool_of_poolkits(dsn):
    return ConnectionPool(dsn, max_size=2)


@pytest.mark.server
@pytest.mark.parametrize("answer", [a_pool_of_psycopg2s, a_pool_of_poolkits])
def test_the_judge_watches_a_pool_that_the_answer_has_made(answer, board):
    def check(judge, answer):
        pool = judge.watch(judge.call(answer, judge.dsn).result)
        pool.getconn()
        seen.extend([len(judge.own), len(judge.leaked(pool)), judge.until(1)])

    seen = []
    assert trial(check).judge(answer, board).correct
    assert seen == [1, 1, 1]


@pytest.mark.server
@pytest.mark.parametrize("kind", ["pool", "psycopg2_pool"])
def test_a_connection_can_die_in_the_hands_of_its_client(judge, kind):
    pool = getattr(judge, kind)()
    judge.kill_next(pool)
    conn = pool.getconn()
    with pytest.raises(psycopg2.OperationalError), conn.cursor() as cur:
        cur.execute("select 1")
    pool.putconn(conn)
    conn = pool.getconn()
    with conn.cursor() as cur:
        cur.execute("select 1")
    pool.putconn(conn)


@pytest.mark.server
def test_all_backends_of_a_pool_can_end(judge):
    pool = judge.pool(min_size=2, max_size=2)
    other = judge.pool()
    judge.kill_all(pool)
    assert [backend.name for backend in judge.backends()] == [judge.app_name]
    with pool.connection() as conn, conn.cursor() as cur:
        cur.execute("select 1")
    assert other.stats().idle == 1


@pytest.mark.server
def test_the_first_of_two_threads_waits_for_the_second(judge):
    pool = judge.pool(max_size=2, meet=2)

    def client():
        with pool.connection():
            pass

    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert judge.peak() == 2 and len(judge.clients()) == 2


def test_machinery_is_told_apart_from_answers():
    assert is_library(threading.__file__) and is_library(psycopg2.__file__)
    assert is_library(exercises.__file__)
    assert not is_library(__file__)
    assert not is_library(
        exercises.exercise("03.many_threads").exercise.solution.__code__.co_filename
    )
    assert is_library("<string>") and is_library("<frozen posixpath>")
    assert not is_library("/tmp/ipykernel_17/1234.py") and not is_library("<ipython-input-1-ab>")


# -- what the learner sees -------------------------------------------------------------------------


class Lab:
    def __init__(self, dsn):
        self.dsn = dsn


@pytest.fixture
def check(board, home):
    return Check(trial(lambda judge, answer: judge.expect(answer() == 7, "not seven")), Lab(board))


@pytest.mark.server
def test_a_verdict_is_printed_and_returned(check, capsys):
    verdict = check(a_text)
    assert repr(verdict) == "not yet: not seven"
    assert capsys.readouterr().out.splitlines() == [
        "not yet: not seven",
        "`check.hint()` helps; `check.solution()` shows one after 2 more tries",
    ]
    assert check(a_number).correct
    assert capsys.readouterr().out.startswith("correct: ")
    assert check().outcome == check(empty).outcome == "not attempted"


@pytest.mark.server
def test_the_solution_is_shown_after_three_tries(check, capsys):
    for left in ("3 more tries", "2 more tries", "one more try"):
        check.solution()
        assert f"after {left}" in capsys.readouterr().out
        check(empty)  # no attempt, no try
        check(a_text)
        capsys.readouterr()
    check.solution()
    assert "def empty()" in capsys.readouterr().out


@pytest.mark.server
def test_the_solution_is_shown_to_whoever_has_one(check, capsys):
    check(a_number)
    check.solution()
    assert "def empty()" in capsys.readouterr().out


def test_hints_are_counted(home, capsys):
    check = exercises.exercise("04.return_it", Lab(""))
    check.hint()
    check.hint(2)
    check.hint(9)
    first, second, none = capsys.readouterr().out.splitlines()
    assert first.startswith("Hint 1 of 3: ") and second.startswith("Hint 2 of 3: ")
    assert none == "there are 3 hints: check.hint() … check.hint(3)"


def test_an_exercise_tells_its_task():
    text = repr(exercises.exercise("04.return_it"))
    assert text.startswith("exercise 04.return_it (5 minutes): Write `answer(pool, flight_id)`")
    assert text.count("\n  - ") == 3


@pytest.mark.parametrize("name", ["04.retrun_it", "99.nothing", "04", 4])
def test_an_unknown_name_says_which_there_are(name):
    with pytest.raises(LessonError, match=f"no exercise {name!r}; .*04.return_it"):
        exercises.exercise(name)


def test_a_block_on_a_page_says_in_words_what_its_colour_says(monkeypatch):
    shown = []
    monkeypatch.setattr(
        "classroom.exercises.task.display_or_print", lambda *args, **kind: shown.append(args)
    )
    Verdict("99.trial", "not yet", "a <b> & `c`", "more").show()
    rich, plain = shown[0]
    assert 'role="status"' in rich and "Not yet:" in rich
    assert "a &lt;b&gt; &amp; <code>c</code>" in rich
    assert plain == "not yet: a <b> & `c`\nmore"


# -- progress --------------------------------------------------------------------------------------


def test_progress_outlives_the_kernel(home):
    assert exercises.score("04") == "0 of 3 exercises solved"
    exercises.tries.record("04.return_it", False)
    exercises.tries.record("04.return_it", True)
    kept = json.loads((home / "progress.json").read_text())
    assert kept == {"04.return_it": {"tries": 2, "solved": True}}
    assert exercises.score("04") == "1 of 3 exercises solved"
    table = exercises.progress().set_index("exercise")
    assert table.loc["04.return_it"].to_dict() == {"solved": "yes", "tries": 2, "minutes": 5}
    assert table.loc["04.generator", "solved"] == "no"


def test_a_notebook_without_exercises_has_no_score():
    assert exercises.score("99") == ""


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"04.return_it": 7}', "\udcff", "{}" * 2])
def test_a_broken_progress_file_counts_as_none(home, text):
    (home / "progress.json").write_bytes(text.encode(errors="surrogateescape"))
    assert exercises.score("04") == "0 of 3 exercises solved"
    exercises.tries.record("04.return_it", True)
    assert exercises.score("04") == "1 of 3 exercises solved"


def test_without_a_place_to_write_this_kernel_remembers(tmp_path, monkeypatch):
    nowhere = tmp_path / "a file"
    nowhere.touch()
    monkeypatch.setenv("POOLKIT_HOME", str(nowhere))
    exercises.tries.record("04.return_it", True)
    assert exercises.score("04") == "1 of 3 exercises solved"
    monkeypatch.setattr(exercises.tries, "_unsaved", {})
