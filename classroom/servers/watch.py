"""Stop the private server after its last user: `python -m classroom.servers.watch HOME`.

Started by the first user, and detached from it. It looks whether anybody still holds the lock
`users`, and asks nobody: a process that is killed lets go of it too.
"""

import contextlib
import sys
import threading
import time
from pathlib import Path

import fasteners

from . import ServerError, postgres

INTERVAL = 0.25  # seconds between two looks


def main(home: Path) -> None:
    server = postgres.Private(home)
    watcher = fasteners.InterProcessLock(server.base / "watcher")
    if not watcher.acquire(blocking=False):
        return  # one is enough
    threading.Thread(target=server.cluster.sync, daemon=True).start()
    while server.base.exists():  # a server whose folder is removed ends itself within a minute
        with contextlib.suppress(ServerError, OSError), server.alone():
            if server.unused():
                server.cluster.shut_down()
                server.cluster.tidy()
                # Before the server's lock: who starts it next must see that nobody watches.
                watcher.release()
                return
        time.sleep(INTERVAL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
