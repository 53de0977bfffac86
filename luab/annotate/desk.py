"""What a participant meets, one after the other: login, consent, pages, completion."""

import json
from dataclasses import dataclass
from typing import Any

from luab.annotate.assignments import current_assignment
from luab.annotate.bodies import check_body
from luab.annotate.config import Collection, Interface
from luab.annotate.database import Database
from luab.annotate.keys import Keys, completion_code
from luab.annotate.pool import Pools
from luab.annotate.store import Assignment, Refused, Slot, Store

_LONGEST_NAME = 200


@dataclass
class Desk:
    """One open collection."""

    collection: Collection
    keys: Keys
    pools: Pools
    store: Store

    @classmethod
    def of(cls, collection: Collection) -> "Desk":
        """Opens a collection; DataError or JobError if its images or its database cannot be used."""
        keys = Keys.of(collection.database)
        return cls(collection, keys, Pools.of(collection, keys), Store(Database(collection.database)))

    def close(self) -> None:
        """Closes the database."""
        self.store.database.close()

    def login(self, interface: Interface, parameters: Any, name: Any) -> dict[str, Any]:
        """Returns the content of the cookie of a participant; nothing is stored.

        Args:
            interface: browsing or tagging.
            parameters: Those of the address.
            name: What the participant typed, if there are none.

        Raises:
            Refused: Neither says who it is.
        """
        given = parameters if isinstance(parameters, dict) else {}
        rules = self.collection.login

        def first(names: list[str]) -> str:
            texts = [str(given.get(one) or "").strip() for one in names]
            return next((text for text in texts if text), "")[:_LONGEST_NAME]

        typed = name.strip()[:_LONGEST_NAME] if isinstance(name, str) and rules.local_names else ""
        worker = f"platform\0{first(rules.worker)}" if first(rules.worker) else f"name\0{typed}" if typed else ""
        if not worker:
            raise Refused(401, "The link does not say who you are. Open it from the platform that sent you here.")
        references = {
            key: self.keys.reference(first(names)) if first(names) else ""
            for key, names in (("assignment_ref", rules.assignment), ("hit_ref", rules.hit))
        }
        version = str(given.get("version") or "")[:_LONGEST_NAME]
        return {"interface": interface, "worker": self.keys.worker(worker), "version": version, **references}

    def session(self, interface: Interface, cookie: str) -> dict[str, Any] | None:
        """Content of a cookie that `login` made for this interface, or None."""
        content = self.keys.verified(cookie)
        return content if content and content["interface"] == interface else None

    def consent(self, session: dict[str, Any], version: Any) -> None:
        """Stores the consent to the version that was shown; Refused if the text has changed since."""
        if version != self.collection.consent.version:
            raise Refused(409, "The text has changed in the meantime. Please reload the page and read it again.")
        self.store.consent(session["worker"], version)

    def state(self, interface: Interface, session: dict[str, Any] | None, another: bool) -> dict[str, Any]:
        """What to show to a participant; `another` if one who has finished wants one more assignment."""
        about: dict[str, Any] = {"title": self.collection.title, "interface": interface}
        if session is None:
            return about | {"stage": "login", "localNames": self.collection.login.local_names}
        consent = self.collection.consent
        if not self.store.consented(session["worker"], consent.version):
            return about | {"stage": "consent", "version": consent.version, "text": consent.text}
        pool = self.pools.pools[interface]
        assignment = current_assignment(self.store, self.collection, pool, interface, session, another)
        if assignment is None:
            return about | {"stage": "exhausted"}
        if assignment.done_s is not None:
            return about | self._done(session, assignment)
        return about | {"stage": "page", "page": self._page(assignment)}

    def _done(self, session: dict[str, Any], assignment: Assignment) -> dict[str, Any]:
        limit = self.collection.assignments_per_worker
        done = len(self.store.assignments(session["worker"], assignment.interface))
        url = self.collection.completion_url
        return {
            "stage": "done",
            "code": assignment.code,
            "url": url and url.replace("{code}", assignment.code or ""),
            "another": limit is None or done < limit,
        }

    def _page(self, assignment: Assignment) -> dict[str, Any]:
        number = assignment.stored + 1
        slots = self.store.slots(assignment.id, number)
        images = [{"id": token, "url": f"/image/{token}"} for token in self.tokens(assignment, slots)]
        page = {
            "assignment": assignment.id,
            "number": number,
            "pages": assignment.pages,
            "version": assignment.version,
            "faithful": self.collection.faithful,
            "images": images,
            "instructions": getattr(self.collection, assignment.interface).instructions,
        }
        return page | (self._class(slots[0].label) if assignment.interface == "browsing" else self._panes())

    def _class(self, label: str) -> dict[str, Any]:
        text = self.collection.browsing.classes.get(label) if self.collection.browsing else None
        names = text.names if text and text.names else [label.replace("_", " ")]
        return {
            "class": {
                "names": names,
                "definition": text.definition if text else "",
                "links": text.links if text else [],
            }
        }

    def _panes(self) -> dict[str, Any]:
        panes = self.collection.tagging.panes if self.collection.tagging else {}

        def shown(name: str, has_image: bool) -> dict[str, Any]:
            return {"name": name, "url": f"/image/{self.keys.image(f'icon/{name}')}" if has_image else None}

        listed = [
            {"name": pane, "icons": [shown(icon.name, icon.image is not None) for icon in icons]}
            for pane, icons in panes.items()
        ]
        return {"panes": listed}

    def tokens(self, assignment: Assignment, slots: list[Slot]) -> list[str]:
        """Names under which the images of a page are served."""
        return [self.pools.token(assignment.interface, slot.image) for slot in slots]

    def put_page(
        self, interface: Interface, session: dict[str, Any], assignment: str, number: int, content: Any, now_s: float
    ) -> None:
        """Checks and stores one page; Refused as for `check_body` and `Store.put_page`."""
        worker = session["worker"]
        mine = [one for one in self.store.assignments(worker, interface) if one.id == assignment]
        slots = self.store.slots(assignment, number) if mine else []
        if not slots:
            raise Refused(404, "This task does not exist, or it was withdrawn. Please reload the page.")
        tagging = self.collection.tagging if interface == "tagging" else None
        body = check_body(content, number, self.tokens(mine[0], slots), tagging, now_s)
        text = json.dumps(content, separators=(",", ":"), sort_keys=True)
        code = self.collection.completion_code or completion_code()
        self.store.put_page(worker, assignment, number, body.page.id, text, code)
