"""The secrets of a collection, and what is derived from them: ids of workers, names of images, signed cookies."""

import base64
import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any

from luab.errors import DataError
from luab.files import read_fields

_CODE_LETTERS = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"  # without letters that look alike


class Keys:
    """The secrets of one collection, in a file next to its database that only its owner can read.

    Attributes:
        admin: Token of the administrator.
    """

    def __init__(self, study: bytes, admin: str) -> None:
        self._study, self.admin = study, admin

    @classmethod
    def of(cls, database: Path) -> "Keys":
        """Reads the secrets of a database, or makes them for a new one.

        Raises:
            DataError: There is a database but no secrets: ids of workers would change.
        """
        file = database.with_suffix(".secrets.json")
        if not file.exists():
            if database.exists():
                raise DataError(
                    f"{file}: expected the secrets of {database.name}, found none. Without them the ids of workers "
                    "would change. Restore the file, or move the database away to begin a new collection."
                )
            content = json.dumps({"study": secrets.token_hex(32), "admin": secrets.token_urlsafe(24)})
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with open(descriptor, "w", encoding="utf-8") as out:
                out.write(content)
        fields = read_fields(file, ["study", "admin"])
        return cls(bytes.fromhex(fields["study"]), fields["admin"])

    def _digest(self, purpose: str, text: str) -> bytes:
        return hmac.new(self._study, f"{purpose}\0{text}".encode(), hashlib.sha256).digest()

    def worker(self, name: str) -> str:
        """Id of a worker in every record: ten upper-case hexadecimal digits, as in the release."""
        return self._digest("worker", name).hex()[:10].upper()

    def reference(self, platform_id: str) -> str:
        """Stands for a platform's id of a task or submission: 30 characters, as MTurk's ids have."""
        return "3" + base64.b32encode(self._digest("reference", platform_id)).decode()[:29]

    def image(self, path: str) -> str:
        """Name under which an image is served; it says nothing about the image."""
        return self._digest("image", path).hex()[:32]

    def sign(self, content: dict[str, Any]) -> str:
        """Text of a cookie that only this collection can make."""
        text = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
        return f"{text}.{self._digest('cookie', text).hex()}"

    def verified(self, cookie: str) -> dict[str, Any] | None:
        """Content of a cookie that `sign` made; None for any other text."""
        text, _, signature = cookie.rpartition(".")
        if not cookie.isascii() or not hmac.compare_digest(signature, self._digest("cookie", text).hex()):
            return None
        content: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text))
        return content

    def is_admin(self, token: str) -> bool:
        """Whether this is the administrator's token."""
        return hmac.compare_digest(token.encode(), self.admin.encode())


def completion_code() -> str:
    """A random code of eight letters and digits.

    DEVIATES: the server draws the completion code when all pages are stored; the published tools compute it in the
    browser from public ids, so that it proves nothing.
    """
    return "".join(secrets.choice(_CODE_LETTERS) for _ in range(8))
