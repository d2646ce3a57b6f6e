"""A server far away, on this very machine: a relay in front of it that holds every message.

    with Distance(lab.dsn, rtt=0.010) as far:      # 10 ms there and back
        conn = psycopg2.connect(far.dsn)           # the same server, the same role
        far.trips                                  # how often somebody waited for an answer

    client ──── message ───► relay, for rtt/2 ────► server
           ◄─── relay, for rtt/2 ◄─── answer ──────

Only the way is longer: nothing gets lost, and it is as wide as anybody likes.
"""

import math
import socket
import threading
from collections import deque
from contextlib import ExitStack, closing, suppress
from select import select
from time import monotonic

import psycopg2
from psycopg2.extensions import make_dsn

from classroom.observer import Dsn


class Distance:
    """The server at `dsn`, seen from `rtt` seconds away (there and back).

    The attribute `dsn` is its address from there. `rtt` may be changed at any time, and holds for
    what is sent from then on. `trips` counts the round trips of all connections: a message and the
    wait for its answer; and to reach the server at all, TCP's own handshake, is one.

    Connects once, to find out where the server is; psycopg2's errors pass through. Then listens on
    127.0.0.1, until `close()` or the end of a `with` block, which cut what is still connected.
    """

    def __init__(self, dsn: str, rtt: float = 0.0):
        if not 0 <= rtt < math.inf:
            raise ValueError(f"rtt must be a number of seconds, 0 or more, got {rtt!r}")
        self.rtt, self.trips = rtt, 0
        with closing(psycopg2.connect(dsn)) as conn:
            self._server = conn.info.host, conn.info.port
        self._counting = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stop, self._stopped = socket.socketpair()  # closing one end wakes whoever selects
        # A host keeps its name: certificates and password files go by it.
        host = "127.0.0.1" if _is_folder(self._server[0]) else self._server[0]
        port = self._listener.getsockname()[1]
        self.dsn = Dsn(make_dsn(dsn, host=host, hostaddr="127.0.0.1", port=port))
        self._relays = []
        self._thread = threading.Thread(target=self._accept, name="distance", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cut all connections, and wait until that is done."""
        self._stop.close()
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    # -- in threads of its own: one that accepts, and one for each connection ----------------------

    def _accept(self):
        with self._listener, self._stopped:
            while self._stopped not in _readable([self._stopped, self._listener]):
                client, _ = self._listener.accept()
                relay = threading.Thread(target=self._relay, args=(client,), daemon=True)
                relay.start()
                self._relays = [one for one in self._relays if one.is_alive()] + [relay]
            for relay in self._relays:
                relay.join()

    def _relay(self, client):
        # The system has let the client in already, as if there were no distance. What that should
        # have taken, the client's first message waits for.
        opens = monotonic() + self.rtt
        self._count_trip()
        open_ends, server, asked = [client], None, False
        under_way = deque()  # (when it arrives, from whom, message), no message: the end
        with ExitStack() as ends, suppress(OSError):  # one that is cut off ends the other, too
            ends.enter_context(client)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # no waiting but ours
            while True:
                readable = _readable([self._stopped, *open_ends], under_way and under_way[0][0])
                if self._stopped in readable:
                    return
                for end in readable:
                    message = end.recv(65536)
                    under_way.append((max(monotonic(), opens) + self.rtt / 2, end, message))
                    if not message:
                        open_ends.remove(end)
                    elif end is client:
                        asked = True
                    elif asked:
                        asked = False
                        self._count_trip()
                while under_way and under_way[0][0] <= monotonic():
                    _, end, message = under_way.popleft()
                    if not message:
                        return
                    if server is None:  # the server begins when it is first spoken to
                        server = ends.enter_context(_reach(*self._server))
                        open_ends.append(server)
                    (server if end is client else client).sendall(message)

    def _count_trip(self):
        with self._counting:
            self.trips += 1


def _readable(ends, until=None):
    # select, as it is the one that can wait for less than a millisecond.
    return select(ends, [], [], max(0.0, until - monotonic()) if until else None)[0]


def _is_folder(host):
    return host.startswith(("/", "@"))  # of a Unix socket


def _reach(host, port):
    if _is_folder(host):
        end = socket.socket(socket.AF_UNIX)
        end.connect(f"{host}/.s.PGSQL.{port}")
    else:
        end = socket.create_connection((host, port), timeout=10)
        end.settimeout(None)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return end
