"""What the administrator's page requests: progress, quality, stored pages, exports."""

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.responses import FileResponse, JSONResponse

from luab.annotate.desk import Desk
from luab.annotate.exports import FORMATS, export
from luab.annotate.quality import quality_report
from luab.annotate.store import Refused
from luab.errors import LuabError

_HOUR_S = 3600


def answer(desk: Desk, what: str, query: dict[str, str]) -> Any:
    """Returns the answer to one request of the administrator's page, as JSON values or as a file."""
    if what == "progress":
        return progress(desk)
    if what == "quality":
        return quality_report(desk)
    if what == "worker":
        name = query.get("name", "")
        return {"platform": desk.keys.worker(f"platform\0{name}"), "name": desk.keys.worker(f"name\0{name}")}
    if what == "page":
        return stored_page(desk, query.get("id", ""))
    if what.startswith("export/") and what.removeprefix("export/") in FORMATS:
        return download(desk, what.removeprefix("export/"), [one for one in query.get("without", "").split(",") if one])
    raise Refused(404, "There is no such page.")


def progress(desk: Desk) -> dict[str, Any]:
    """Numbers of each interface, and its assignments with their pages."""
    now = time.time()
    interfaces = {}
    for name in desk.collection.interfaces:
        assignments = desk.store.assignments(interface=name)
        pages = list(desk.store.pages(name))
        times = [page.received_s for page in pages]
        seen = Counter((slot.image, slot.label) for page in pages for slot in page.slots if slot.role == "candidate")
        candidates = desk.pools.pools[name].candidates.values()
        total = sum(map(len, candidates))
        by_assignment: dict[str, list[dict[str, Any]]] = {}
        for page in pages:
            listed = {"id": page.id, "number": page.number, "received_s": page.received_s}
            by_assignment.setdefault(page.assignment.id, []).append(listed)
        wanted = total * getattr(desk.collection, name).annotators_per_image
        interfaces[name] = {
            "images": total,
            "image_views": sum(seen.values()),
            "image_views_wanted": wanted,
            "images_seen": len(seen),
            "workers": len({one.worker for one in assignments}),
            "assignments": len(assignments),
            "assignments_done": sum(one.done_s is not None for one in assignments),
            "pages": len(pages),
            "pages_last_hour": sum(at > now - _HOUR_S for at in times),
            "pages_per_hour": len(times) / max((max(times) - min(times)) / _HOUR_S, 1 / 60) if times else 0.0,
            "list": [
                {
                    "id": one.id,
                    "worker": one.worker,
                    "version": one.version,
                    "stored": one.stored,
                    "pages": one.pages,
                    "code": one.code,
                    "list": by_assignment.get(one.id, []),
                }
                for one in assignments
            ],
        }
    return {"title": desk.collection.title, "interfaces": interfaces, "events": desk.store.event_counts()}


def stored_page(desk: Desk, page_id: str) -> dict[str, Any]:
    """One stored page with its images, for the trace viewer; Refused if there is none."""
    page = desk.store.page(page_id)
    if page is None:
        raise Refused(404, "There is no such page; it may have been withdrawn.")
    tokens = desk.tokens(page.assignment, page.slots)
    return {
        "interface": page.assignment.interface,
        "worker": page.assignment.worker,
        "version": page.assignment.version,
        "number": page.number,
        "slots": [
            {"image": slot.image, "class": slot.label, "role": slot.role, "url": f"/image/{token}"}
            for slot, token in zip(page.slots, tokens, strict=True)
        ],
        "body": page.body,
    }


def download(desk: Desk, name: str, without: list[str]) -> FileResponse | JSONResponse:
    """One export as a file; what cannot be exported is an error message."""
    folder = tempfile.TemporaryDirectory(prefix="luab-export-")
    file = Path(folder.name) / FORMATS[name]
    try:
        export(desk, name, file, without)
    except LuabError as error:
        folder.cleanup()
        raise Refused(422, str(error)) from error
    return FileResponse(file, filename=file.name, background=BackgroundTask(folder.cleanup))
