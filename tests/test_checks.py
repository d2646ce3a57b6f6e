"""The first notebook's checks: what is ready, what is not, what to try, and never a traceback."""

import ast
import html
import json
import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from classroom import checks, install, place
from classroom.checks import Check, Report, check
from classroom.servers import Server

NAMES = ["Python", "packages", "folder", "ports", "server", "a query", "connecting", "connections"]
NAMES += ["widgets", "figures"]
FIRST_NOTEBOOK = place.ROOT / "notebooks" / "00_check_setup.ipynb"


def text(html_table):
    """What a reader sees of the table."""
    return html.unescape(re.sub(r"<[^>]+>", " ", html_table))


def told(one, outcome, detail, mend):
    """Hold a Check to what it should say, on one line."""
    assert one.outcome == outcome
    assert re.search(detail, one.detail), one
    assert mend in one.mend, one
    assert "\n" not in str(one)


# What is ready


@pytest.mark.server
def test_what_is_ready_is_said_line_by_line(server):
    report = checks.run()
    assert [one.name for one in report] == NAMES
    found = {one.name: one for one in report}
    for name in set(NAMES) - {"packages"}:  # a developer's packages may be newer than the lock
        assert found[name].outcome == "ok", found[name]
    assert found["server"].detail == server.label
    assert found["folder"].detail == str(place.state())
    assert "UA 1545" in found["a query"].detail
    assert re.search(r"takes \d+\.\d ms \(the median of 20\)", found["connecting"].detail)
    assert re.search(r"room for \d+ of ours", found["connections"].detail)


@pytest.mark.server
def test_the_checks_leave_nothing_open(server):
    checks.run()
    name = "select count(*) from pg_stat_activity where application_name like 'poolkit/check%'"
    with closing(psycopg2.connect(server.dsn)) as conn, conn.cursor() as cur:
        for _ in range(200):  # what was closed a moment ago, the server lets go in its own time
            cur.execute(f"{name} and pg_sleep(0.01) is not null")
            if not (left := cur.fetchone()[0]):
                break
            conn.rollback()  # within a transaction, the view would stay as it is
    assert left == 0


def test_a_page_shows_the_same_words_as_the_text():
    report = Report([Check("Python", "ok", "3.11"), Check("ports", "wrong", "<b>", "a & b")])
    assert repr(report) == (
        "✓ Python       3.11\n"
        "✗ ports        <b>; try: a & b\n"
        "1 line is not ready: mend from the top, restart the kernel, and run this again."
    )
    assert (
        text(report._repr_html_()).split()
        == (
            "✓ Python 3.11 ✗ ports <b> Try: a & b "
            "1 line is not ready: mend from the top, restart the kernel, and run this again."
        ).split()
    )
    assert "<b>" not in report._repr_html_() and not report.ready
    assert Report(report[:1]).ready and repr(Report(report[:1])).endswith("Everything is ready.")


# What is not


def test_an_old_python_can_read_the_checks():
    ast.parse(Path(checks.__file__).read_text(encoding="utf-8"), feature_version=(3, 6))


def test_a_python_that_is_too_old_is_told_the_command_with_a_newer_one():
    one = checks.python((3, 9, 2))
    told(one, "wrong", "^3.9.2 is too old: the course needs 3.11 or newer$", "PYTHON=python3.1")


def run_without_packages(code, folder):
    """Run code in a Python like this one that has no packages (-S); return what it prints."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": "", "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def test_a_python_without_the_packages_names_them_and_says_what_to_open_instead():
    code = "display = print\n" + first_cell()
    lines = run_without_packages(code, FIRST_NOTEBOOK.parent).splitlines()
    found = {line[2:14].strip(): line for line in lines}
    assert "missing: " in found["packages"] and "pandas " in found["packages"]
    assert "; try: " in found["packages"]
    assert found["server"] == "– server       it needs the package psycopg2"
    assert found["a query"].endswith("it needs the server")
    assert found["figures"] == "– figures      it needs the package matplotlib"


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """Write a lock of other packages in place of the course's."""

    def write(*lines):
        path = tmp_path / "requirements.txt"
        path.write_text(
            "".join(f"{line} \\\n    --hash=sha256:00\n    # via poolkit\n" for line in lines)
        )
        monkeypatch.setattr(install, "LOCK", str(path))
        monkeypatch.setattr(install, "VENV", sys.prefix)

    return write


def test_a_package_that_is_missing_is_named_with_what_installs_it(lock):
    lock("nosuchpackage==1.2.3", f"psycopg2-binary=={installed('psycopg2-binary')}")
    told(checks.packages(), "missing", "^missing: nosuchpackage 1.2.3$", "make ")


def test_a_package_of_another_version_is_named_with_both(lock):
    lock("psycopg2-binary==0.1")
    told(checks.packages(), "wrong", "psycopg2-binary 2.* instead of 0.1$", "make ")


def test_what_other_machines_need_is_not_missed(lock):
    lock(
        f"psycopg2-binary=={installed('psycopg2-binary')}",
        "nosuchpackage==1 ; sys_platform == 'amiga'",
        "nosuchpackage==2 ; python_full_version < '3.11'",
    )
    assert checks.locked() == {"psycopg2-binary": installed("psycopg2-binary")}
    assert checks.packages().detail == "all 1 are installed, in the versions of the lock"


def test_the_lock_has_all_that_lessons_import():
    assert set(checks.imported()) <= set(checks.locked())


def installed(name):
    from importlib.metadata import version

    return version(name)


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "file").touch()  # a file in the folder's place stops root too
    monkeypatch.setenv("POOLKIT_HOME", str(tmp_path / "file"))
    told(checks.folder(), "wrong", "can't write to POOLKIT_HOME", "set POOLKIT_HOME to a folder of")


def test_without_a_server_the_rest_is_not_checked_and_no_password_is_shown(monkeypatch):
    monkeypatch.setenv("POOLKIT_DSN", "postgresql://ada:s3cret@127.0.0.1:1/course")
    report = checks.run()
    found = {one.name: one for one in report}
    told(found["server"], "wrong", "nobody listens at 127.0.0.1:1", "start that server")
    for name in ("a query", "connecting", "connections"):
        told(found[name], "not checked", "it needs the server", "")
    assert found["widgets"].outcome == found["figures"].outcome == "ok"
    assert "s3cret" not in repr(report) + report._repr_html_()


def test_an_address_that_cannot_be_read_is_one_line_without_the_password(monkeypatch):
    monkeypatch.setenv("POOLKIT_DSN", "host=db pasword=s3cret")
    one = checks.server()
    told(one, "wrong", "POOLKIT_DSN is not an address", "'postgresql://user:password@host")
    assert "s3cret" not in str(one)


def test_a_server_that_went_away_is_one_line():
    gone = "host=127.0.0.1 port=1 user=ada password=s3cret dbname=d"
    server = Server("address", gone, None, "18.4", "gone")
    told(checks.query(server), "wrong", "nobody listens at 127.0.0.1:1", "start that server")
    told(checks.connecting(server), "wrong", "OperationalError: .*refused", "run it again")
    told(checks.room(server), "wrong", "gone: .*refused", "start")


@pytest.mark.server
def test_a_server_with_too_little_room_says_how_much_there_is(server):
    if server.admin_dsn is None:
        pytest.skip("the server's roles are not ours; try: unset POOLKIT_DSN")
    with closing(psycopg2.connect(server.admin_dsn)) as admin, admin.cursor() as cur:
        admin.autocommit = True
        cur.execute("create role narrow login password 'x' connection limit 3")
        try:
            dsn = make_dsn(server.dsn, user="narrow", password="x")
            one = checks.room(Server("address", dsn, None, "18.4", "a seat"))
        finally:
            cur.execute("drop role narrow")
    told(one, "wrong", "room for 2 of ours, and lessons need 5", "the limit of the role 'narrow'")


@contextmanager
def somebody_else(answer):
    """Another program that listens, and says something that no PostgreSQL says."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            caller, _ = listening.accept()
            with caller:
                caller.recv(1000)
                caller.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_somebody_else_on_the_port_of_the_compose_stack_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("POOLKIT_DSN", raising=False)
    monkeypatch.setattr(place, "ROOT", tmp_path)
    settings = "POOLKIT_CLUSTER_NAME=x\nPOOLKIT_DB_PASSWORD=x\nPOOLKIT_LEARNER_PASSWORD=x\n"
    with somebody_else(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        (tmp_path / ".env").write_text(f"{settings}POOLKIT_DB_PORT={port}\n")
        one = checks.ports()
    told(one, "wrong", f"what answers on 127.0.0.1:{port} is not", "docker compose ps")


def test_what_nobody_foresaw_is_one_line_too():
    @check("arithmetic")
    def broken():
        raise ZeroDivisionError("division\nby zero")

    told(broken(), "wrong", "^ZeroDivisionError: division; by zero$", "README.md")


# In the notebook


def first_cell():
    cells = json.loads(FIRST_NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return "".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"])


@pytest.mark.lesson
def test_the_first_cell_never_shows_a_traceback(monkeypatch):
    # Imported here, as it takes a second, and `make fast` loads this file too.
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("POOLKIT_DSN", "host=127.0.0.1 port=1 user=ada password=s3cret dbname=d")
    monkeypatch.setenv("MPLBACKEND", "agg")  # with it, no page shows a figure
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(first_cell())])
    folder = {"metadata": {"path": str(FIRST_NOTEBOOK.parent)}}
    NotebookClient(book, kernel_name="python3", timeout=60, resources=folder).execute()
    (output,) = book.cells[0].outputs
    plain = output.data["text/plain"]
    assert "✗ server       POOLKIT_DSN: nobody listens at 127.0.0.1:1; try: start" in plain
    assert "✗ figures      matplotlib draws for 'agg', and not for this page; try: unset" in plain
    assert text(output.data["text/html"]).split()[-6:] == plain.split()[-6:]


def test_the_first_cell_finds_words_even_where_there_is_no_course(tmp_path):
    said = run_without_packages(first_cell(), tmp_path)
    assert said.startswith(f"✗ {sys.executable} can't find the course; try: ")


def test_a_moved_slider_arrives_and_is_drawn(capsys):
    number, echo = checks.slider()
    assert capsys.readouterr().out == "a slider, and below it as many squares as it says\n"
    for n, said in [(7, "received 7, and drew 7 squares"), (1, "drew 1 square."), (0, "0 squares")]:
        number.value = n
        assert said in echo.value and echo.value.count("<rect") == n


def test_the_figure_has_a_bar_for_each_hour_and_adds_the_airports_up():
    ax = checks.departures([(6, "EWR", 10, 0, 1.5), (6, "JFK", 5, 0, None), (23, "LGA", 1, 1, 0.0)])
    heights = [bar.get_height() for bar in ax.patches]
    assert len(heights) == 24 and {6: heights[6], 23: heights[23]} == {6: 15, 23: 1}
    assert sum(heights) == 16
    import matplotlib.pyplot

    matplotlib.pyplot.close(ax.figure)
