"""The live panel: its buttons and sliders, its picture, and the experiment behind them."""

import asyncio
import re
import threading
import xml.etree.ElementTree as ElementTree
from html import unescape
from math import nan
from time import monotonic, sleep

import psycopg2
import pytest

from poolkit import PoolClosed, PoolStats, Run
from poolkit.live import ONE_IN, Sample, one_line
from poolkit.plots.frame import ERROR, IDLE, IN_USE, OPENING, WAITING
from poolkit.svg import in_words, picture
from poolkit.widgets import live_panels, panel
from tests.fake import FakeDriver, until


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    monkeypatch.setattr("poolkit.live.TICK", 0.02)
    monkeypatch.setattr("poolkit.live.SETTLE", 0.05)


@pytest.fixture
def make():
    """Makes panels, by default on a fake database where a job takes a millisecond, and closes
    them."""

    def make(dsn="", **arguments):
        if not dsn:
            arguments = {"driver": FakeDriver(), "job": lambda conn: sleep(0.001)} | arguments
        made.append(panel(dsn, **arguments))
        return made[-1]

    made = []
    yield make
    for one in made:
        one.close()
        one.remove()
    assert not [t for t in threading.enumerate() if re.match(r"client-|.*-conductor", t.name)]


async def state(condition, timeout=10.0):
    """Wait for a state as `until` does, while the loop goes on turning."""
    deadline = monotonic() + timeout
    while not condition():
        assert monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.005)


def last(p):
    return p.live.samples[-1]


def shown(p):
    """The words of the picture, for those who cannot see it."""
    return ElementTree.fromstring(p._picture.value)[0].get("aria-label")


def line(p):
    """The line below it, without the mark that tells errors apart."""
    return unescape(re.sub(r"<.*?>", "", p._line.value)).lstrip("!")


# -- buttons and sliders -------------------------------------------------------------------------


def test_buttons_and_sliders_act_on_the_pool_while_it_runs(make):
    async def story():
        p = make(max_size=4, clients=8)
        assert p.stop.disabled and p.pool.stats() == PoolStats(4, 0, 0, 0, 0)
        p.start.click()
        await state(lambda: last(p).throughput > 0 and p.start.disabled)
        p.size.value = 2
        await state(lambda: p.pool.max_size == 2 and len(p.pool.holders()) <= 2)
        p.clients.value = 12
        await state(lambda: last(p).clients == 12)
        p.clients.value = 3
        await state(lambda: last(p).clients == 3)
        p.stop.click()
        await state(lambda: not p.live.busy)
        assert last(p).clients == 0 and p.pool.stats().in_use == 0
        await state(lambda: p.stop.disabled and not p.start.disabled)

    asyncio.run(story())


@pytest.mark.slow
def test_the_picture_follows_while_it_runs_and_rests_when_it_has_stopped(make):
    async def story():
        p = make()
        drawn = []
        p._picture.observe(lambda change: drawn.append(change["new"]), "value")
        p.start.click()
        await state(lambda: len(drawn) > 5 and "0 requests per second" not in drawn[-1])
        p.stop.click()
        await state(lambda: p._task.done())
        assert shown(p).startswith(str(p.pool.stats()))
        assert line(p) == "stopped"

    asyncio.run(story())


@pytest.mark.slow
def test_callbacks_return_at_once_even_if_nothing_comes_back_from_the_server(make):
    async def story():
        gate = threading.Event()
        p = make(job=lambda conn: gate.wait(10), max_size=2, clients=2)
        p.start.click()
        await state(lambda: p.pool.stats().in_use == 2)
        p.size.value = 1
        p.stop.click()
        await state(lambda: line(p) == "stopping")
        assert p.pool.stats().in_use == 2
        gate.set()
        await state(lambda: line(p) == "stopped")

    asyncio.run(story())


@pytest.mark.slow
def test_a_forgotten_panel_stops_by_itself(make):
    async def story():
        p = make(seconds=0.2)
        p.start.click()
        await state(lambda: last(p).clients > 0)
        await state(lambda: not p.live.busy)
        assert last(p).clients == 0 and last(p).at <= 0.3

    asyncio.run(story())


@pytest.mark.slow
def test_leaked_connections_stay_out_until_reset_gives_them_back(make):
    p = make(max_size=3, timeout=0.05)
    p.leak.value = True
    run = p.run(0.2)
    assert p.pool.stats().in_use == last(p).leaked == 3
    assert len(run.served) >= 3 * ONE_IN - 3 and "3 leaked" in shown(p)
    assert "PoolTimeout" in line(p) and p.table()["failed"].iloc[-1] == len(run.errors) > 0
    p.reset.click()
    until(lambda: p.pool.stats() == PoolStats(3, 0, 3, 0, 0))
    assert p.leak.value is False
    assert not p.run(0.1).errors


@pytest.mark.slow
def test_without_a_loop_the_same_experiment_is_one_plain_call(make):
    p = make(clients=5)
    p.size.value = 3
    run = p.run(0.15)
    assert isinstance(run, Run) and run.clients == 5 and not run.errors
    assert {request.client for request in run.requests} == {f"client-{i}" for i in range(1, 6)}
    assert {event.conn for event in run.events if event.kind == "checkout"} == {1, 2, 3}
    assert 0 < run.throughput and 0.1 < run.elapsed
    table = p.table()
    assert table["t_s"].is_monotonic_increasing and table["t_s"].iloc[-1] < 0.5
    assert (table[["in_use", "idle", "pending"]].sum(axis=1) <= 3).all()
    assert repr(p) == "<Panel 'panel': stopped; 0 of 3 in use, 3 idle, 0 pending, 0 waiting>"


@pytest.mark.slow
def test_a_second_run_begins_anew(make):
    p = make()
    first, second = p.run(0.1), p.run(0.1)
    assert min(event.at for event in second.events) > max(event.at for event in first.events)
    assert p.table()["t_s"].iloc[-1] < 0.5


# -- the server's own count ----------------------------------------------------------------------


@pytest.mark.slow
def test_the_server_is_asked_at_most_four_times_a_second_and_never_by_the_main_thread(make):
    asked = []

    def observe():
        asked.append((monotonic(), threading.current_thread()))
        return 7

    p = make(observe=observe)
    p.run(0.6)
    assert "The server counts 7." in shown(p) and p.table()["server"].iloc[-1] == 7
    assert all(b - a >= 0.2 for (a, _), (b, _) in zip(asked, asked[1:], strict=False))
    assert threading.main_thread() not in {thread for _, thread in asked}


def test_an_answer_that_never_comes_holds_up_nothing(make):
    gate = threading.Event()
    p = make(observe=lambda: gate.wait(10) and 7)
    run = p.run(0.1)
    assert run.served and "The server counts –." in shown(p)
    gate.set()


@pytest.mark.slow
def test_a_count_that_fails_is_one_line_in_the_panel(make):
    def observe():
        raise OSError("no such server\nreally")

    p = make(observe=observe)
    p.run(0.1)
    assert line(p) == "the server's own count is missing: OSError: no such server"


# -- what goes wrong is a line in the panel ------------------------------------------------------


def test_a_job_that_fails_is_counted_and_said_on_one_line(make):
    def job(conn):
        raise ValueError("out of\norder")

    p = make(job=job, clients=1)
    run = p.run(0.1)
    assert len(run.errors) == len(run.requests) == last(p).failed > 0
    assert re.fullmatch(r"\d+ requests? failed, the last at 0\.\d s: ValueError: out of", line(p))
    assert p.pool.stats().in_use == 0


@pytest.mark.slow
def test_a_server_that_is_gone_is_named_as_the_cause(make):
    driver = FakeDriver()
    driver.fail("connect", OSError("connection refused"))
    p = make(driver=driver, timeout=0.05)
    p.run(0.15)
    assert line(p).endswith(
        "PoolTimeout: pool 'panel': no connection within 0.05 s, because: connection refused"
    )


@pytest.mark.slow
def test_a_server_that_lets_in_no_more_is_named_though_some_are_served(make):
    driver = FakeDriver()
    p = make(driver=driver, max_size=2, clients=1)
    p.run(0.1)
    driver.fail("connect", OSError("too many clients already"))
    p.clients.value = 4
    p.run(0.15)
    assert p.pool.stats().idle == 1
    assert line(p) == "no new connection could be opened: OSError: too many clients already"


def test_a_pool_closed_behind_its_back_says_what_to_do(make):
    async def story():
        p = make()
        p.start.click()
        await state(lambda: last(p).throughput > 0)
        p.pool.close()
        await state(lambda: "run the cell again" in line(p) and not p.live.busy)
        assert last(p).clients == 0

    asyncio.run(story())


def test_an_error_is_one_line_and_keeps_what_helps():
    assert one_line(ValueError("a\nb")) == "ValueError: a"
    assert one_line(ValueError()) == "ValueError"
    assert one_line(PoolClosed("who: what; held by: a, b; hint")) == "PoolClosed: who: what; hint"
    assert len(one_line(ValueError("x" * 999))) < 260


# -- one after the other -------------------------------------------------------------------------


def test_a_new_panel_of_the_same_name_closes_the_earlier_one_as_it_runs(make):
    async def story():
        first, other = make(), make(name="other")
        first.start.click()
        await state(lambda: last(first).throughput > 0)
        second = make()
        assert first.closed and first.pool.closed and not first.pool.holders()
        assert {p.name for p in live_panels()} == {"panel", "other"}
        assert not second.closed and not other.closed
        await state(lambda: first._task.done())

    asyncio.run(story())


def test_a_closed_panel_does_nothing_any_more(make):
    p = make()
    p.run(0.1)
    p.close()
    p.close()
    assert p.closed and p.pool.closed and p not in live_panels()
    assert all(control.disabled for control in (p.start, p.stop, p.reset, p.leak, p.size))
    assert line(p).startswith("closed")
    p.start.click()
    assert not p.live.busy
    with pytest.raises(PoolClosed, match="'panel' is closed; make a new one"):
        p.run(0.1)


@pytest.mark.slow
def test_close_waits_no_longer_than_it_may_for_a_job_that_hangs(make):
    gate = threading.Event()
    p = make(job=lambda conn: gate.wait(10), max_size=1, clients=2)
    p.start.click()
    until(lambda: p.pool.stats().in_use == 1)
    p.close(timeout=0.2)
    assert p.pool.closed and p.pool.stats().in_use == 1
    gate.set()
    until(lambda: p.pool.stats().in_use == 0)


@pytest.mark.parametrize(
    "wrong",
    [{"max_size": 0}, {"clients": -1}, {"query_ms": 1.5}, {"seconds": 0}, {"timeout": -1}],
    ids=str,
)
def test_a_wrong_argument_is_named_before_anything_is_made(make, wrong):
    before = set(threading.enumerate())
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must be"):
        panel(driver=FakeDriver(), **wrong)
    assert set(threading.enumerate()) == before


def test_notebooks_show_the_widgets_and_other_pages_the_picture(make):
    shown = make()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert shown["text/plain"].startswith("<Panel 'panel'") and "<svg" in shown["text/html"]


# -- the picture ---------------------------------------------------------------------------------


def sample(max_size=4, in_use=0, idle=0, pending=0, waiting=0, leaked=0, **others):
    numbers = {"clients": 8, "throughput": 790.0, "wait_ms": 5.2, "failed": 0, "server": 4}
    stats = PoolStats(max_size, in_use, idle, pending, waiting)
    return Sample(1.0, stats, leaked, **numbers | others)


def drawn(*samples, slots=16, counted=True):
    root = ElementTree.fromstring(picture(list(samples), slots, 30.0, counted))[0]
    return root, [element.get("fill") for element in root.iter() if element.get("width") == "40"]


def test_each_slot_is_one_box_in_the_colour_of_its_state():
    _, boxes = drawn(sample(max_size=6, in_use=3, leaked=1, pending=1, idle=1))
    assert boxes == [ERROR, IN_USE, IN_USE, OPENING, IDLE, "none"]


def test_connections_above_a_max_size_made_smaller_are_still_shown():
    _, boxes = drawn(sample(max_size=1, in_use=3))
    assert boxes == [IN_USE] * 3


@pytest.mark.parametrize("waiting, dots, more", [(0, 0, False), (32, 32, False), (40, 32, True)])
def test_each_waiting_request_is_a_dot_as_long_as_there_is_room(waiting, dots, more):
    root, _ = drawn(sample(waiting=waiting))
    queue = next(group for group in root if group.get("fill") == WAITING and group.tag[-1] == "g")
    assert len(queue) == dots
    assert ("+8" in [text.text for text in root.iter()]) == more


def test_the_picture_says_its_numbers_in_the_words_of_the_pool():
    one = sample(max_size=4, in_use=4, waiting=3, leaked=1)
    root, _ = drawn(one)
    assert root.get("role") == "img"
    assert root.get("aria-label") == (
        "4 of 4 in use, 0 idle, 0 pending, 3 waiting; 1 leaked. 790 requests per second, of which "
        "99 % waited at most 5.2 ms. The server counts 4."
    )
    texts = [text.text for text in root.iter() if text.text]
    for words in ("4 of 4 in use", "1 leaked", "0 idle", "0 pending", "3 waiting", "5.2 ms"):
        assert words in texts
    assert "99 %" not in in_words(sample(wait_ms=nan), counted=False)
    assert "server" not in in_words(one, counted=False)


def test_text_takes_the_colour_of_the_page():
    root, _ = drawn(sample(waiting=1))
    assert root.get("fill") == "currentColor"
    assert not [text for text in root.iter() if text.tag.endswith("text") and text.get("fill")]


def test_the_curve_names_the_sizes_that_held_long_enough_to_be_seen():
    sizes = [4] * 20 + [5, 6, 7] + [8] * 20
    samples = [sample(size)._replace(at=i / 10) for i, size in enumerate(sizes)]
    root, _ = drawn(*samples)
    texts = [text.text for text in root.iter() if text.get("font-size") == "12"]
    assert texts[:3] == ["max_size", "4", "8"] and not {"5", "6", "7"} & set(texts)


# -- on the real server --------------------------------------------------------------------------


@pytest.mark.server
def test_the_server_has_as_many_as_the_sliders_say_and_none_after_close(make, dsn):
    name = psycopg2.extensions.parse_dsn(dsn)["application_name"]

    def count():
        with view.cursor() as cursor:
            cursor.execute(
                "select count(*) from pg_stat_activity where application_name = %s", [name]
            )
            return cursor.fetchone()[0]

    async def story():
        p = make(dsn, max_size=3, query_ms=2, observe=count)
        assert count() == 0
        p.start.click()
        await state(lambda: last(p).server == 3 and last(p).throughput > 0)
        p.size.value = 2
        await state(lambda: last(p).server == 2)
        p.query.value = 20
        await state(lambda: 0 < last(p).throughput < 110)
        p.leak.value = True
        await state(lambda: last(p).leaked == 2)
        p.stop.click()
        await state(lambda: not p.live.busy)
        assert count() == 2
        p.close()
        await state(lambda: count() == 0)
        assert "The server counts –." in shown(p)  # nobody looks any more

    view = psycopg2.connect(dsn, application_name="view")
    view.autocommit = True
    asyncio.run(story())
    view.close()
