"""`with pool.connection() as conn`: one checkout, one end of transaction, one return."""

import sys


class Lending:
    """A `with` block's checkout, from a pool or from what stands in for one.

    It returns the checkout that it made, and not whoever has that connection by then: a block may
    have returned its connection by itself.
    """

    __slots__ = ("_pool", "_timeout", "_slot", "_client")

    def __init__(self, pool, timeout):
        self._pool, self._timeout = pool, timeout

    def __enter__(self):
        self._slot = self._pool._checkout(self._timeout, sys._getframe(1), in_with=True)
        self._client = self._slot.client
        return self._slot.conn

    def __exit__(self, exc_type, exc, traceback):
        pool, slot, client = self._pool, self._slot, self._client
        if slot.client is not client:
            if exc_type is None:
                raise pool._not_lent(slot.conn)
            return
        try:
            if exc_type is None:
                slot.session.commit()
        finally:
            pool._give_back(slot, client)
