"""A server far away, on this very machine: a relay that holds every message for a while.

    with Distance(lab.dsn, rtt=0.010) as far:      # 10 ms there and back
        conn = psycopg2.connect(far.dsn)           # the same server, the same role
        far.trips                                  # how often somebody waited for an answer

    client  ── message ──►  relay, for rtt / 2  ──►  server
            ◄──  relay, for rtt / 2  ◄── answer ──

Only the way is longer. Nothing gets lost, and the relay carries as much at once as anybody sends.
"""

import socket
import threading
from collections import deque
from contextlib import closing, suppress
from select import select
from time import monotonic

import psycopg2
from psycopg2.extensions import make_dsn

from classroom.observer import Dsn


class Distance:
    """The server at `dsn`, as it looks from `rtt` seconds away (there and back).

    `dsn` (the attribute) is its address from there; `rtt` may be changed at any time, and holds for
    what is sent from then on; `trips` counts the round trips so far, of all connections together.
    Finds out where the server is by connecting to it once: psycopg2's errors pass through. Listens
    on 127.0.0.1, until `close()` or the end of a `with` block cuts all its connections.
    """

    def __init__(self, dsn: str, rtt: float = 0.0):
        self.rtt, self.trips = rtt, 0
        with closing(psycopg2.connect(dsn)) as conn:
            self._server = conn.info.host, conn.info.port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._hang_up, self._hung_up = socket.socketpair()
        port = self._listener.getsockname()[1]
        # A host's name stays what it is: certificates and password files go by it.
        host = "127.0.0.1" if self._server[0].startswith(("/", "@")) else self._server[0]
        self.dsn = Dsn(make_dsn(dsn, host=host, hostaddr="127.0.0.1", port=port))
        self._ways = []  # two for each connection, there and back
        self._thread = threading.Thread(target=self._relay, name="distance", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cut every connection, and wait for the relay to end."""
        with suppress(OSError):  # closed already
            self._hang_up.send(b".")
        self._thread.join()
        self._hang_up.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    # -- the relay's own thread ------------------------------------------------------------------

    def _relay(self):
        with self._listener, self._hung_up:
            while True:
                now = monotonic()
                dues = [way.messages[0][0] for way in self._ways if way.messages]
                late = [way.target for way in self._ways if way.messages and way.due <= now]
                wait = min((due - now for due in dues if due > now), default=None)
                sources = [way.source for way in self._ways if not way.ended]
                ready = select([self._hung_up, self._listener, *sources], late, [], wait)
                if self._hung_up in ready[0]:
                    break
                if self._listener in ready[0]:
                    self._accept()
                for way in list(self._ways):
                    if way.source in ready[0]:
                        self._receive(way)
                    if way.target in ready[1]:
                        self._send(way)
            for way in list(self._ways):
                self._cut(way)
