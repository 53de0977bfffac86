"""Draws assignments: which images and classes a participant gets, so that each image is seen often enough."""

import random
import secrets
import sqlite3
import time
from collections import Counter
from typing import Any

from luab.annotate.config import Browsing, Collection, Interface, Tagging
from luab.annotate.pool import Pair, Pool
from luab.annotate.store import Assignment, Slot, Store, assignments_in, log

Pages = list[list[Slot]]
_RECOUNT_S = 600


def current_assignment(
    store: Store, collection: Collection, pool: Pool, interface: Interface, session: dict[str, Any], another: bool
) -> Assignment | None:
    """Returns the open assignment of a worker, the last finished one, or a new one.

    Args:
        store, collection, pool: The collection.
        interface: browsing or tagging.
        session: worker, and from the platform assignment_ref, hit_ref and version.
        another: Whether a worker who has finished wants one more.

    Returns:
        None if there is nothing to do for this worker.
    """
    worker = session["worker"]
    with store.database.write() as db:
        mine = assignments_in(db, worker, interface)
        open_ones = [one for one in mine if one.done_s is None]
        if open_ones:
            return open_ones[0]
        limit = collection.assignments_per_worker
        if mine and (not another or (limit is not None and len(mine) >= limit)):
            return mine[-1]
        stop = collection.stop_after_pages
        if stop is not None and db.execute("SELECT count(*) FROM page").fetchone()[0] >= stop:
            return mine[-1] if mine else None
        taken = _times_given_out(store, db, interface, collection.abandoned_h)
        pages = _draw(db, getattr(collection, interface), pool, taken, worker)
        if not pages:
            return mine[-1] if mine else None
        _insert(db, collection, interface, session, pages)
        taken.update(Pair(slot.image, slot.label) for page in pages for slot in page if slot.role == "candidate")
        return assignments_in(db, worker, interface)[-1]


def _draw(db: sqlite3.Connection, section: Browsing | Tagging, pool: Pool, taken: Counter[Pair], worker: str) -> Pages:
    rows = db.execute(
        "SELECT image, class FROM slot JOIN assignment ON assignment.id = slot.assignment WHERE worker = ?", [worker]
    )
    seen = {Pair(*row) for row in rows}
    rng = random.Random(secrets.randbits(64))
    if isinstance(section, Browsing):
        return draw_browsing(section, pool, taken, seen, rng)
    return draw_tagging(section, pool, taken, seen, rng)


def _times_given_out(store: Store, db: sqlite3.Connection, interface: Interface, abandoned_h: float) -> Counter[Pair]:
    """How often each pair was annotated, or may still be: pages of abandoned assignments do not count.

    Counted again from time to time, since assignments become abandoned; in between, whoever draws adds to the counts.
    """
    counted_s, counts = store.given_out.get(interface, (0.0, Counter[Pair]()))
    if time.time() - counted_s < _RECOUNT_S:
        return counts
    rows = db.execute(
        "SELECT image, class, count(*) FROM slot JOIN assignment ON assignment.id = slot.assignment "
        "LEFT JOIN page ON page.assignment = slot.assignment AND page.number = slot.page "
        "WHERE interface = ? AND role = 'candidate' AND (page.id IS NOT NULL OR begun_s > ?) GROUP BY image, class",
        [interface, time.time() - abandoned_h * 3600],
    )
    counts = Counter({Pair(image, label): count for image, label, count in rows})
    store.given_out[interface] = time.time(), counts
    return counts


def draw_browsing(section: Browsing, pool: Pool, taken: Counter[Pair], seen: set[Pair], rng: random.Random) -> Pages:
    """Draws pages of one class each: classes with the most open images first, images seen least first.

    Args:
        section, pool: The interface and its images.
        taken: How often each pair was given out.
        seen: Pairs that this worker already had; they are not drawn again.
        rng: Source of chance.

    Returns:
        At most `pages` pages; fewer, or smaller ones, when the images run out.
    """
    open_images: dict[str, list[str]] = {}
    for label, images in pool.candidates.items():
        known, most, chance = set(pool.gold.get(label, ())), section.annotators_per_image, rng.random
        counts = [(taken.get(Pair(image, label), 0), chance(), image) for image in images if image not in known]
        open_images[label] = [
            image for count, _, image in sorted(counts) if count < most and Pair(image, label) not in seen
        ]
    room = section.images_per_page - section.gold_per_page - section.distractors_per_page
    uses: Counter[str] = Counter()
    used: set[Pair] = set(seen)
    pages: Pages = []
    while len(pages) < section.pages and any(open_images.values()):
        label = max(
            (label for label, images in open_images.items() if images),
            key=lambda label: (-uses[label], min(len(open_images[label]), room), rng.random()),
        )
        uses[label] += 1
        chosen, open_images[label] = open_images[label][:room], open_images[label][room:]
        page = [Slot(image, label, "candidate") for image in chosen]
        gold = [image for image in pool.gold.get(label, []) if Pair(image, label) not in used]
        page += [Slot(image, label, "gold") for image in _sample(gold, section.gold_per_page, rng)]
        page += _distractors(section, pool, label, used, rng)
        used |= {Pair(slot.image, slot.label) for slot in page}
        rng.shuffle(page)
        pages.append(page)
    return pages


def _distractors(section: Browsing, pool: Pool, label: str, used: set[Pair], rng: random.Random) -> list[Slot]:
    if not section.distractors_per_page:
        return []
    own = set(pool.candidates[label])
    others = sorted({image for other, images in pool.candidates.items() if other != label for image in images} - own)
    fresh = [image for image in others if Pair(image, label) not in used]
    return [Slot(image, label, "distractor") for image in _sample(fresh, section.distractors_per_page, rng)]


def draw_tagging(section: Tagging, pool: Pool, taken: Counter[Pair], seen: set[Pair], rng: random.Random) -> Pages:
    """Draws pages of one image each, those seen least first, mixed with some whose objects are known.

    Arguments and return value as for `draw_browsing`.
    """
    images = [image for image in pool.candidates[""] if image not in pool.gold and Pair(image, "") not in seen]
    images = [image for image in images if taken[Pair(image, "")] < section.annotators_per_image]
    rng.shuffle(images)
    images.sort(key=lambda image: taken[Pair(image, "")])
    if not images:
        return []
    gold = _sample(
        [image for image in sorted(pool.gold) if Pair(image, "") not in seen], section.gold_per_assignment, rng
    )
    pages = [[Slot(image, "", "candidate")] for image in images[: max(1, section.pages - len(gold))]]
    pages += [[Slot(image, "", "gold")] for image in gold]
    rng.shuffle(pages)
    return pages


def _sample(items: list[str], count: int, rng: random.Random) -> list[str]:
    return rng.sample(items, min(count, len(items)))


def _insert(
    db: sqlite3.Connection, collection: Collection, interface: Interface, session: dict[str, Any], pages: Pages
) -> None:
    known = collection.browsing.versions if interface == "browsing" and collection.browsing else []
    version = session.get("version")
    if interface == "tagging" and collection.tagging:
        version = collection.tagging.version
    elif version not in known:
        version = random.choice(known)
    assignment = secrets.token_hex(16)
    values = [session["assignment_ref"], session["hit_ref"], len(pages), time.time(), None, None]
    row = [assignment, session["worker"], interface, version, *values]
    db.execute("INSERT INTO assignment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    slots = [(assignment, n, k, *slot) for n, page in enumerate(pages, 1) for k, slot in enumerate(page)]
    db.executemany("INSERT INTO slot VALUES (?, ?, ?, ?, ?, ?)", slots)
    log(db, "begun", worker=session["worker"], assignment=assignment, pages=len(pages))
