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
from contextlib import closing
from select import select
from time import monotonic

import psycopg2
from psycopg2.extensions import make_dsn

from classroom.observer import Dsn


class Distance:
    """The server at `dsn`, seen from `rtt` seconds away (there and back).

    The attribute `dsn` is its address from there. `rtt` may be changed at any time, and holds for
    what is sent from then on. `trips` counts round trips, those of all connections together: a
    message and the wait for its answer; to reach the server at all is one, TCP's own handshake.

    Connects once, to find out where the server is; psycopg2's errors pass through. Then listens on
    127.0.0.1, until `close()` or the end of a `with` block, which cut what is still connected.
    """

    def __init__(self, dsn: str, rtt: float = 0.0):
        if not 0 <= rtt < math.inf:
            raise ValueError(f"rtt must be a number of seconds, 0 or more, got {rtt!r}")
        self.rtt, self.trips = rtt, 0
        with closing(psycopg2.connect(dsn)) as conn:
            self._server = conn.info.host, conn.info.port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stop, self._stopped = socket.socketpair()
        self._ways = []  # two for each connection, there and back
        # A host keeps its name: certificates and password files go by it.
        host = self._server[0] if not _is_folder(self._server[0]) else "127.0.0.1"
        port = self._listener.getsockname()[1]
        self.dsn = Dsn(make_dsn(dsn, host=host, hostaddr="127.0.0.1", port=port))
        self._thread = threading.Thread(target=self._relay, name="distance", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cut all connections, and wait until that is done."""
        self._stop.close()
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    # -- in the relay's own thread ---------------------------------------------------------------

    def _relay(self):
        # select, as it is the one that can wait for less than a millisecond.
        while True:
            now = monotonic()
            late = [way.target for way in self._ways if way.due <= now]
            wait = min((way.due - now for way in self._ways if way.due > now), default=math.inf)
            wait = None if wait == math.inf else wait
            sources = [way.source for way in self._ways if not way.ended]
            readable, writable, _ = select([self._stopped, self._listener, *sources], late, [], wait)
            if self._stopped in readable:
                break
            for way in self._ways:
                if way.source in readable:
                    self._receive(way)
                if way.target in writable:
                    way.send()
            if self._listener in readable:
                self._accept()
            self._clear_up()
        self._clear_up(everything=True)
        self._listener.close()
        self._stopped.close()

    def _accept(self):
        # The system has answered the client already, as if there were no distance. So what the
        # client says first starts on its way one round trip later.
        client, _ = self._listener.accept()
        opens = monotonic() + self.rtt
        try:
            server = _reach(*self._server)
        except OSError:  # the server is gone: the client learns that as it would without a relay
            client.close()
            return
        for end in (client, server):
            end.setblocking(False)
        there, back = Way(client, server, opens), Way(server, client, opens)
        there.back = back
        self._ways += [there, back]
        self.trips += 1

    def _receive(self, way):
        message = way.receive(self.rtt / 2)
        if not message:
            return
        if way.back:
            way.back.awaited = True
        elif way.awaited:
            way.awaited = False
            self.trips += 1

    def _clear_up(self, everything=False):
        for way in self._ways:
            if way.done or everything:
                way.source.close()
                way.target.close()
        self._ways = [way for way in self._ways if way.source.fileno() >= 0]


class Way:
    """One direction of one connection, with what is under way on it."""

    def __init__(self, source, target, opens):
        self.source, self.target, self.opens = source, target, opens
        self.back = None  # the other direction, on the way from the client
        self.awaited = False  # the client has asked, and had no answer yet
        self.under_way = deque()  # (when it arrives, bytes), no bytes: the end
        self.ended = self.done = False  # nothing more comes in; the end has arrived

    @property
    def due(self) -> float:
        """When the next message arrives."""
        return self.under_way[0][0] if self.under_way else math.inf

    def receive(self, delay):
        try:
            message = self.source.recv(65536)
        except OSError:  # cut off
            message = b""
        self.ended = not message
        self.under_way.append((max(monotonic(), self.opens) + delay, message))
        return message

    def send(self):
        due, message = self.under_way.popleft()
        try:
            rest = message[self.target.send(message) :]
        except OSError:
            rest, self.done = b"", True
        if rest:
            self.under_way.appendleft((due, rest))
        self.done = self.done or not message


def _is_folder(host):
    return host.startswith(("/", "@"))  # of a Unix socket


def _reach(host, port):
    if _is_folder(host):
        end = socket.socket(socket.AF_UNIX)
        end.connect(f"{host}/.s.PGSQL.{port}")
        return end
    end = socket.create_connection((host, port), timeout=10)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return end
