"""The control in every experiment: the same API, and no pool.

Each checkout connects, each return closes. Whatever differs in a measurement is what pooling does.
"""

import math
import sys
from itertools import count
from threading import current_thread
from time import monotonic

from . import arguments, messages
from .lending import Lending
from .messages import tell
from .slots import Holder, PoolStats, Slot, list_holders


class Unpooled:
    """Opens a connection for each checkout and closes it on return. There is no limit but the
    server's, and nobody ever waits for anybody but the server."""

    def __init__(
        self, dsn: str = "", *, driver=None, name="unpooled", on_event=None, **connect_kwargs
    ):
        self.name, self.on_event, self.closed = name, on_event, False
        self._driver = arguments.driver(driver, dsn, connect_kwargs, name)
        self._numbers = count(1)
        self._in_use = {}  # id of a connection -> its slot

    def connection(self, timeout: float | None = None):
        """Lend a new connection to a `with` block; commit or roll back, and close it at the end.

        `timeout` is here so that a pool can be swapped in: opening takes what the driver allows.
        """
        return Lending(self, timeout)

    def getconn(self, timeout: float | None = None):
        """Open a connection. Raises what the driver raises, and PoolClosed."""
        return self._checkout(timeout, sys._getframe(1)).conn

    def putconn(self, conn, close: bool = True):
        """Close a connection. What its transaction had not committed is rolled back."""
        slot = self._in_use.get(id(conn))
        if slot is None:
            raise self._not_lent(conn)
        self._give_back(slot, slot.client)

    def stats(self) -> PoolStats:
        """The same numbers as a pool's. There is no limit: `max_size` is what is in use."""
        n = len(self._in_use)
        return PoolStats(n, n, 0, 0, 0)

    def holders(self, older_than: float = 0.0) -> list[Holder]:
        """List who has had a connection for more than `older_than` seconds, the longest first."""
        held = list_holders(self._in_use.values())
        return [holder for holder in held if holder.age >= older_than]

    def close(self, timeout: float = 0.0) -> list[Holder]:
        """Open nothing any more, and return who still has a connection."""
        self.closed = True
        return self.holders()

    closeall = close

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __repr__(self):
        return f"<Unpooled {self.name!r}: {len(self._in_use)} in use>"

    def _checkout(self, timeout, frame, in_with=False):
        if self.closed:
            raise messages.closed(self)
        slot = Slot(next(self._numbers), max_lifetime=math.inf)
        tell(self, "opening", slot.number)
        try:
            slot.fill(self._driver.connect())
        except BaseException:
            tell(self, "failed", slot.number)
            raise
        tell(self, "opened", slot.number)
        client = current_thread(), frame.f_code, frame.f_lasti, in_with
        slot.since, slot.client = monotonic(), client
        self._in_use[slot.key] = slot
        tell(self, "checkout", slot.number, client)
        return slot

    def _give_back(self, slot, client):
        if slot.client is not client or self._in_use.pop(slot.key, None) is None:
            raise self._not_lent(slot.conn)
        slot.client = None
        try:
            tell(self, "return", slot.number)
        finally:
            slot.session.close()
        tell(self, "closed", slot.number)

    def _not_lent(self, conn):
        # It is closed on return: a closed one was returned already, as far as anybody can tell.
        return messages.not_lent(self, conn, known=bool(getattr(conn, "closed", False)))
