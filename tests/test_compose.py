"""The compose stack: its file, its .env, and how lessons tell its server from any other."""

import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager

import psycopg2
import pytest
import yaml
from psycopg2.extensions import parse_dsn

from classroom import flights, place, servers
from classroom.place import ROOT
from classroom.servers import ServerError, compose
from classroom.servers.programs import Programs, bin_dir

FILE = ROOT / "docker-compose.yml"


def env(folder, **changes):
    """Write an .env into `folder`; a setting that is None is left out. Returns the settings."""
    settings = {
        compose.PORT: "54318",
        compose.NAME: "poolkit-0",
        compose.PASSWORD: "s3cret-a",
        compose.LEARNER_PASSWORD: "s3cret-b",
    } | changes
    lines = [f"{key}={value}\n" for key, value in settings.items() if value is not None]
    (folder / ".env").write_text("".join(lines))
    return settings


@contextmanager
def listening(answer):
    """Something that is not PostgreSQL on a port of 127.0.0.1: sends `answer` and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    caller, _ = listener.accept()
                except OSError:
                    return
                with caller:
                    caller.recv(1024)
                    caller.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


# ------------------------------------------------------------------------------ docker-compose.yml


@pytest.mark.slow
def test_the_compose_file_follows_the_compose_specification():
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, str(FILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_image_is_pinned_to_a_minor_version():
    images = re.findall(r"image: (\S+)", FILE.read_text())
    assert images and all(re.search(r":v?\d+\.\d+", image) for image in images)


def test_the_compose_file_asks_for_what_env_has_and_holds_no_password(tmp_path):
    compose.write_env(tmp_path)
    written = set(re.findall(r"^(\w+)=", (tmp_path / ".env").read_text(), re.MULTILINE))
    asked = re.findall(r"\$\{(\w+)([^}]*)\}", FILE.read_text())
    assert {name for name, _ in asked} == set(compose.KEYS) <= written
    assert all(rest == ":?run: poolkit env" for name, rest in asked if name != compose.PORT)


def test_every_port_is_published_on_loopback_only():
    ports = re.findall(r'- "(\S+):\d+"', FILE.read_text())
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


# -------------------------------------------------------------------------------------------- .env


def test_env_is_written_for_its_owner_only_with_passwords_of_its_own(tmp_path):
    (tmp_path / "other").mkdir()
    said = compose.write_env(tmp_path)
    compose.write_env(tmp_path / "other")
    one, other = compose.read_env(tmp_path), compose.read_env(tmp_path / "other")
    assert str(tmp_path / ".env") in said and one[compose.PASSWORD] not in said
    for key in (compose.NAME, compose.PASSWORD, compose.LEARNER_PASSWORD):
        assert one[key] != other[key]
    assert one[compose.PASSWORD] != one[compose.LEARNER_PASSWORD]
    if os.name == "posix":
        assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


def test_an_env_that_is_there_is_kept(tmp_path):
    compose.write_env(tmp_path)
    before = (tmp_path / ".env").read_bytes()
    with pytest.raises(ServerError, match="is there already and was kept") as raised:
        compose.write_env(tmp_path)
    assert (tmp_path / ".env").read_bytes() == before
    assert "\n" not in str(raised.value)


def test_env_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(ServerError, match="can't write .*; try: "):
        compose.write_env(tmp_path / "missing")


def test_a_port_that_is_taken_is_stepped_over(tmp_path):
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", compose.FIRST_PORT))
        except OSError:
            pass  # taken already, by somebody else: as good
        compose.write_env(tmp_path)
    assert int(compose.read_env(tmp_path)[compose.PORT]) > compose.FIRST_PORT


@pytest.mark.parametrize(
    "line",
    [
        "{}=a-b_c\n",
        "{}=a-b_c",
        "{}=a-b_c\r\n",
        "export {}=a-b_c\n",
        "  {} = a-b_c  # a comment\n",
        "{}='a-b_c' # a comment\n",
        '{}="a-b_c"\r\n',
        "\ufeff{}=a-b_c\n",
        "# {}=wrong\nnonsense\n=\n{}=a-b_c\n",
    ],
)
def test_env_is_read_however_an_editor_left_it(tmp_path, line):
    rest = "".join(f"{key}=7\n" for key in compose.KEYS if key != compose.NAME)
    text = line.format(compose.NAME, compose.NAME) + ("" if line.endswith("\n") else "\n") + rest
    (tmp_path / ".env").write_text(text, encoding="utf-8", newline="")
    assert compose.read_env(tmp_path)[compose.NAME] == "a-b_c"


@pytest.mark.parametrize("value", ["a#b", "'a # b'", '"a#b"'])
def test_a_hash_in_a_value_is_not_a_comment(tmp_path, value):
    env(tmp_path, **{compose.PASSWORD: value})
    assert compose.read_env(tmp_path)[compose.PASSWORD] == value.strip("'\"")


@pytest.mark.parametrize("text", [None, "", "SOMETHING=else\n"])
def test_without_an_env_of_ours_there_is_no_stack(tmp_path, text):
    if text is not None:
        (tmp_path / ".env").write_text(text)
    assert compose.find(tmp_path) is None


@pytest.mark.parametrize(
    "changes, said",
    [
        ({compose.PASSWORD: None}, f"has no {compose.PASSWORD}"),
        ({compose.NAME: ""}, f"has no {compose.NAME}"),
        ({compose.PORT: "many"}, "is no port: 'many'"),
        ({compose.PORT: "70000"}, "is no port: '70000'"),
    ],
)
def test_a_damaged_env_is_one_line_that_says_what_to_try(tmp_path, changes, said):
    env(tmp_path, **changes)
    with pytest.raises(ServerError) as raised:
        compose.find(tmp_path)
    assert said in str(raised.value) and "; try: " in str(raised.value)
    assert "s3cret" not in str(raised.value) and "\n" not in str(raised.value)


# ----------------------------------------------------------------------------------------- finding


def test_a_stack_that_is_not_up_is_no_stack_and_nobody_is_told(tmp_path, caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        env(tmp_path, **{compose.PORT: free.getsockname()[1]})
        assert compose.find(tmp_path) is None
    assert caplog.messages == []


def test_what_is_not_postgresql_is_left_alone_and_named(tmp_path, caplog):
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        env(tmp_path, **{compose.PORT: port})
        assert compose.find(tmp_path) is None
    [said] = caplog.messages
    assert f"127.0.0.1:{port} is not ready, or is not PostgreSQL" in said and "\n" not in said


@pytest.mark.server
def test_a_server_of_another_name_is_left_alone_and_named(tmp_path, caplog, server):
    given = parse_dsn(server.dsn)
    if given.get("user") != "learner" or given.get("host") != "127.0.0.1":
        pytest.skip("needs the private server; unset POOLKIT_DSN")
    env(tmp_path, **{compose.PORT: given["port"], compose.LEARNER_PASSWORD: given["password"]})
    assert compose.find(tmp_path) is None
    [said] = caplog.messages
    assert "is another one: its cluster_name is " in said and ".env says 'poolkit-0'" in said
    assert given["password"] not in said


@pytest.mark.server
def test_a_server_that_refuses_the_password_is_left_alone_and_named(tmp_path, caplog, server):
    given = parse_dsn(server.dsn)
    if given.get("host") != "127.0.0.1":
        pytest.skip("needs the private server; unset POOLKIT_DSN")
    env(tmp_path, **{compose.PORT: given["port"]})
    assert compose.find(tmp_path) is None
    [said] = caplog.messages
    assert "does not accept the password in .env" in said and "s3cret" not in said


@pytest.fixture(scope="module")
def stack(course_home):
    """What `docker compose up -d db` would start, without Docker: the file's own command and
    settings and the init script, with our programs. Returns the folder of its .env.
    """
    folder = course_home / "stack"
    folder.mkdir(mode=0o711)
    compose.write_env(folder)
    settings = compose.read_env(folder)
    db = yaml.safe_load(re.sub(r"\$\{(\w+)[^}]*\}", lambda m: settings[m[1]], FILE.read_text()))
    db = db["services"]["db"]
    programs = Programs(folder)
    data, password_file = programs.base / "data", programs.base / "password"
    data.mkdir(mode=0o700)
    password_file.touch(mode=0o600)
    password_file.write_text(db["environment"]["POSTGRES_PASSWORD"])
    programs.give(data)
    programs.give(password_file)

    def run(program, *args):
        status, said = programs.run(program, "-D", data, *args)
        assert status == 0, said

    def psql(database, *args):
        # As ourselves: the server's user need not be able to read the repository.
        address = [
            "-h",
            "127.0.0.1",
            "-p",
            settings[compose.PORT],
            "-U",
            "postgres",
            "-d",
            database,
        ]
        subprocess.run(
            [bin_dir() / "psql", "-q", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", *args, *address],
            env=os.environ | db["environment"] | {"PGPASSWORD": settings[compose.PASSWORD]},
            check=True,
        )

    make = ["-U", "postgres", "--auth=scram-sha-256", "--pwfile", password_file, "--no-sync"]
    run("initdb", *make, *db["environment"]["POSTGRES_INITDB_ARGS"].split())
    published = f"-p {settings[compose.PORT]} -c listen_addresses=127.0.0.1"
    options = " ".join([*db["command"][1:], published, "-c unix_socket_directories="])
    run("pg_ctl", "-w", "-l", data / "server.log", "-o", options, "start")
    try:
        psql("postgres", "-c", f"create database {db['environment']['POSTGRES_DB']}")
        for script in sorted((ROOT / "docker" / "initdb").iterdir()):
            psql(db["environment"]["POSTGRES_DB"], "-f", script)
        yield folder
    finally:
        run("pg_ctl", "-w", "-m", "fast", "stop")


@pytest.mark.server
def test_the_server_that_carries_the_name_in_env_is_found(stack):
    found = compose.find(stack)
    settings = compose.read_env(stack)
    assert found.kind == "compose"
    assert found.label == (
        f"PostgreSQL {found.version}, the compose stack's, on 127.0.0.1:{settings[compose.PORT]}"
    )
    for password in (settings[compose.PASSWORD], settings[compose.LEARNER_PASSWORD]):
        assert password not in repr(found) + found.label


@pytest.mark.server
def test_lessons_come_to_the_stack_when_no_address_is_given(stack, monkeypatch):
    monkeypatch.delenv("POOLKIT_DSN", raising=False)
    monkeypatch.setattr(place, "ROOT", stack)
    assert servers.find().kind == "compose"


@pytest.mark.server
def test_the_stack_has_the_roles_that_the_private_server_has(stack):
    found = compose.find(stack)
    query = """
        select current_user, current_database(), pg_get_userbyid(datdba),
               pg_has_role('pg_monitor', 'member'), rolsuper or rolcreaterole or rolcreatedb,
               datcollate
        from pg_database join pg_roles on rolname = current_user
        where datname = current_database()
    """
    learner = ("learner", "course", "learner", True, False, "C")
    postgres = ("postgres", "course", "learner", True, True, "C")
    for dsn, expected in (found.dsn, learner), (found.admin_dsn, postgres):
        with closing(psycopg2.connect(dsn)) as conn, conn.cursor() as cur:
            cur.execute(query)
            assert cur.fetchone() == expected


@pytest.mark.server
def test_the_departures_board_can_be_loaded_into_the_stack(stack):
    assert flights.load(compose.find(stack).dsn) is True


@pytest.mark.server
def test_another_clone_with_the_same_port_does_not_take_our_stack_for_its_own(
    stack, tmp_path, caplog
):
    theirs = compose.read_env(stack) | {compose.NAME: "poolkit-theirs"}
    env(tmp_path, **theirs)
    assert compose.find(tmp_path) is None
    assert "is another one" in caplog.text
