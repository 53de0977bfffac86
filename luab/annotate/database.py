"""The SQLite file of a collection: one writer, no second server, no network file system."""

import contextlib
import fcntl
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from luab.errors import DataError, JobError

_SCHEMA = """
CREATE TABLE worker (id TEXT PRIMARY KEY, consent_version TEXT NOT NULL, consent_s REAL NOT NULL);
CREATE TABLE assignment (
    id TEXT PRIMARY KEY,
    worker TEXT NOT NULL REFERENCES worker (id) ON DELETE CASCADE,
    interface TEXT NOT NULL,
    version TEXT NOT NULL,
    assignment_ref TEXT NOT NULL,
    hit_ref TEXT NOT NULL,
    pages INTEGER NOT NULL,
    begun_s REAL NOT NULL,
    done_s REAL,
    code TEXT
);
CREATE INDEX assignment_of_worker ON assignment (worker, interface);
CREATE TABLE slot (
    assignment TEXT NOT NULL REFERENCES assignment (id) ON DELETE CASCADE,
    page INTEGER NOT NULL,
    place INTEGER NOT NULL,
    image TEXT NOT NULL,
    class TEXT NOT NULL,
    role TEXT NOT NULL,
    PRIMARY KEY (assignment, page, place)
) WITHOUT ROWID;
CREATE TABLE page (
    assignment TEXT NOT NULL REFERENCES assignment (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    id TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL,
    body TEXT NOT NULL,
    received_s REAL NOT NULL,
    PRIMARY KEY (assignment, number)
);
CREATE TABLE event (number INTEGER PRIMARY KEY, at_s REAL NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL);
"""
_FORMAT = 1  # PRAGMA user_version of files with this schema

# Write-ahead logs need memory shared between processes, which these do not have, and locks, which some of them fake.
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|afs|9p|ceph|lustre|gpfs|beegfs|glusterfs|panfs|wekafs|orangefs|ocfs2|gfs2?"
    r"|fuse\.(sshfs|s3fs|rclone|gcsfuse|glusterfs|ceph.*|juicefs|beegfs.*)|davfs|vboxsf|virtiofs|prl_fs"
)


def file_system_of(path: Path, mounts: str) -> str:
    """Returns the type of the file system that holds `path`; `mounts` is the text of /proc/self/mountinfo."""
    best, kind = "", ""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].encode().decode("unicode_escape")  # blanks are written as \040
        if Path(point) in (path, *path.parents) and len(point) >= len(best):
            best, kind = point, rest.split()[0]
    return kind


def check_local(file: Path) -> None:
    """Raises DataError if the file is on a network file system; where the system does not say, nothing is checked."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    kind = file_system_of(file.resolve(), mounts)
    if _NETWORK.fullmatch(kind):
        raise DataError(
            f"{file}: this is on a network file system ({kind}), where SQLite can lose or damage records. Set "
            "`database` in the configuration to a file on a local disk, and copy the finished collection afterwards."
        )


class Database:
    """One open collection; `write` is a transaction, `read` a snapshot of what was committed."""

    def __init__(self, file: Path) -> None:
        check_local(file)
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        self._lock_file = open(file.with_suffix(".lock"), "a", encoding="utf-8")  # noqa: SIM115 - held while open
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock_file.close()
            raise JobError(
                f"{file}: another server already uses this collection. Stop it, or set another `database`."
            ) from error
        self._lock = threading.Lock()
        self._readers: list[sqlite3.Connection] = []  # not in use
        new = not file.exists()
        if new:  # made before SQLite opens it, so that nobody else can read it
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
        try:
            self._writer = self._connect()
            self._open(new)
        except sqlite3.DatabaseError as error:
            self._lock_file.close()
            raise DataError(f"{file}: expected a collection of luab annotate ({error}). Restore a copy.") from error

    def _open(self, new: bool) -> None:
        self._writer.execute("PRAGMA journal_mode = WAL")
        if new or self._writer.execute("PRAGMA page_count").fetchone()[0] == 0:
            self._writer.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_FORMAT}; COMMIT;")
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version != _FORMAT:
            self.close()
            raise DataError(
                f"{self.file}: expected a collection of format {_FORMAT}, found {version}. Use the luab that made it."
            )

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.file, timeout=5, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        try:
            # FULL: an acknowledged page survives a power cut. secure_delete: what people withdraw is overwritten.
            connection.executescript("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;")
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that alone may write; committed at the end, undone after an error."""
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A snapshot of what was committed; others may write meanwhile."""
        connection = self._readers.pop() if self._readers else self._connect()
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            yield connection
        finally:
            connection.rollback()
            self._readers.append(connection)

    def forget(self) -> None:
        """Empties the write-ahead log, which may hold what was deleted."""
        with self._lock:
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Closes the file; another server may open it then."""
        with self._lock:
            for connection in (*self._readers, self._writer):
                connection.close()
        self._lock_file.close()
