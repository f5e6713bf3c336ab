"""Locks of a store: two processes never write to one campaign."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import IO, Any

from matdesign.errors import DataError


def lock_file(path: Path) -> IO[str] | None:
    """Hold a lock that the system drops when this process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return None
    file = path.with_suffix(".db-writer").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        file.close()
        if problem.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise _busy(str(path)) from None
        raise DataError(
            f"the file system of {path} offers no locks ({problem.strerror}), so two "
            "processes could write at once. Put the store on a local disk."
        ) from None
    return file


def lock_database(database: Any, name: str) -> Any:
    """Hold a connection with a lock that the server drops when the connection ends."""
    if database.type != "postgresql":
        raise DataError(
            f"{name}: no lock is known for databases of type {database.type!r}, so two "
            "processes could write at once. Use PostgreSQL or a file ending in .db."
        )
    key = hashlib.sha256(name.partition("/")[2].encode()).hexdigest()[:16]
    held = database._connect()
    cursor = held.cursor()
    cursor.execute(f"SELECT pg_try_advisory_lock(hashtext('matdesign-{key}'))")
    if not cursor.fetchone()[0]:
        held.close()
        raise _busy(name)
    return held


def _busy(name: str) -> DataError:
    return DataError(
        f"another process is writing to {name}. Wait for it or stop it, then resume; two "
        "campaigns need two stores."
    )
