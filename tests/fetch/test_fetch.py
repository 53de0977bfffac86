"""Downloads from a loopback server that interrupts, sends wrong data, redirects and fails."""

import contextlib
import errno
import gzip
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from luab.errors import DataError, JobError
from luab.fetch.fetch import Patience, fetch
from luab.fetch.listing import Archive
from luab.fetch.verify import verify

pytestmark = pytest.mark.faults

CONTENT = bytes(range(251)) * 8000  # 2 MB, no two places alike at any power of two
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Resource:
    """Responses of one address; each request uses the next element of a list."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    modified: str | None = None
    ranges: bool = True
    length: bool = True
    statuses: list[int] = field(default_factory=list)
    drop_after: list[int] = field(default_factory=list)
    content_range: str | None = None
    location: str | None = None
    bytes_per_s: float | None = None
    gzips: str | None = None  # "asked" or "always"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `Resource`s with Range and If-Range, and records every request."""

    server: "Server"

    def do_GET(self) -> None:
        """Answers as the resource says."""
        resource = self.server.resources.get(self.path)
        self.server.requests.append((self.path, dict(self.headers)))
        if resource is None:
            self._empty(404)
        elif resource.location:
            self._empty(302, {"Location": resource.location})
        elif resource.statuses:
            self._empty(resource.statuses.pop(0))
        else:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._send(resource)

    def _send(self, resource: Resource) -> None:
        start = self._start(resource)
        if start >= len(resource.content) and start:
            return self._empty(416)
        body = resource.content[start:]
        gzips = resource.gzips == "always" or (resource.gzips and "gzip" in self.headers["Accept-Encoding"])
        body = gzip.compress(body) if gzips else body
        self.send_response(206 if start else 200)
        if start:
            last = len(resource.content) - 1
            given = resource.content_range or f"bytes {start}-{last}/{len(resource.content)}"
            self.send_header("Content-Range", given)
        for name, value in (("ETag", resource.etag), ("Last-Modified", resource.modified)):
            if value:
                self.send_header(name, value)
        if gzips:
            self.send_header("Content-Encoding", "gzip")
        if resource.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if resource.drop_after:
            body = body[: resource.drop_after.pop(0)]
        self._write(body, resource.bytes_per_s)
        return None

    def _start(self, resource: Resource) -> int:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if not wanted or not resource.ranges:
            return 0
        return int(wanted[1]) if condition in (None, resource.etag, resource.modified) else 0

    def _write(self, body: bytes, bytes_per_s: float | None) -> None:
        step = 1 << 16
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            if bytes_per_s:
                time.sleep(step / bytes_per_s)

    def _empty(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class Server(http.server.ThreadingHTTPServer):
    """A loopback server; `requests` lists path and headers of all requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.resources: dict[str, Resource] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.scheme = "http"

    def url(self, path: str) -> str:
        """Absolute address of a resource."""
        return f"{self.scheme}://127.0.0.1:{self.server_port}{path}"

    def ranges(self) -> list[str | None]:
        """The Range header of each request, in order."""
        return [headers.get("Range") for _, headers in self.requests]


@contextlib.contextmanager
def _serving(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")


@pytest.fixture
def server() -> Iterator[Server]:
    with _serving(Server()) as running:
        yield running


def _archive(*urls: Any, **given: Any) -> Archive:
    content = {
        "name": "a",
        "dataset": "a",
        "urls": list(urls),
        "file": "a.bin",
        "bytes": len(CONTENT),
        "sha256": SHA256,
        "checksum_source": "this test",
        **given,
    }
    return Archive.model_validate(content)


def _unpublished(*urls: Any, **given: Any) -> Archive:
    return _archive(*urls, **{"bytes": None, "sha256": None, "checksum_source": "none published", **given})


def _fetch(archive: Archive, folder: Path, attempts: int = 3) -> dict[str, Any]:
    return fetch(archive, folder, folder / "a.json", Patience(attempts, backoff_s=0.01, timeout_s=5))


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_downloaded_file_is_complete_and_has_a_card(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource()
    card = _fetch(_archive(server.url("/a")), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert card == json.loads((tmp_path / "a.json").read_text())
    assert card == {
        "name": "a",
        "url": server.url("/a"),
        "file": "a.bin",
        "bytes": len(CONTENT),
        "sha256": SHA256,
        "checksum": "published sha256",
    }
    assert _names(tmp_path) == [".a.bin.verified", "a.bin", "a.json"]


def test_a_verified_file_is_not_requested_again(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource()
    archive = _archive(server.url("/a"))
    card = _fetch(archive, tmp_path)
    written = (tmp_path / "a.json").stat().st_mtime_ns
    assert _fetch(archive, tmp_path) == card
    assert (tmp_path / "a.json").stat().st_mtime_ns == written
    (tmp_path / "a.json").unlink()
    assert _fetch(archive, tmp_path) == card
    assert len(server.requests) == 1


def test_a_touched_file_is_read_again_but_not_downloaded(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource()
    archive = _archive(server.url("/a"))
    _fetch(archive, tmp_path)
    os.utime(tmp_path / "a.bin", (1, 1))
    _fetch(archive, tmp_path)
    assert len(server.requests) == 1
    verify(archive, tmp_path)


def test_a_damaged_file_is_renamed_and_downloaded_again(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource()
    archive = _archive(server.url("/a"))
    _fetch(archive, tmp_path)
    (tmp_path / "a.bin").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(DataError, match="expected sha256"):
        verify(archive, tmp_path)
    _fetch(archive, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert (tmp_path / "a.bin.bad").read_bytes() == CONTENT[:-1] + b"?"


def test_interrupted_transfers_resume_at_the_same_byte(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(drop_after=[700_000, 600_000])
    _fetch(_archive(server.url("/a")), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    ranges = server.ranges()
    starts = [int(str(given).removeprefix("bytes=").removesuffix("-")) for given in ranges[1:]]
    assert ranges[0] is None and len(starts) == 2
    # Less than a network buffer may be lost at each drop.
    assert 500_000 < starts[0] <= 700_000 and starts[0] + 400_000 < starts[1] <= starts[0] + 600_000
    assert all(headers["If-Range"] == '"one"' for _, headers in server.requests[1:])


def test_many_interruptions_are_allowed_while_there_is_progress(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(drop_after=[300_000] * 6)
    _fetch(_archive(server.url("/a")), tmp_path, attempts=2)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and len(server.requests) > 6


def test_one_mirror_does_not_resume_the_part_of_another(server: Server, tmp_path: Path) -> None:
    server.resources["/one"] = Resource(content=b"one" * 900_000, drop_after=[900_000] + [0] * 9)
    server.resources["/two"] = Resource()
    archive = _unpublished(server.url("/one"), server.url("/gone"), server.url("/two"))
    _fetch(archive, tmp_path, attempts=2)
    assert [headers.get("Range") for path, headers in server.requests if path == "/two"] == [None]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_missing_mirror_does_not_delete_the_part(server: Server, tmp_path: Path) -> None:
    server.resources["/one"] = Resource(drop_after=[900_000] + [0] * 9)
    with pytest.raises(DataError):
        _fetch(_archive(server.url("/one"), server.url("/gone")), tmp_path, attempts=2)
    assert (tmp_path / "a.bin.part").stat().st_size > 700_000


@pytest.mark.parametrize("gzips", ["asked", "always"])
def test_an_encoded_response_is_decoded(server: Server, tmp_path: Path, gzips: str) -> None:
    server.resources["/a"] = Resource(gzips=gzips, drop_after=[900 if gzips == "always" else 300_000])
    _fetch(_archive(server.url("/a")), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    # A range of an encoded answer would be a range of other bytes.
    assert (server.ranges()[1] is None) == (gzips == "always")


def test_a_later_run_resumes_the_part_of_an_earlier_one(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(drop_after=[900_000] + [0] * 9)
    with pytest.raises(DataError, match="gave up after 2 attempts"):
        _fetch(_archive(server.url("/a")), tmp_path, attempts=2)
    kept = (tmp_path / "a.bin.part").stat().st_size
    assert 0 < kept <= 900_000 and not (tmp_path / "a.bin").exists()
    server.resources["/a"] = Resource()
    _fetch(_archive(server.url("/a")), tmp_path)
    assert server.ranges()[-1] == f"bytes={kept}-"
    assert _names(tmp_path) == [".a.bin.verified", "a.bin", "a.json"]


def test_a_file_that_changed_on_the_server_starts_over(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(content=b"old" * 500_000, drop_after=[900_000] + [0] * 9)
    archive = _unpublished(server.url("/a"))
    with pytest.raises(DataError):
        _fetch(archive, tmp_path, attempts=2)
    server.resources["/a"] = Resource(etag='"two"')
    _fetch(archive, tmp_path)
    assert server.requests[-1][1]["If-Range"] == '"one"'
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "liar",
    [
        Resource(content_range="bytes 5-2007999/2008000"),
        Resource(content_range="bytes 1-2/3"),
        Resource(content_range="nonsense"),
    ],
)
def test_a_wrong_range_is_not_appended(server: Server, tmp_path: Path, liar: Resource) -> None:
    server.resources["/a"] = liar
    liar.drop_after = [900_000]
    _fetch(_unpublished(server.url("/a")), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [given is None for given in server.ranges()] == [True, False, True]


def test_without_range_support_the_download_starts_over(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(ranges=False, drop_after=[900_000, 900_000])
    _fetch(_archive(server.url("/a")), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_weak_etag_is_not_used_but_a_date_is(server: Server, tmp_path: Path) -> None:
    date = "Sat, 01 Jan 2022 00:00:00 GMT"
    server.resources["/a"] = Resource(etag='W/"one"', modified=date, drop_after=[900_000])
    _fetch(_unpublished(server.url("/a")), tmp_path)
    assert server.requests[1][1]["If-Range"] == date
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_without_validator_and_checksum_the_download_starts_over(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(etag=None, drop_after=[900_000])
    _fetch(_unpublished(server.url("/a")), tmp_path)
    assert server.ranges() == [None, None]


def test_a_part_longer_than_the_file_starts_over(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(drop_after=[900_000] + [0] * 9)
    with pytest.raises(DataError):
        _fetch(_archive(server.url("/a"), bytes=None), tmp_path, attempts=1)
    with open(tmp_path / "a.bin.part", "ab") as part:
        part.write(CONTENT * 2)
    server.resources["/a"] = Resource()
    _fetch(_archive(server.url("/a"), bytes=None), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_complete_part_needs_no_request(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(drop_after=[900_000] + [0] * 9)
    with pytest.raises(DataError):
        _fetch(_archive(server.url("/a")), tmp_path, attempts=1)
    asked = len(server.requests)
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    _fetch(_archive(server.url("/a")), tmp_path)
    assert len(server.requests) == asked and (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_wrong_file_is_renamed_and_the_reason_listed(server: Server, tmp_path: Path) -> None:
    wrong = CONTENT[:-1] + b"!"
    server.resources["/a"] = Resource(content=wrong)
    with pytest.raises(DataError) as caught:
        _fetch(_archive(server.url("/a")), tmp_path)
    text = str(caught.value)
    for word in [SHA256, hashlib.sha256(wrong).hexdigest(), server.url("/a"), "a.bin.bad", "Run the command again"]:
        assert word in text
    assert _names(tmp_path) == ["a.bin.bad"]
    assert (tmp_path / "a.bin.bad").read_bytes() == wrong


def test_a_single_md5_is_checked(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource()
    right = hashlib.md5(CONTENT).hexdigest()
    card = _fetch(_archive(server.url("/a"), sha256=None, md5=right), tmp_path / "right")
    assert card["checksum"] == "published md5" and card["sha256"] == SHA256
    with pytest.raises(DataError, match=f"expected md5 {'0' * 32}, found {right}"):
        _fetch(_archive(server.url("/a"), sha256=None, md5="0" * 32), tmp_path / "wrong")


def test_another_size_raises_before_the_download(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(content=CONTENT[:-1])
    with pytest.raises(DataError, match=f"expected {len(CONTENT)} bytes, the file there has {len(CONTENT) - 1}"):
        _fetch(_archive(server.url("/a")), tmp_path)
    assert _names(tmp_path) == [] and len(server.requests) == 1


def test_too_many_bytes_without_a_length_raise(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(content=CONTENT * 3, length=False)
    with pytest.raises(DataError, match="expected bytes"):
        _fetch(_archive(server.url("/a")), tmp_path)
    assert (tmp_path / "a.bin.bad").stat().st_size < 2 * len(CONTENT)


def test_too_few_bytes_without_a_length_are_resumed(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(length=False, drop_after=[900_000])
    _fetch(_archive(server.url("/a")), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and server.ranges() == [None, "bytes=900000-"]


def test_mirrors_are_tried_in_order(server: Server, tmp_path: Path) -> None:
    server.resources["/lies"] = Resource(content=CONTENT[::-1])
    server.resources["/right"] = Resource()
    urls = [server.url(path) for path in ("/gone", "/lies", "/right", "/never")]
    card = _fetch(_archive(*urls), tmp_path)
    assert [path for path, _ in server.requests] == ["/gone", "/lies", "/right"]
    assert card["url"] == server.url("/right") and (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_mirror_may_serve_a_different_file_of_the_same_name(server: Server, tmp_path: Path) -> None:
    other = b"another packing" * 1000
    server.resources["/other"] = Resource(content=other)
    own = {"url": server.url("/other"), "bytes": len(other), "sha256": hashlib.sha256(other).hexdigest()}
    archive = _archive(server.url("/gone"), own)
    card = _fetch(archive, tmp_path)
    assert card["sha256"] == own["sha256"] and card["bytes"] == len(other)
    assert _fetch(archive, tmp_path) == card and len(server.requests) == 2


def test_if_all_mirrors_fail_every_reason_is_listed(server: Server, tmp_path: Path) -> None:
    server.resources["/busy"] = Resource(statuses=[503] * 9)
    with Server() as closed:
        nobody = closed.url("/a")
    urls = [server.url("/gone"), server.url("/busy"), nobody, "file:not-there.bin"]
    with pytest.raises(DataError) as caught:
        _fetch(_archive(*urls), tmp_path)
    lines = str(caught.value).splitlines()
    for url, reason in zip(urls, ["HTTP 404", "HTTP 503", "connection failed", "No such file"], strict=True):
        assert any(url in line and reason in line for line in lines), (url, lines)
    assert len([path for path, _ in server.requests if path == "/busy"]) == 3
    assert _names(tmp_path) == []


def test_server_errors_are_retried(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(statuses=[500, 429])
    _fetch(_archive(server.url("/a")), tmp_path)
    assert len(server.requests) == 3


def test_a_server_without_response_times_out(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(bytes_per_s=50_000)
    with pytest.raises(DataError, match="timed out"):
        fetch(_archive(server.url("/a")), tmp_path, tmp_path / "a.json", Patience(1, backoff_s=0.01, timeout_s=0.2))


def test_without_published_checksum_later_downloads_must_match_the_first(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource()
    archive = _unpublished(server.url("/a"))
    card = _fetch(archive, tmp_path)
    assert card["checksum"].startswith("none published") and card["sha256"] == SHA256
    (tmp_path / "a.bin").unlink()
    server.resources["/a"] = Resource(content=CONTENT[::-1])
    for forgotten in (None, tmp_path / "a.json"):  # the workflow removes the card first
        if forgotten:
            forgotten.unlink()
        with pytest.raises(DataError, match=f"(?s)first download had sha256 {SHA256}.*first remove"):
            _fetch(archive, tmp_path)
    (tmp_path / ".a.bin.verified").unlink()
    assert _fetch(archive, tmp_path)["sha256"] != SHA256


def test_redirects_are_followed_over_http(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(location="/b")
    server.resources["/b"] = Resource(drop_after=[900_000])
    card = _fetch(_archive(server.url("/a")), tmp_path)
    assert card["url"] == server.url("/a")
    assert [path for path, _ in server.requests] == ["/a", "/b", "/a", "/b"]
    assert server.ranges()[3] is not None


@pytest.mark.parametrize("scheme", ["file:///etc/hostname", "ftp://127.0.0.1/a"])
def test_redirects_to_files_raise(server: Server, tmp_path: Path, scheme: str) -> None:
    server.resources["/a"] = Resource(location=scheme)
    with pytest.raises(DataError, match="not allowed"):
        _fetch(_unpublished(server.url("/a")), tmp_path)
    assert _names(tmp_path) == []


def test_endless_redirects_raise(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(location="/a")
    with pytest.raises(DataError, match="more than 10 redirects"):
        _fetch(_archive(server.url("/a")), tmp_path)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_redirects_from_https_to_http_raise(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    secure = Server()
    secure.socket, secure.scheme = context.wrap_socket(secure.socket, server_side=True), "https"
    secure.resources["/a"] = Resource()
    secure.resources["/down"] = Resource(location=server.url("/a"))
    secure.resources["/across"] = Resource(location="/a")
    server.resources["/a"] = Resource()
    with _serving(secure):
        with pytest.raises(DataError, match="no secure connection"):
            _fetch(_archive(secure.url("/a")), tmp_path / "unknown")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert _fetch(_archive(secure.url("/across")), tmp_path / "across")["sha256"] == SHA256
        with pytest.raises(DataError, match=r"redirects from https: to http://.*not allowed"):
            _fetch(_archive(secure.url("/down")), tmp_path / "down")
    assert server.requests == []


# ---- room --------------------------------------------------------------------------------------------------


def test_disk_space_is_checked_before_any_request(server: Server, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="expected room for 1,000,000,000,000,000,000 more bytes"):
        _fetch(_archive(server.url("/a"), bytes=10**18), tmp_path)
    assert server.requests == []


FETCH = """
import json, resource, subprocess, sys
from pathlib import Path
from luab.fetch.listing import Archive
from luab.errors import LuabError
from luab.fetch.fetch import Patience, fetch
content, folder, limit = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
if limit == "tmpfs":
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
elif limit != "none":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    fetch(Archive.model_validate(content), folder, folder / "a.json", Patience(backoff_s=0.01))
except LuabError as error:
    kept = folder / "a.bin.part"
    print(type(error).__name__, kept.stat().st_size if kept.exists() else None, error)
"""


def _command(archive: Archive, folder: Path, limit: str) -> list[str]:
    content = json.dumps(archive.model_dump(mode="json"))
    return [sys.executable, "-c", FETCH, content, str(folder), limit]


def _own_mounts() -> bool:
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(probe, capture_output=True).returncode == 0


@pytest.mark.skipif(not _own_mounts(), reason="this machine lets no user mount a small disk")
def test_a_full_disk_keeps_the_part(server: Server, tmp_path: Path) -> None:
    # No length and no size: nothing but the disk itself can say that there is too little room.
    server.resources["/a"] = Resource(length=False)
    archive = _unpublished(server.url("/a"))
    command = ["unshare", "-rm", *_command(archive, tmp_path, "tmpfs")]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert said.startswith("JobError ") and os.strerror(errno.ENOSPC) in said and "is kept" in said
    assert 500_000 < int(said.split()[1]) <= 1 << 20


def test_a_file_size_limit_keeps_the_part_and_resumes(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource()
    archive = _archive(server.url("/a"))
    command = _command(archive, tmp_path, "1000000")
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert said.startswith("JobError 1000000 ") and "is kept" in said
    assert _fetch(archive, tmp_path)["sha256"] == SHA256
    assert server.ranges() == [None, "bytes=1000000-"]


def test_a_folder_that_is_a_file_is_a_job_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "folder").touch()
    with pytest.raises(JobError, match="folder"):
        _fetch(_archive(server.url("/a")), tmp_path / "folder")


# ---- killed, and two at once -------------------------------------------------------------------------------


def _until(happened: Any, timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_killed_download_is_resumed(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(bytes_per_s=1_000_000)
    archive = _archive(server.url("/a"))
    part = tmp_path / "a.bin.part"
    with subprocess.Popen(_command(archive, tmp_path, "none")) as process:
        _until(lambda: part.exists() and part.stat().st_size > 300_000)
        with pytest.raises(JobError, match="another process"):
            _fetch(archive, tmp_path)
        process.send_signal(signal.SIGKILL)
    kept = part.stat().st_size
    assert 300_000 < kept < len(CONTENT) and not (tmp_path / "a.bin").exists()
    server.resources["/a"].bytes_per_s = None
    _fetch(archive, tmp_path)
    assert server.ranges() == [None, f"bytes={kept}-"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert _names(tmp_path) == [".a.bin.verified", "a.bin", "a.json"]
