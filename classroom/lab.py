"""Start JupyterLab for the course: on loopback only, with everything it writes in one folder.

Jupyter runs in this process, so that it ends when this one does, however that happens; kernels
notice, and end too. What it says goes to a log. The terminal shows the address and no more.
"""

import json
import os
import secrets
import select
import signal
import sys
import threading
from pathlib import Path

from . import place
from .install import environment

FIRST = "notebooks/00_check_setup.ipynb"

# JupyterLab would ask for news and for newer versions of itself; a lesson needs no network.
QUIET = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
    }
}


class LabError(Exception):
    """JupyterLab could not start. The message is one line."""


def run(port: int = 8888, browser: bool = True, first: str = FIRST) -> None:
    """Start JupyterLab on notebook `first`, say where it is, and serve until Ctrl-C.

    `port` is the first to be tried; one that is taken is stepped over. A browser is opened if this
    machine has a screen. Raises LabError, and PlaceError where the state folder can't be written.
    """
    state = place.state()
    env = environment(str(state), os.path.dirname(sys.executable))
    os.environ.clear()
    os.environ.update(env)
    folder = state / "jupyter"
    write_settings(Path(os.environ["JUPYTERLAB_SETTINGS_DIR"]))
    log = folder / "lab.log"
    print("poolkit: starting JupyterLab", flush=True)
    with redirected(log) as terminal:
        try:
            server = prepare(port, browser and has_screen(), first)
            listen(server)
            stop_on_signals(server)
            stop_with_terminal()
            announce(server, first, log, terminal)
            server.start()
        except (SystemExit, OSError) as error:
            why = last_words(log) or error
            raise LabError(f"JupyterLab did not start: {why}; try: another --port") from error
        print("\rpoolkit: JupyterLab has ended, and its kernels with it", file=terminal, flush=True)


def announce(server, first, log, terminal):
    address = f"http://127.0.0.1:{server.port}/lab/tree/{first}?token={server.token}"
    how = "opens in your browser; if not, use" if server.open_browser else "waits at"
    print(
        f"poolkit: JupyterLab {how} this address\n\n    {address}\n\n"
        f"poolkit: Ctrl-C in this window ends it; what Jupyter says goes to {log}",
        file=terminal,
        flush=True,
    )


def prepare(port, browser, first):
    """Return a Jupyter server that has found its port and is ready to start."""
    from jupyterlab.labapp import LabApp

    settings = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 50,
        "ServerApp.allow_root": True,
        "ServerApp.answer_yes": True,
        "ServerApp.open_browser": browser,
        # The file that hides the token lies in a hidden folder, where Ubuntu's Firefox can't look.
        "ServerApp.use_redirect_file": False,
        "ServerApp.root_dir": str(place.ROOT),
        "IdentityProvider.token": secrets.token_hex(24),
        "LabApp.default_url": "/lab/tree/" + first,
        "LabApp.news_url": None,
        "LabApp.check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
        "LabApp.extension_manager": "readonly",
        "LanguageServerManager.autodetect": False,  # else it runs npm, which writes to the home
    }
    return LabApp.initialize_server([f"--{name}={value}" for name, value in settings.items()])


def listen(server):
    """Let the server take its port now. It only looked for a free one so far, and would take it
    when it starts; where many start at once, that is too late.
    """
    for _ in range(50):
        server.io_loop.add_callback(server.io_loop.stop)
        try:
            return server.io_loop.start()  # one turn of the loop, in which it binds
        except SystemExit:
            server.init_httpserver()  # somebody was faster: look again
    raise OSError("every free port was taken by somebody else at the last moment")


def write_settings(folder):
    for name, values in QUIET.items():
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))


def has_screen():
    """Whether a browser can open here; without a screen, one in text would take the terminal."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"))


def stop_on_signals(server):
    """End the server, kernels first, at one Ctrl-C and without a question."""

    def stop(number, frame):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second one does not wait
        server.stop(from_signal=True)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)


def stop_with_terminal():
    """End the server with its terminal, also where nobody passes SIGHUP on, as make does not."""
    if os.name == "nt" or not os.isatty(0):
        return

    def wait():
        terminal = select.poll()
        terminal.register(0, 0)  # nothing but the end of it
        if any(event & select.POLLHUP for _, event in terminal.poll()):
            os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=wait, daemon=True).start()


class redirected:
    """Send this process's output, and its children's, to the file `log`; give back the terminal."""

    def __init__(self, log):
        self.log = log

    def __enter__(self):
        sys.stdout.flush()
        sys.stderr.flush()
        self.saved = [os.dup(1), os.dup(2)]
        # Appending, as a second JupyterLab of this folder writes to the same file.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        with open(os.open(self.log, flags, 0o600), "w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        self.terminal = os.fdopen(os.dup(self.saved[0]), "w")
        return self.terminal

    def __exit__(self, *raised):
        sys.stdout.flush()
        sys.stderr.flush()
        for number, saved in enumerate(self.saved, 1):
            os.dup2(saved, number)
            os.close(saved)
        self.terminal.close()


def last_words(log):
    """Return the last thing that Jupyter called an error or critical, "" if there is none."""
    lines = log.read_text(errors="replace").splitlines()
    told = [line for line in lines if line.startswith(("[E", "[C")) or "ERROR:" in line]
    return (told[-1].partition("ERROR: ")[2] or told[-1]).rstrip(".") if told else ""
