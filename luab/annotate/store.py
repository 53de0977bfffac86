"""What the server stores and reads: workers, assignments, pages, events."""

import hashlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from luab.annotate.config import Interface
from luab.annotate.database import Database


class Refused(Exception):
    """A request that is not carried out: HTTP status and a sentence for the participant."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Slot(NamedTuple):
    """One image on a page. role: candidate, gold or distractor."""

    image: str
    label: str
    role: str


@dataclass(frozen=True)
class Assignment:
    """What one participant is asked to do; `stored` pages are done."""

    id: str
    worker: str
    interface: Interface
    version: str
    assignment_ref: str
    hit_ref: str
    pages: int
    begun_s: float
    done_s: float | None
    code: str | None
    stored: int


@dataclass(frozen=True)
class StoredPage:
    """One page as it was received; `number` counts from 1."""

    assignment: Assignment
    number: int
    id: str
    received_s: float
    slots: list[Slot]
    body: dict[str, Any]


_ASSIGNMENT = """
SELECT assignment.*, (SELECT count(*) FROM page WHERE page.assignment = assignment.id) AS stored FROM assignment
"""


class Store:
    """Questions and changes in the terms of a collection, each in one transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.given_out: dict[Interface, tuple[float, Counter[Any]]] = {}  # of luab.annotate.assignments

    def consented(self, worker: str, version: str) -> bool:
        """Whether a worker has agreed to this version of the consent."""
        with self.database.read() as db:
            row = db.execute("SELECT consent_version FROM worker WHERE id = ?", [worker]).fetchone()
        return row is not None and row["consent_version"] == version

    def consent(self, worker: str, version: str) -> None:
        """Stores that a worker agrees to this version of the consent."""
        with self.database.write() as db:
            db.execute(
                "INSERT INTO worker VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "consent_version = excluded.consent_version, consent_s = excluded.consent_s",
                [worker, version, time.time()],
            )
            log(db, "consent", worker=worker, version=version)

    def assignments(self, worker: str | None = None, interface: Interface | None = None) -> list[Assignment]:
        """Assignments in the order in which they were begun, of one worker or of all."""
        with self.database.read() as db:
            return assignments_in(db, worker, interface)

    def slots(self, assignment: str, page: int) -> list[Slot]:
        """The images of one page, in their order."""
        with self.database.read() as db:
            return _slots(db, assignment, page)

    def put_page(self, worker: str, assignment: str, number: int, page_id: str, body: str, code: str) -> None:
        """Stores one page, once. The same page again changes nothing; with the last page, the assignment is done.

        Args:
            worker: Who sends it.
            assignment, number: Where it belongs; numbers count from 1.
            page_id: Identifies this attempt.
            body: The record, as JSON.
            code: Completion code, if this is the last page.

        Raises:
            Refused: The assignment is not the worker's, the page is stored with another content, or is not the next.
        """
        digest = hashlib.sha256(body.encode()).hexdigest()
        with self.database.write() as db:
            mine = next((one for one in assignments_in(db, worker) if one.id == assignment), None)
            if mine is None:
                raise Refused(404, "This task does not exist, or it was withdrawn. Please reload the page.")
            row = db.execute(
                "SELECT id, digest FROM page WHERE assignment = ? AND number = ?", [assignment, number]
            ).fetchone()
            if row and (row["id"], row["digest"]) == (page_id, digest):
                return
            if row:
                raise Refused(409, "This page was already sent, perhaps from another tab. The next one is shown.")
            if number != mine.stored + 1 or number > mine.pages:
                raise Refused(409, f"Expected page {mine.stored + 1}, received page {number}. The next one is shown.")
            now = time.time()
            try:
                db.execute(
                    "INSERT INTO page VALUES (?, ?, ?, ?, ?, ?)", [assignment, number, page_id, digest, body, now]
                )
            except sqlite3.IntegrityError as error:
                raise Refused(409, "A page with this id is already stored. Please reload the page.") from error
            if number == mine.pages:
                db.execute("UPDATE assignment SET done_s = ?, code = ? WHERE id = ?", [now, code, assignment])
                log(db, "done", worker=worker, assignment=assignment)

    def withdraw(self, worker: str) -> int:
        """Deletes everything about a worker; returns the number of pages. Only that number is kept, without the id."""
        with self.database.write() as db:
            ids = [one.id for one in assignments_in(db, worker)]
            pages = sum(one.stored for one in assignments_in(db, worker))
            db.execute("DELETE FROM worker WHERE id = ?", [worker])
            for text in [worker, *ids]:
                db.execute("DELETE FROM event WHERE instr(detail, ?)", [json.dumps(text)])
            log(db, "withdrawn", pages=pages)
            self.given_out.clear()  # the images are free again
        self.database.forget()
        return pages

    def pages(self, interface: Interface) -> Iterator[StoredPage]:
        """All stored pages of an interface, in the order in which they were received."""
        with self.database.read() as db:
            assignments = {one.id: one for one in assignments_in(db, interface=interface)}
            rows = db.execute("SELECT * FROM page ORDER BY received_s, assignment, number")
            for row in rows:
                if row["assignment"] in assignments:
                    slots = _slots(db, row["assignment"], row["number"])
                    body = json.loads(row["body"])
                    owner = assignments[row["assignment"]]
                    yield StoredPage(owner, row["number"], row["id"], row["received_s"], slots, body)

    def page(self, page_id: str) -> StoredPage | None:
        """One stored page; None if there is none with this id."""
        with self.database.read() as db:
            row = db.execute("SELECT * FROM page WHERE id = ?", [page_id]).fetchone()
            if row is None:
                return None
            owner = next(one for one in assignments_in(db) if one.id == row["assignment"])
            slots = _slots(db, owner.id, row["number"])
            return StoredPage(owner, row["number"], page_id, row["received_s"], slots, json.loads(row["body"]))

    def event_counts(self) -> dict[str, int]:
        """Number of events of each kind; of withdrawals also the number of pages."""
        with self.database.read() as db:
            counts = dict(db.execute("SELECT kind, count(*) FROM event GROUP BY kind").fetchall())
            rows = db.execute("SELECT detail FROM event WHERE kind = 'withdrawn'").fetchall()
        return counts | {"withdrawn_pages": sum(json.loads(row["detail"])["pages"] for row in rows)}


def assignments_in(
    db: sqlite3.Connection, worker: str | None = None, interface: Interface | None = None
) -> list[Assignment]:
    """As `Store.assignments`, within a transaction."""
    rows = db.execute(
        f"{_ASSIGNMENT} WHERE (? IS NULL OR worker = ?) AND (? IS NULL OR interface = ?) ORDER BY begun_s, id",
        [worker, worker, interface, interface],
    )
    return [Assignment(**dict(row)) for row in rows]


def log(db: sqlite3.Connection, kind: str, **detail: Any) -> None:
    """Appends an event; what it says never includes an address or an id of the platform."""
    db.execute("INSERT INTO event (at_s, kind, detail) VALUES (?, ?, ?)", [time.time(), kind, json.dumps(detail)])


def _slots(db: sqlite3.Connection, assignment: str, page: int) -> list[Slot]:
    rows = db.execute(
        "SELECT image, class, role FROM slot WHERE assignment = ? AND page = ? ORDER BY place", [assignment, page]
    )
    return [Slot(*row) for row in rows]
