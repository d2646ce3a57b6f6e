"""The set-up: what it promises before, while and after it installs; and the lists of packages."""

import ast
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from classroom import cli, install, lint_notebooks, setup, steps
from classroom.place import ROOT
from tests import plugin_skips

POSIX = pytest.mark.skipif(os.name == "nt", reason="POSIX signals; run it on Linux or macOS")


# Before anything is installed


@pytest.mark.parametrize("name", ["__init__", "setup", "install", "steps"])
def test_an_old_python_can_read_the_set_up_and_needs_no_package_for_it(name):
    tree = ast.parse((ROOT / "classroom" / f"{name}.py").read_text(), feature_version=(3, 6))
    for node in tree.body:
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= sys.stdlib_module_names
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1 and node.module in (None, "install", "steps")


@pytest.mark.skipif(os.name == "nt", reason="make's words; run it on Linux or macOS")
def test_an_old_python_is_told_the_command_with_a_newer_one():
    line = setup.too_old((3, 9, 2), "python3.12", "lab")
    assert line == (
        "Python 3.9.2 is too old: this course needs 3.11 or newer; "
        "found python3.12, so try: make lab PYTHON=python3.12"
    )
    assert "install one, then try: make test" in setup.too_old((3, 9, 2), None, "test")


def test_the_set_up_asks_for_the_python_that_the_project_does():
    assert project()["requires-python"] == ">=" + ".".join(map(str, setup.NEEDED))


@pytest.mark.parametrize(
    "said, kind, words",
    [
        ("error: failed to write: No space left on device (os error 28)", "disk", "free 2 GB"),
        ("cause: invalid peer certificate: UnknownIssuer", "fetch", "SSL_CERT_FILE"),
        ("ProxyError('Cannot connect to proxy.', OSError('Tunnel'))", "fetch", "HTTPS_PROXY"),
        ("error: Failed to fetch: `…`\n  cause: dns error", "fetch", "the network"),
        ("NewConnectionError: Temporary failure in name resolution", "fetch", "the network"),
        ("HTTP status client error (403 Forbidden) for url", "fetch", "refused"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS", "fetch", "the lock"),
        ("hint: foo 1.0 has no wheels with a matching Python ABI tag", "fit", "PYTHON=python3.12"),
        ("[Errno 13] Permission denied: '/opt/x'", "write", "of your own"),
        ("Install the python3-venv package: ensurepip is not available", "python", "apt install"),
        ("one line\nthe last word\n", "unknown", "the last word; try: run it again"),
        ("", "unknown", "no reason given"),
    ],
)
def test_a_failed_installation_is_one_line_with_the_way_out(said, kind, words):
    found, line = steps.cause(said)
    assert found == kind
    assert words in line and "try: " in line and "\n" not in line


def test_a_file_that_cannot_be_written_is_named_with_the_way_out():
    full = steps.about(OSError(errno.ENOSPC, "No space left on device", "/x/.venv"))
    assert full == "'/x/.venv': the disk is full; try: free 2 GB, then run it again"
    shut = steps.about(PermissionError(errno.EACCES, "Permission denied", "/x/.venv"))
    assert shut == "'/x/.venv': permission denied; try: put the course in a folder of your own"


# While it installs


@pytest.fixture
def course(tmp_path):
    """A folder with a space in its name that holds as much of the course as the set-up reads."""
    folder = tmp_path / "the course"
    shutil.copytree(
        ROOT / "classroom", folder / "classroom", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


def run_setup(course, verb, **env):
    env = os.environ | {"POOLKIT_HOME": str(course / ".poolkit")} | env
    return subprocess.run(
        [sys.executable, "-m", "classroom.setup", verb],
        cwd=course,
        env=env,
        capture_output=True,
        text=True,
    )


def test_a_venv_of_somebody_else_that_does_not_fit_is_refused_and_kept(course):
    (course / ".venv").mkdir()
    (course / ".venv" / "theirs").touch()
    done = run_setup(course, "setup")
    assert done.returncode == 1
    assert re.fullmatch(r"poolkit: '.*' was not made by this course .*; try: .*\n", done.stderr)
    assert (course / ".venv" / "theirs").exists()


def test_a_folder_that_cannot_be_written_is_one_line(course):
    (course / ".venv").touch()  # a file in the folder's place stops root too
    done = run_setup(course, "lab")
    assert done.returncode == 1
    assert re.fullmatch(r"poolkit: '.*\.venv': .*; try: .*\n", done.stderr)


def test_what_is_installed_is_told_by_lock_project_folder_and_python(course, monkeypatch):
    monkeypatch.setattr(install, "ROOT", str(course))
    keys = [install.key()]
    for name in ("requirements.txt", "pyproject.toml"):
        with open(course / name, "a") as file:
            file.write("# changed\n")
        keys.append(install.key())
    monkeypatch.setattr(install, "ROOT", str(course.rename(course.parent / "moved")))
    keys.append(install.key())
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    keys.append(install.key())
    assert len(set(keys)) == 5
    assert keys == [*dict.fromkeys(keys)]


HOLD = """
import sys
from classroom.install import only_one
with only_one(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@POSIX
def test_two_set_ups_take_turns_and_a_killed_one_lets_go(tmp_path):
    def another():
        command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)

    with another() as first:
        assert first.stdout.readline() == "held\n"
        with another() as second:
            assert "waiting for it" in second.stdout.readline()
            first.kill()
            assert second.stdout.readline() == "held\n"
            second.stdin.close()
        assert second.returncode == 0


@POSIX
def test_the_programs_of_a_set_up_hold_its_lock_after_it_is_gone(tmp_path):
    path = tmp_path / "lock"
    with open(tmp_path / "gate", "w+") as gate:
        os.remove(gate.name)
        os.mkfifo(gate.name)
        with install.only_one(str(path)) as held:
            script = "import sys; open(sys.argv[1]).read()"
            command = [sys.executable, "-c", script, gate.name]
            child = subprocess.Popen(command, pass_fds=[held.fileno()])
        with open(path, "a+") as file:
            assert not install.try_lock(file)
            open(gate.name, "w").close()
            child.wait()
            assert install.try_lock(file)


def test_all_that_a_step_says_is_in_the_log_and_the_user_sees_its_name(tmp_path, capsys):
    log = tmp_path / "setup.log"
    with open(tmp_path / "lock", "w") as held:
        work = steps.Steps(str(log), dict(os.environ), held)
        script = "import sys; print('to stdout', flush=True); sys.exit('to stderr')"
        code, output = work.run("trying", [sys.executable, "-c", script])
        with pytest.raises(steps.Failed, match=re.escape("can't: to stderr; try: run it again")):
            work.must("trying", [sys.executable, "-c", script], "can't")
    assert code == 1
    assert sorted(output.split("\n")) == ["", "to stderr", "to stdout"]
    assert "to stdout\n" in log.read_text() and "to stderr\n" in log.read_text()
    assert capsys.readouterr().out == "poolkit: trying ...\n" * 2


def test_nothing_of_the_users_settings_reaches_the_course(tmp_path, monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "JUPYTER_PATH", "JUPYTER_TOKEN", "MPLBACKEND"):
        monkeypatch.setenv(name, "theirs")
    env = install.environment(str(tmp_path), "/course/bin")
    assert "theirs" not in env.values()
    assert env["PATH"].startswith("/course/bin" + os.pathsep)
    folders = [name for name in env if name.startswith("JUPYTER") and name.endswith("_DIR")]
    assert len(folders) == 5
    for name in [*folders, "IPYTHONDIR", "MPLCONFIGDIR"]:
        assert env[name].startswith(str(tmp_path))


@pytest.mark.parametrize("home", ["", "nowhere"])
def test_downloads_are_kept_in_the_state_folder_where_the_home_will_not_do(
    home, tmp_path, monkeypatch
):
    for name in ("XDG_CACHE_HOME", "UV_CACHE_DIR", "PIP_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / home))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / home))
    env = install.installing_environment(str(tmp_path / "state"))
    assert ("UV_CACHE_DIR" in env) == ("PIP_CACHE_DIR" in env) == (home == "nowhere")


# After it


def test_every_verb_has_its_target_in_the_makefile_which_does_no_more_than_call_it():
    text = (ROOT / "Makefile").read_text()
    recipes = re.findall(r"^\t(.*)$", text, re.MULTILINE)
    assert recipes == [
        "@$(PYTHON) -m classroom.setup --help",
        "@$(PYTHON) -m classroom.setup $@ $(ARGS)",
    ]
    targets = re.search(r"^(setup .*):$", text, re.MULTILINE)[1].split()
    assert targets == [*subcommands(setup.arguments())]


def test_words_after_test_go_to_pytest_and_after_other_verbs_are_refused(capsys):
    assert setup.parse(["fast", "-k", "leak", "-x", "tests"]).rest == ["-k", "leak", "-x", "tests"]
    with pytest.raises(SystemExit):
        setup.parse(["lab", "--prot", "1"])
    assert "unrecognized arguments: --prot 1" in capsys.readouterr().err


def subcommands(parser):
    return parser._subparsers._group_actions[0].choices


@pytest.mark.parametrize("text", ["0", "65536", "-1", "x", ""])
def test_a_port_that_is_none_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        cli.arguments().parse_args(["lab", f"--port={text}"])
    assert f"{text!r} is not a port" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [*subcommands(cli.arguments())])
def test_the_help_of_every_command_has_an_example(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])
    assert ended.value.code == 0
    assert f"example: poolkit {verb}" in capsys.readouterr().out


def test_what_goes_wrong_in_a_command_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("POOLKIT_HOME", str(tmp_path / "file" / "below"))
    assert cli.main(["lab", "--no-browser"]) == 1
    monkeypatch.setenv("POOLKIT_DSN", "host=127.0.0.1 port=1 user=ada password=sesame")
    assert cli.main(["server", "status"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"(poolkit: .*; try: .*\n){2}", said.err)
    assert "sesame" not in said.err


@pytest.fixture
def jupyterlab(tmp_path):
    """Start JupyterLab as `poolkit lab` does, on a port that is taken; return it and its address.

    The home folder does not exist, the state folder has a space in its name, and the browser is a
    script that writes down what it is given.
    """
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\necho "$1 $POOLKIT_DSN" > "{tmp_path}/opening"\n'
        f'mv "{tmp_path}/opening" "{tmp_path}/opened"\n'
    )
    browser.chmod(0o755)
    env = os.environ | {"HOME": str(tmp_path / "home"), "POOLKIT_HOME": str(tmp_path / "a state")}
    env |= {"DISPLAY": ":0", "BROWSER": f"{browser} %s", "POOLKIT_DSN": "host=theirs"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "classroom.cli", "lab", f"--port={port}"]
        with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as lab:
            try:
                address = next(line.strip() for line in lab.stdout if "http://" in line)
                assert f":{port}/" not in address
                yield lab, address
            finally:
                lab.kill()


@POSIX
@pytest.mark.lab
def test_jupyterlab_opens_wants_its_token_leaves_the_home_alone_and_ends_at_one_interrupt(
    jupyterlab, tmp_path
):
    lab, address = jupyterlab
    form = r"(http://127\.0\.0\.1:\d+)/lab/tree/(.*)\?token=(.*)"
    base, first, token = re.fullmatch(form, address).groups()
    assert first == "notebooks/00_check_setup.ipynb"
    with urllib.request.urlopen(f"{base}/api/kernelspecs?token={token}", timeout=10) as answer:
        assert json.load(answer)["default"] == "python3"
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        urllib.request.urlopen(f"{base}/api/kernelspecs", timeout=10)
    refused.value.close()
    opened = tmp_path / "opened"
    deadline = time.monotonic() + 10
    while not opened.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert opened.read_text() == f"{address} host=theirs\n"
    lab.send_signal(signal.SIGINT)
    assert "has ended" in lab.stdout.read()
    assert lab.wait() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a state", "browser", "opened"]
    assert [path.name for path in (tmp_path / "a state").iterdir()] == ["jupyter"]


def test_what_was_skipped_is_listed_at_the_end_with_its_command():
    lines = []
    reporter = SimpleNamespace(
        stats={
            "skipped": [
                SimpleNamespace(longrepr=("test_a.py", 3, "Skipped: no docker; try: apt it")),
                SimpleNamespace(longrepr=("test_a.py", 9, "Skipped: no docker; try: apt it")),
                SimpleNamespace(longrepr=("test_b.py", 1, "Skipped: not today")),
            ],
            "deselected": [1],
        },
        section=lines.append,
        line=lines.append,
    )
    plugin_skips.pytest_terminal_summary(reporter)
    assert lines == [
        "left out of this run",
        "2 tests skipped: no docker; try: apt it",
        "1 test skipped: not today (its reason names no command)",
        "1 test not chosen; try: make test",
    ]


# The lists of packages


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def required():
    """Return what pyproject.toml asks for on every platform, as {name: Requirement}."""
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = whole["project"]["optional-dependencies"].values()
    lists = [whole["project"]["dependencies"], *extras, *whole["dependency-groups"].values()]
    found = [Requirement(line) for some in lists for line in some]
    return {canonicalize_name(some.name): some for some in found if not some.marker}


def locked():
    """Return the lock as a list of (name, version, hashes)."""
    text = (ROOT / "requirements.txt").read_text()
    return [
        (name, version, re.findall(r"--hash=sha256:[0-9a-f]{64}\b", rest))
        for name, version, rest in re.findall(
            r"(?m)^([a-z0-9-]+)==(\S+)((?:.*\\\n)+.*--hash.*)$", text
        )
    ]


def test_the_lock_pins_what_the_project_asks_for():
    pins = {}
    for name, version, _ in locked():
        pins.setdefault(name, []).append(version)
    for name, requirement in required().items():
        assert all(requirement.specifier.contains(version) for version in pins[name]), name


def test_the_lock_is_nothing_but_pins_with_hashes_and_names_no_address():
    text = (ROOT / "requirements.txt").read_text()
    assert "make lock" in text.splitlines()[1]
    assert all(hashes for _, _, hashes in locked())
    pinned = [line for line in text.splitlines() if line and line[0] not in " #"]
    assert len(pinned) == len(locked())
    assert not re.search(r"://|\s@\s|--(index|extra-index|find-links|trusted)", text)


def test_conda_gets_the_same_packages():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (from_pypi,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    from_conda = [part for part in environment["dependencies"] if isinstance(part, str)]
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert from_conda[0] == "python" + project()["requires-python"]
    assert from_pypi[-1] == "-e ."
    lists = from_conda[1:] + from_pypi[:-1]
    found = {canonicalize_name(Requirement(line).name): Requirement(line) for line in lists}
    del found["pip"]
    asked = {name: str(requirement.specifier) for name, requirement in required().items()}
    assert {name: str(requirement.specifier) for name, requirement in found.items()} == asked


def test_the_readme_lists_every_lesson_in_order():
    listed = re.findall(r"\]\(notebooks/(\w+\.ipynb)\)", (ROOT / "README.md").read_text())
    assert listed == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


# Notebooks as they are saved


PYTHON3 = {"name": "python3", "display_name": "Python 3", "language": "python"}


def notebook(**changes):
    cell = {"cell_type": "code", "id": "one", "metadata": {}, "source": "1"}
    cell |= {"outputs": [], "execution_count": None}
    whole = {"nbformat": 4, "nbformat_minor": 5, "cells": [cell | changes.pop("cell", {})]}
    return json.dumps(whole | {"metadata": {"kernelspec": PYTHON3}} | changes)


@pytest.mark.slow  # nbformat takes a second to import
@pytest.mark.parametrize(
    "changes, words",
    [
        ({"cell": {"execution_count": 1}}, "an execution count is saved"),
        (
            {"cell": {"outputs": [{"output_type": "stream", "name": "stdout", "text": "1"}]}},
            "outputs are saved",
        ),
        ({"cell": {"id": ""}}, "not a valid notebook"),
        ({"cell": {"metadata": {"tags": ["raises-exception"]}}}, "with expect"),
        (
            {"metadata": {"kernelspec": {"name": "mine", "display_name": "x"}}},
            "its kernel is 'mine'",
        ),
        (
            {"metadata": {"kernelspec": {"name": "python3", "display_name": "x"}, "widgets": {}}},
            "widgets",
        ),
    ],
)
def test_a_notebook_is_checked_for_what_should_not_be_saved(changes, words):
    (line,) = lint_notebooks.problems(notebook(**changes))
    assert words in line


@pytest.mark.slow  # nbformat takes a second to import
def test_a_notebook_can_be_stripped_to_its_source():
    output = {"output_type": "stream", "name": "stdout", "text": "1"}
    text = notebook(cell={"execution_count": 3, "outputs": [output]})
    assert len(lint_notebooks.problems(text)) == 2
    assert json.loads(lint_notebooks.stripped(text)) == json.loads(notebook())


@pytest.mark.slow  # nbformat takes a second to import
def test_what_is_not_json_is_not_a_notebook():
    assert lint_notebooks.problems("{") != []
