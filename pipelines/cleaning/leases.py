"""A lease in an object store: who works on a unit, where no kernel frees the lock of a process that died.

    lease = Lease(store, ".work/locks/read")
    with lease.taken() as ours: ...

The lease is an object. Who creates it (If-None-Match) has it, and writes it anew every RENEW_S, each time on the
condition that it still is as the holder left it (If-Match with its ETag). A holder that is dead renews nothing: once
the object is older than LEASE_S, by the store's clock alone, somebody else may replace it on the same condition, so
that one of many succeeds. A holder that was only held up finds its renewal refused; what it still writes are the bytes
that its successor writes too.

A lease that is given back stays as an object without a holder: a removal has no condition in all stores.
"""

import contextlib
import logging
import secrets
import threading
from collections.abc import Iterator

from pipelines.cleaning.object_store import ObjectStore, Written

log = logging.getLogger("chatserver.pipelines")

LEASE_S = 15.0
RENEW_S = 3.0


class Lease:
    """One name. Every holding has an id of its own, so that no two objects of it have the same ETag."""

    def __init__(self, store: ObjectStore, name: str, lease_s: float = LEASE_S, renew_s: float = RENEW_S) -> None:
        self._store = store
        self._name = name
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._id = secrets.token_hex(16)
        self._num_written = 0
        self._ended = threading.Event()

    def is_held(self) -> bool:
        """By anybody who lives, or died less than `lease_s` ago."""
        return self._is_held(self._store.look(self._name))

    def _is_held(self, found: Written | None) -> bool:
        return found is not None and bool(found.notes.get("holder")) and found.age_s <= self._lease_s

    @contextlib.contextmanager
    def taken(self) -> Iterator[bool]:
        """Held while inside; yields False if somebody else holds it."""
        etag = self._take()
        if etag is None:
            yield False
            return
        renewing = threading.Thread(target=self._renew, args=(etag,), name="lease", daemon=True)
        renewing.start()
        try:
            yield True
        finally:
            self._ended.set()
            renewing.join()

    def _take(self) -> str | None:
        found = self._store.look(self._name)
        if self._is_held(found):
            return None
        return self._write(self._id, found.etag if found else "")

    def _write(self, holder: str, etag: str) -> str | None:
        """The new ETag; None if the lease is no longer as it was."""
        self._num_written += 1
        notes = {"holder": holder, "written": f"{self._id}-{self._num_written}"}
        data = notes["written"].encode()
        if etag:
            written = self._store.replace(self._name, data, notes, etag)
        else:
            written = self._store.create(self._name, data, notes)
        if written is None and (found := self._store.look(self._name)) and found.notes == notes:
            return found.etag  # the answer to a first try was lost, and the second was refused
        return written

    def _renew(self, etag: str) -> None:
        """In a thread of its own, until the holder ends or the lease is lost."""
        while not self._ended.wait(self._renew_s):
            try:
                renewed = self._write(self._id, etag)
                is_lost = renewed is None and self._store.look(self._name) is not None
            except OSError as error:
                log.warning("the lease %s is not renewed: %s", self._name, error)
                continue
            if renewed is None:
                if is_lost:  # else the run is finished, and its leases are gone
                    log.warning("the lease %s was lost: it was not renewed for %g s", self._name, self._lease_s)
                return
            etag = renewed
        with contextlib.suppress(OSError):  # it expires
            self._write("", etag)
