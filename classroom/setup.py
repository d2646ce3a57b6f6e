"""What `make` calls: `python3 -m classroom.setup VERB`.

    setup   make .venv and install the lock, requirements.txt, into it
    lab     set up, then open JupyterLab on the first notebook
    test    set up, then run every test         fast   only those that need no server
    bench   set up, then measure poolkit beside other pools
    chaos   set up, then misuse a pool for a minute, and hurt its server
    lint    set up, then check code and notebooks
    lock    set up, then write requirements.txt again from pyproject.toml
    clean   remove what the commands above can make again

Standard library only: it runs before anything is installed. The file must also *parse* on Python
3.6, so that an old Python gets one line that says so and not a SyntaxError: no walrus, no match,
no `int | None` in a signature.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys

from . import install
from .install import BIN, EXE, PYTHON, ROOT, VENV, environment, installing_environment, state_folder
from .steps import Stop, about, say

NEEDED = (3, 11)


# Which Python


def command_for(verb, python=None):
    """Return how this machine's user types `verb`, with another Python if one is named."""
    if os.name == "nt":
        return "py {}-m classroom.setup {}".format(python + " " if python else "", verb)
    return f"make {verb}" + (f" PYTHON={python}" if python else "")


def too_old(version, newer, verb):
    """Return the line for a Python that is too old; `newer` is the name of one that is not."""
    found = ".".join(map(str, version[:3]))
    need = ".".join(map(str, NEEDED))
    line = f"Python {found} is too old: this course needs {need} or newer; "
    if newer:
        return line + f"found {newer}, so try: {command_for(verb, newer)}"
    return line + f"install one, then try: {command_for(verb, 'python3.12')}"


def newer_python():
    """Return the name of the newest Python on PATH that will do, or None."""
    for minor in range(NEEDED[1] + 9, NEEDED[1] - 1, -1):
        name = f"python3.{minor}"
        if shutil.which(name):
            # A name on PATH can be a version manager's shim with nothing behind it.
            with open(os.devnull, "w") as nowhere:
                if subprocess.call([name, "-c", ""], stdout=nowhere, stderr=nowhere) == 0:
                    return name
    return None


# The verbs


def start(command):
    """Run `command` in the course's environment in place of this program."""
    become(command, environment(state_folder(), BIN))


def become(command, env):
    os.chdir(ROOT)
    sys.stdout.flush()
    if os.name != "nt":
        os.execve(command[0], command, env)
    process = subprocess.Popen(command, env=env)
    while True:  # Ctrl-C goes to both; what it means is for the started program to say
        with contextlib.suppress(KeyboardInterrupt):
            raise SystemExit(process.wait())


def lab(options):
    command = [PYTHON, "-m", "classroom.cli", "lab"]
    if options.no_browser:
        command.append("--no-browser")
    start([*command, "--port", str(options.port)])


def test(options):
    start([PYTHON, "-m", "pytest", "-p", "tests.plugin_skips", "-rfEX", *options.rest])


def fast(options):
    # The model is slow, and to find that out pytest would import hypothesis, which takes a second.
    left_out = ["-m", "not (server or lesson or lab or slow)", "--ignore=tests/test_pool_model.py"]
    test(argparse.Namespace(rest=[*left_out, *options.rest]))


def bench(options):
    start([PYTHON, "-m", "bench", *options.rest])


def chaos(options):
    start([PYTHON, "-m", "tests.chaos", *options.rest])


def lint(options):
    ruff = os.path.join(BIN, "ruff" + EXE)
    codes = [
        subprocess.call(command, cwd=ROOT)
        for command in (
            [ruff, "check", "."],
            [ruff, "format", "--check", "."],
            [PYTHON, "-m", "classroom.lint_notebooks"],
        )
    ]
    return max(codes)


def lock(options):
    """Write the lock: all platforms, all Pythons from 3.11, hashes, and no download address."""
    uv = os.path.join(BIN, "uv" + EXE)
    command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-emit-index-url", "--extra", "peers", "--group", "dev"]
    command += ["--custom-compile-command", "make lock", "-o", "requirements.txt", "pyproject.toml"]
    if options.upgrade:
        command.append("--upgrade")
    code = subprocess.call(command, cwd=ROOT, env=installing_environment(state_folder()))
    if code == 0:
        say("requirements.txt is written; `make setup` installs it")
    return code


def clean():
    """Remove what the other verbs can make again; what a learner did stays."""
    if os.path.isdir(VENV):
        with install.only_one(install.LOCK_FILE):
            install.write_stamp("unfinished\n")
            install.empty()
        shutil.rmtree(VENV)
    rubbish = ("__pycache__", ".ipynb_checkpoints", ".pytest_cache", ".ruff_cache", ".hypothesis")
    for folder, names, _ in os.walk(ROOT):
        names[:] = [name for name in names if name not in (".git", ".poolkit")]
        for name in [*names]:
            if name in rubbish or name.endswith(".egg-info"):
                shutil.rmtree(os.path.join(folder, name))
                names.remove(name)
    shutil.rmtree(os.path.join(ROOT, "build"), ignore_errors=True)
    say("clean; .poolkit, with the private server's data and your progress, is kept")


def port(text):
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: try a number up to 65535")
    return int(text)


def arguments():
    parser = argparse.ArgumentParser(
        prog="python3 -m classroom.setup", description="Set up and start the course."
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    verbs.add_parser("setup", help="make .venv and install everything into it")
    one = verbs.add_parser("lab", help="set up, then open JupyterLab on the first notebook")
    one.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    one.add_argument("--port", type=port, default=8888, help="first port to try (%(default)s)")
    for name, text in [("test", "run every test"), ("fast", "run the tests that need no server")]:
        text = f"set up, then {text}; what follows goes to pytest"
        verbs.add_parser(name, help=text, add_help=False)
    text = "set up, then measure poolkit beside other pools: --quick, --write"
    verbs.add_parser("bench", help=text, add_help=False)
    text = "set up, then misuse a pool and hurt its server for a minute, or for: SECONDS --seed N"
    verbs.add_parser("chaos", help=text, add_help=False)
    verbs.add_parser("lint", help="set up, then check code and notebooks")
    one = verbs.add_parser("lock", help="set up, then write requirements.txt again")
    one.add_argument("--upgrade", action="store_true", help="take the newest versions")
    verbs.add_parser("clean", help="remove what the other verbs can make again")
    return parser


def parse(argv):
    parser = arguments()
    options, options.rest = parser.parse_known_args(argv)
    if options.rest and options.verb not in ("test", "fast", "bench", "chaos"):
        parser.error("unrecognized arguments: " + " ".join(options.rest))
    return options


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    try:
        if sys.version_info < NEEDED:
            # Made once with `PYTHON=python3.12`, the .venv serves a plain `make lab` too.
            if install.read_stamp().startswith("finished") and os.path.exists(PYTHON):
                become([PYTHON, "-m", "classroom.setup", *argv], os.environ)
            raise Stop(too_old(sys.version_info, newer_python(), argv[0] if argv else "lab"))
        options = parse(argv)
        if options.verb == "clean":
            return clean()
        done = install.setup()
        if options.verb == "setup":
            return None if done else say("everything is set up")
        return VERBS[options.verb](options)
    except Stop as stop:
        line = str(stop)
    except OSError as error:
        line = about(error)
    except KeyboardInterrupt:
        line = "stopped; the same command goes on from here"
    print("poolkit: " + line, file=sys.stderr)
    return 1


VERBS = {
    "lab": lab,
    "test": test,
    "fast": fast,
    "bench": bench,
    "chaos": chaos,
    "lint": lint,
    "lock": lock,
}

if __name__ == "__main__":
    sys.exit(main())
