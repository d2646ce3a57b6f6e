"""The behaviour table: poolkit is as it should be, and the experiments can tell who is not."""

import psutil
import psycopg2
import pytest
from fake import until
from psycopg2.extensions import parse_dsn

from bench import behaviour, peers
from bench.behaviour import EXPERIMENTS, NAME

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(scope="module")
def rows(server):
    return behaviour.table(server.dsn, server.admin_dsn)


@pytest.fixture(scope="module")
def found(rows):
    """The findings: found["stale"]["poolkit"]."""
    return {key: row.findings for key, row in zip(EXPERIMENTS, rows, strict=True)}


def ours(server):
    """What of the table's is on the server: its connections, by application_name."""
    conn = psycopg2.connect(server.admin_dsn or server.dsn, application_name="tests/observer")
    conn.autocommit = True
    with conn.cursor() as cursor:
        cursor.execute(
            "SELECT application_name FROM pg_stat_activity WHERE application_name ^@ %s", [NAME]
        )
        names = [name for (name,) in cursor.fetchall()]
    conn.close()
    return names


def processes():
    return [
        process.cmdline()
        for process in psutil.Process().children(recursive=True)
        if "bench.behaviour" in process.cmdline()
    ]


def test_every_experiment_comes_to_its_end_on_every_pool(rows):
    assert [row.behaviour for row in rows] == [each.title for each in EXPERIMENTS.values()]
    names = [peer.name for peer in peers.PEERS]
    for row in rows:
        assert list(row.findings) == names
        for pool, finding in row.findings.items():
            assert not finding.failed, f"{row.behaviour}, {pool}: {finding}"


def test_no_process_and_no_connection_is_left_of_it(rows, server):
    assert not processes()
    assert not ours(server)


PROMISES = {
    "stale": "0 of 8 fail",
    "ended_in_transaction": "its own error comes out, slot back",
    "typed_begin": "idle",
    "swallowed_error": "told: PoolError",
    "no_patience": "served",
    "interrupted": "whole",
    "exhausted": "counts, line, thread",
    "forked": "a backend of its own; the parent's lives",
    "churn": "4",
    "returned_twice": "told: PoolError",
    "returned_in_its_block": "told: PoolError",
    "returned_elsewhere": "told: PoolError",
}


@pytest.mark.parametrize("experiment", PROMISES)
def test_poolkit_keeps_what_it_promises(found, experiment):
    finding = found[experiment]["poolkit"]
    assert (finding.text, finding.good) == (PROMISES[experiment], True)


def test_poolkit_says_deadlock_within_50_ms_where_a_block_in_a_block_must_wait_for_ever(found):
    finding = found["nested"]["poolkit"]
    assert finding.text.startswith("PoolDeadlock after ") and finding.text.endswith(" ms")
    assert float(finding.text.split()[2]) < 50 and finding.good is True
    assert "check out once" in finding.detail


def test_poolkit_serves_all_when_it_pings_as_well(found):
    finding = found["stale_and_checked"]["poolkit"]
    assert finding.text.startswith("0 of 8 fail") and finding.good is True


PSYCOPG2, PSYCOPG3 = peers.Psycopg2Threaded.name, peers.PsycopgPool.name
SQLALCHEMY, DBUTILS = peers.SQLAlchemyQueuePool.name, peers.DBUtilsPooledDB.name

# Who is not as it should be: were an experiment blind, it would find nobody.
OTHERWISE = {
    "stale": {PSYCOPG2: "4 of 8 fail", PSYCOPG3: "4 of 8 fail", SQLALCHEMY: "4 of 8 fail"},
    "ended_in_transaction": {PSYCOPG2: "OperationalError hides it, slot lost"},
    "typed_begin": dict.fromkeys(
        (PSYCOPG2, SQLALCHEMY, DBUTILS), "idle in transaction, and the next client is in it"
    ),
    "swallowed_error": dict.fromkeys(
        (PSYCOPG2, PSYCOPG3, SQLALCHEMY, DBUTILS, "unpooled"),
        "silent, though the transaction was aborted",
    ),
    "no_patience": {PSYCOPG3: "refused: PoolTimeout"},
    "interrupted": {PSYCOPG3: "lost: idle on the server, and not lent"},
    "nested": {DBUTILS: "still waiting after 1 s"},
    "exhausted": {
        PSYCOPG2: "no counts, no line, no thread",
        PSYCOPG3: "no counts, no line, no thread",
        SQLALCHEMY: "counts",
        DBUTILS: "nothing: still waiting after 1 s",
    },
    "forked": dict.fromkeys(
        (PSYCOPG2, PSYCOPG3, SQLALCHEMY, DBUTILS), "the same backend; the parent's is dead"
    ),
    "churn": {PSYCOPG2: "76", "unpooled": "100"},
    "returned_late": dict.fromkeys(
        ("poolkit", PSYCOPG2, PSYCOPG3), "silent, two clients share a backend"
    ),
    "returned_in_its_block": dict.fromkeys(
        (PSYCOPG2, PSYCOPG3), "silent, two clients share a backend"
    ),
}


@pytest.mark.parametrize("experiment", OTHERWISE)
def test_the_experiments_can_tell_who_is_not_as_it_should_be(found, experiment):
    bad = {pool: each.text for pool, each in found[experiment].items() if each.good is False}
    assert OTHERWISE[experiment].items() <= bad.items()


def test_patience_is_what_a_nested_checkout_costs_where_nobody_sees_the_deadlock(found):
    for pool, error in [(PSYCOPG3, "PoolTimeout"), (SQLALCHEMY, "TimeoutError")]:
        finding = found["nested"][pool]
        said, _, ms, unit = finding.text.split()
        assert (said, unit, finding.good) == (error, "ms", False)
        assert float(ms) >= 400


def test_a_check_before_each_checkout_finds_what_the_server_ended_and_may_cost_seconds(found):
    for pool in (PSYCOPG3, SQLALCHEMY, DBUTILS):
        assert found["stale_and_checked"][pool].text.startswith("0 of 8 fail")
    slowest = found["stale_and_checked"][PSYCOPG3].text
    assert slowest.endswith(" s") and float(slowest.split()[-2]) > 1


def test_a_second_return_in_time_harms_nobody_and_foreign_returns_are_told_or_go_home(found):
    for experiment in ("returned_twice", "returned_elsewhere"):
        for pool, finding in found[experiment].items():
            assert finding.good is not False, f"{experiment}, {pool}: {finding}"
    assert found["returned_elsewhere"][PSYCOPG3].text == "told: ValueError"
    assert found["returned_elsewhere"][DBUTILS].text.startswith("goes home")


def test_the_table_can_be_read_on_a_terminal(rows):
    said = behaviour.text(rows)
    for row in rows:
        assert f"\n{row.behaviour}\n" in said
    assert "\n  + poolkit              served\n" in said
    assert "\n  - psycopg_pool         refused: PoolTimeout\n" in said
    assert "\n    psycopg2 Threaded    never waits\n" in said
    assert "psycopg2 Threaded: PoolError: connection pool exhausted" in said


def test_the_table_in_markdown_has_a_column_for_each_pool_and_the_errors_below(rows, server):
    said = behaviour.markdown(rows)
    table = [line for line in said.splitlines() if line.startswith("|")]
    assert len(table) == len(rows) + 2
    assert {line.count("|") for line in table} == {len(peers.PEERS) + 2}
    assert "| ✓ served | never waits | ✗ refused: PoolTimeout |" in said
    assert "* poolkit: `PoolTimeout: pool '" in said
    assert "; held by: front desk for 0.1 s at experiments.py:" in said and " in hold, " in said
    for dsn in (server.dsn, server.admin_dsn):
        password = parse_dsn(dsn or "").get("password")
        assert not password or password not in said


def address(server):
    return [server.dsn, server.dsn, f"{NAME} trial"]


def test_an_experiment_that_fails_says_so_and_hinders_no_other(server):
    jobs = [("poolkit", ["churn", "no_such_experiment", "no_patience"])]
    seen = behaviour._in_processes(jobs, address(server))
    assert [each.failed for each in seen.values()] == [False, True, False]
    failed = seen["poolkit", "no_such_experiment"]
    assert failed.text == "KeyError: 'no_such_experiment'"
    rows = [behaviour.Row(behaviour.exhausted.title, {"poolkit": failed})]
    assert "  ! poolkit" in behaviour.text(rows)
    assert "| the experiment failed: KeyError" in behaviour.markdown(rows)


def test_a_process_that_ends_early_or_never_costs_one_experiment_and_nothing_stays(
    server, monkeypatch
):
    early = behaviour._in_processes([("no such pool", ["churn", "stale"])], address(server))
    for finding in early.values():
        assert finding.failed and finding.text.startswith("ended with code 1: ValueError")
    monkeypatch.setattr(behaviour, "PATIENCE", 0.0)
    never = behaviour._in_processes([("poolkit", ["churn"])], address(server))
    [finding] = never.values()
    assert finding.failed and finding.text == "no answer within 0 s"
    assert not processes()
    until(lambda: not ours(server))
