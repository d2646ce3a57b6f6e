"""The benchmark: every pool really works behind the one interface, and the report is computed.

Nothing here asserts how fast anything is.
"""

import platform
import re

import psycopg2
import pytest
from fake import until
from psycopg2.extensions import parse_dsn

import poolkit
from bench import __main__ as bench
from bench import checkout, load, peers, report, spike, verdict
from bench.behaviour import Finding, Row
from bench.rounds import FULL, QUICK, Figure, in_turns, quartiles
from bench.verdict import US

EVERYBODY = [*peers.PEERS, peers.Psycopg2Retry, peers.PsycopgPoolChecked]
named = pytest.mark.parametrize("peer", EVERYBODY, ids=lambda peer: peer.name)


# Peers, on a real server


@pytest.fixture
def backends(dsn):
    """A function that returns the state of each of the test's backends, as the server sees it."""
    name = parse_dsn(dsn)["application_name"]
    conn = psycopg2.connect(dsn, application_name="tests/observer")
    conn.autocommit = True

    def ask():
        with conn.cursor() as cursor:
            sql = "SELECT state FROM pg_stat_activity WHERE application_name = %s"
            cursor.execute(sql, (name,))
            return [state for (state,) in cursor]

    yield ask
    until(lambda: not ask())
    conn.close()


@pytest.mark.server
@named
def test_a_peer_opens_min_size_and_tells_of_each_connect_before_it_is_made(peer, dsn, backends):
    seen = []
    with peer.open(dsn, 2, 4, before_connect=lambda: seen.append(len(backends()))) as pool:
        assert len(seen) == 2 * peer.limited
        assert all(n <= earlier for earlier, n in enumerate(seen))  # some connect in parallel
        assert len(backends()) == len(seen)
        conns = [pool.getconn() for _ in range(3)]
        assert len(seen) == len(backends()) == 3
        for conn in conns:
            pool.putconn(conn)


WAITING = [peer for peer in EVERYBODY if peer is not peers.Psycopg2Threaded]


@pytest.mark.server
@pytest.mark.parametrize("peer", WAITING, ids=lambda peer: peer.name)
def test_a_peer_serves_four_clients_with_two_connections_and_gets_them_back(peer, dsn, backends):
    most = 0
    with peer.open(dsn, 2, 2) as pool:

        class Watched:
            name = pool.name
            putconn = pool.putconn

            def getconn(self):
                nonlocal most
                conn = pool.getconn()
                most = max(most, len(backends()))
                return conn

        run = load.drive(Watched(), "select 1", 0.05, clients=4)
        assert {request.client for request in run.served} == {f"client-{n}" for n in (1, 2, 3, 4)}
        assert len(run.served) == len(run.requests)
        assert most == 2 if peer.limited else 2 <= most <= 4
        until(lambda: backends() == ["idle", "idle"] * peer.limited)
    until(lambda: not backends())


@pytest.mark.server
@named
def test_the_pair_of_functions_that_is_timed_is_a_checkout_and_its_return(peer, dsn, backends):
    with peer.open(dsn, 1, 1) as pool:
        getconn, putconn = pool.native

        def twice(_):
            for _ in range(2):
                conn = getconn()
                load.request(conn, "select 1")
                driver = type(peer.driver_connection(conn)).__module__.partition(".")[0]
                assert driver == {"psycopg2": "psycopg2", "psycopg 3": "psycopg"}[peer.driver]
                putconn(conn)
            return "done"

        # In a thread: some pool would wait for ever for a connection that had not come back.
        [outcome] = poolkit.together(twice, 1, timeout=5)
        assert outcome.result == "done", outcome.error
        until(lambda: len(backends()) == peer.limited)


@pytest.mark.server
def test_a_pool_that_cannot_wait_says_no_and_its_clients_ask_again_until_their_time_is_up(dsn):
    with peers.Psycopg2Threaded.open(dsn, 1, 1) as pool:
        pool.getconn()
        with pytest.raises(psycopg2.pool.PoolError, match="exhausted"):
            pool.getconn()
    with peers.Psycopg2Retry.open(dsn, 1, 1, timeout=0.02) as pool:
        pool.getconn()
        with pytest.raises(psycopg2.pool.PoolError, match="exhausted"):
            pool.getconn()


@pytest.mark.server
def test_the_quick_form_measures_every_pool_and_names_nobody(server, capsys, monkeypatch):
    monkeypatch.setenv("POOLKIT_DSN", server.dsn)  # another one's server is not ours to let go
    assert bench.main(["--quick"]) == 0
    out = capsys.readouterr().out
    tables = dict(re.findall(r"^([^\n]+)\n=+\n\n(.*?)(?=\n\n[^\n]+\n===|\Z)", out, re.M | re.S))
    names = {
        checkout.SECTION: checkout.PEERS,
        "16 clients, 4 connections, select 1": (*load.WAITING, peers.Unpooled),
        "16 clients, 4 connections, 5 ms query": (*load.WAITING, peers.Unpooled),
        "A spike": spike.PEERS,
    }
    for section, expected in names.items():
        for peer in expected:
            assert re.search(rf"^{re.escape(peer.name)}  +[\d,.]+", tables[section], re.M)
    asked = re.findall(r"[<>]= [\d.]+ *(met|NOT MET|)$", tables["What is asked of poolkit"], re.M)
    assert len(asked) == 10
    given = parse_dsn(server.dsn)
    private = [platform.node(), str(bench.ROOT), given["port"], given["user"], given["password"]]
    assert not [word for word in private if re.search(rf"\b{re.escape(word)}\b", out)]


def test_a_quick_run_is_not_written_down(capsys):
    with pytest.raises(SystemExit):
        bench.main(["--quick", "--write"])
    assert "measures too little" in capsys.readouterr().err


def test_without_a_server_there_is_one_line_and_no_figure(capsys, monkeypatch):
    monkeypatch.setenv("POOLKIT_DSN", "nonsense")
    assert bench.main(["--quick"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("poolkit: POOLKIT_DSN is not an address")
    assert err.count("\n") == 1


# What the figures say: made-up ones, in which poolkit is ahead by ten per cent in everything


def figures(**changed):
    """Figures as a run makes them. `changed`: what to replace, by the name of its constant, pool
    for pool, as {pool: [value of each round]}."""
    others = {
        "CALLS": (checkout.SECTION, checkout.CALLS, "us", False, checkout.PEERS),
        "BLOCK": (
            checkout.SECTION,
            checkout.BLOCK,
            "us",
            False,
            [peers.Poolkit, peers.PsycopgPool],
        ),
        "TIME": (spike.SECTION, spike.TIME, "ms", False, spike.PEERS),
        "CONNECTS": (spike.SECTION, spike.CONNECTS, "", False, spike.PEERS),
    }
    for section, tag in zip(load.QUERIES, ("FAST", "SLOW"), strict=True):
        for name, unit, more, _ in load.MEASURES:
            key = f"{tag}_{name.replace(' ', '_').upper()}"
            others[key] = (section, name, unit, more, (*load.WAITING, peers.Unpooled))
    made = []
    for key, (section, name, unit, more, of) in others.items():
        ours, theirs = (1.0, 0.9) if more else (0.9, 1.0)
        rounds = {peer.name: [ours if peer is peers.Poolkit else theirs] * 4 for peer in of}
        rounds |= changed.pop(key, {})
        made.append(Figure(section, name, unit, more, rounds))
    assert not changed
    return made


def target(made, start):
    [found] = [each for each in verdict.targets(made) if each.what.startswith(start)]
    return found


def test_a_ratio_is_taken_round_by_round_and_its_median_is_judged():
    ours = {US: [2.0, 4.0, 20.0, 2.0], "psycopg2 Threaded": [1.0, 2.0, 10.0, 0.5]}
    found = target(figures(CALLS=ours), "checkout cost / psycopg2 Threaded")
    assert found.values == [2.0, 2.0, 2.0, 4.0] and found.limit == 2.2 and found.met
    ours[US] = [3.0, 6.0, 10.0, 1.0]
    assert not target(figures(CALLS=ours), "checkout cost / psycopg2 Threaded").met


def test_checkouts_are_compared_with_every_pool_that_can_wait_and_with_no_retry_loop():
    names = [each.what for each in verdict.targets(figures()) if each.what.startswith("checkout")]
    assert [name.partition(" / ")[2] for name in names] == [
        "psycopg2 Threaded, which checks nothing",
        "psycopg_pool",
        "SQLAlchemy QueuePool",
        "DBUtils PooledDB",
    ]


def test_throughput_is_compared_with_the_best_that_waits_and_with_the_best_fair_one():
    made = figures(
        FAST_THROUGHPUT={
            US: [80] * 4,
            "psycopg2 Threaded + retry": [900] * 4,
            "SQLAlchemy QueuePool": [100] * 4,
            "psycopg_pool": [40] * 4,
        },
        FAST_JAIN={"SQLAlchemy QueuePool": [0.25] * 4, "psycopg_pool": [0.995] * 4},
    )
    best = target(made, "select 1: throughput / the best that can wait")
    assert best.what.endswith(", SQLAlchemy QueuePool") and best.values == [0.8] * 4
    assert not best.met
    fair = target(made, "select 1: throughput / the best of those with Jain >= 0.99")
    assert fair.what.endswith(", psycopg_pool") and fair.values == [2.0] * 4 and fair.met


def test_a_target_without_anybody_to_compare_with_is_neither_met_nor_missed():
    unfair = {peer.name: [0.3] * 4 for peer in load.WAITING}
    made = figures(FAST_JAIN=unfair)
    found = target(made, "select 1: throughput / the best of those with Jain")
    assert found.met is None and found.what.endswith("there is none")
    assert "there is none" in report.plain(report.blocks(made, [], FULL))


def test_waits_are_compared_with_the_ideal_and_connects_judged_by_the_worst_round():
    made = figures(SLOW_P99_WAIT={US: [18.0, 19.5, 30.0, 18.0]}, CONNECTS={US: [0, 0, 2, 0]})
    assert target(made, "5 ms query: p99 wait").values == [1.2, 1.3, 2.0, 1.2]
    assert target(made, "5 ms query: p99 wait").met
    assert target(made, "spike: needless connects").values == [2]
    assert not target(made, "spike: needless connects").met


def test_a_lead_must_show_in_three_rounds_of_four_and_be_more_than_two_per_cent():
    def better(mine, theirs, more=False):
        figure = Figure("", "", "us", more, {"a": mine, "b": theirs})
        return figure.better("a", "b"), figure.better("b", "a")

    assert better([1, 1, 1, 9], [2, 2, 2, 2]) == (True, False)
    assert better([1, 1, 9, 9], [2, 2, 2, 2]) == (False, False)
    assert better([1, 1, 1, 9], [2, 2, 2, 2], more=True) == (False, True)
    assert better([100] * 4, [101] * 4) == (False, False)
    assert better([0] * 4, [1] * 4) == (True, False)
    assert better([0] * 4, [0] * 4) == (False, False)


def test_who_is_ahead_of_everybody_loses_nowhere():
    made = figures()
    assert verdict.losses(made) == []
    assert len(verdict.wins(made)) == len(made)
    text = report.markdown(report.blocks(made, [], FULL))
    assert "Where poolkit loses" not in text and "Where poolkit is ahead" in text


def test_a_loss_is_told_with_both_numbers_and_how_unfair_the_winner_is():
    made = figures(
        FAST_THROUGHPUT={US: [5000] * 4, "DBUtils PooledDB": [6543] * 4},
        FAST_JAIN={"DBUtils PooledDB": [0.254] * 4},
    )
    line = "select 1, throughput: poolkit 5,000 1/s, but DBUtils PooledDB 6,543 1/s (Jain 0.254)"
    assert verdict.losses(made) == [line]
    for text in (report.plain, report.markdown):
        said = " ".join(text(report.blocks(made, [], FULL)).split())
        assert "Where poolkit loses:" in said and line in said
        assert "somebody is better than poolkit in 1" in said


def test_a_behaviour_that_is_not_as_it_should_be_is_a_loss_too():
    def row(name, ours, theirs):
        return Row(name, {US: ours, "psycopg_pool": theirs})

    rows = [
        row("returned twice", Finding("silent", good=False), Finding("told", good=True)),
        row("forked", Finding("no answer", failed=True), Finding("the same", good=False)),
        row("nested", Finding("told", good=True), Finding("waits", good=False)),
        row("churn", Finding("has no such thing"), Finding("told", good=True)),
    ]
    assert verdict.misbehaviour(rows) == [
        "returned twice: silent, but with psycopg_pool: told",
        "forked: no answer",
    ]


def test_the_page_is_whole_tables_and_says_how_it_was_made():
    made = figures(CALLS={US: [3.0] * 4})
    text = report.markdown(report.blocks(made, [("processor", "a | b")], FULL))
    assert text.startswith("<!-- Written by `make bench ARGS=--write`. Do not edit")
    tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
    assert len(tables) == 7
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1 and re.fullmatch(r"[|\- ]+", table.splitlines()[1])
    assert "**not met**" in text and "NOT MET" not in text
    assert "| processor | a \\| b |" in text
    assert "means anything" not in text
    assert "means anything" in report.markdown(report.blocks(made, [], QUICK))


@pytest.mark.parametrize(
    "value, text",
    [(5567.4, "5,567"), (17.94, "17.9"), (2.234, "2.23"), (0.2541, "0.254"), (1, "1.00"), (0, "0")],
)
def test_numbers_have_the_digits_that_matter(value, text):
    assert verdict.number(value) == text


def test_rounds_take_turns_and_every_second_one_goes_backwards():
    order = []
    contests = {name: lambda name=name: order.append(name) or len(order) for name in "abc"}
    assert in_turns(contests, 3) == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}
    assert "".join(order) == "abccbaabc"
    assert quartiles([7]) == [7, 7, 7] and quartiles([1, 2, 3, 4, 5]) == [2, 3, 4]
