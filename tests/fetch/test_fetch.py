"""Downloads from a loopback server that interrupts, sends wrong data, redirects and fails."""

import bz2
import contextlib
import errno
import gzip
import hashlib
import http.server
import io
import json
import lzma
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from luab.errors import DataError, JobError
from luab.fetch.fetch import Patience, fetch
from luab.fetch.listing import Archive
from luab.fetch.unpack import unpack_all
from luab.fetch.verify import hasher_of, verify, write_stamp

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
    label: str | None = None  # Content-Encoding of a content that is sent as it is
    etags: list[str] = field(default_factory=list)  # of servers that answer in turn
    cookie: str | None = None  # the first answer sets it and redirects to the same address
    chunked: bool = False
    says_complete: bool = True  # a 416 tells the size


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `Resource`s with Range and If-Range, and records every request."""

    server: "Server"

    def do_GET(self) -> None:
        """Answers as the resource says."""
        resource = self.server.resources.get(self.path)
        self.server.requests.append((self.path, dict(self.headers)))
        if resource is None:
            self._empty(404)
        elif resource.cookie and resource.cookie not in self.headers.get("Cookie", ""):
            self._empty(302, {"Location": self.path, "Set-Cookie": f"{resource.cookie}; Path=/"})
        elif resource.location:
            self._empty(302, {"Location": resource.location})
        elif resource.statuses:
            self._empty(resource.statuses.pop(0))
        else:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._send(resource)

    def do_CONNECT(self) -> None:
        """Refuses as a proxy that wants a password."""
        self._empty(407)

    def _send(self, resource: Resource) -> None:
        if resource.etags:
            resource.etag = resource.etags.pop(0)
            resource.etags.append(resource.etag)
        start = self._start(resource)
        if start >= len(resource.content) and start:
            size = {"Content-Range": f"bytes */{len(resource.content)}"}
            return self._empty(416, size if resource.says_complete else None)
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
        if gzips or resource.label:
            self.send_header("Content-Encoding", resource.label or "gzip")
        if resource.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            pieces = [body[at : at + 100_000] for at in range(0, len(body), 100_000)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])
        elif resource.length:
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
    assert card == json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
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
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and _names(tmp_path) == [".a.bin.verified", "a.bin", "a.json"]
    # This server compresses a range of the file, which is not a range of the compressed file.
    assert [given is None for given in server.ranges()] == ([True, False, True] if gzips == "always" else [True, False])


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


# ---- labels, several servers, cookies, proxies ---------------------------------------------------------------

GZIPPED = gzip.compress(os.urandom(900_000), mtime=0)


def _of(content: bytes, *urls: Any, **given: Any) -> Archive:
    return _archive(*urls, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), **given)


@pytest.mark.parametrize("label", ["gzip", "x-gzip", "deflate", "br", "GZIP", "utf-8", "gzip, br"])
@pytest.mark.parametrize("checked", [True, False])
def test_a_label_on_a_stored_archive_is_ignored(server: Server, tmp_path: Path, label: str, checked: bool) -> None:
    server.resources["/a"] = Resource(content=GZIPPED, label=label, drop_after=[500_000])
    kind = _of if checked else lambda _, *urls, **given: _unpublished(*urls, **given)
    _fetch(kind(GZIPPED, server.url("/a"), file="a.tar.gz"), tmp_path)
    assert (tmp_path / "a.tar.gz").read_bytes() == GZIPPED
    assert _names(tmp_path) == [".a.tar.gz.verified", "a.json", "a.tar.gz"]
    assert (server.ranges()[1] is not None) == (checked or label == "utf-8")


def _tar() -> bytes:
    out, member = io.BytesIO(), tarfile.TarInfo("one")
    member.size = 27_000
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(member, io.BytesIO(b"one" * 9000))
    return out.getvalue()


TAR = _tar()


@pytest.mark.parametrize(
    ("label", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize(
    ("name", "content"),
    [("b.json", b"[1, 2]"), ("a.tar", TAR), ("a.tar.gz", GZIPPED), ("a.txt", b"n01 0 0 9 9\n" * 99)],
)
def test_a_response_that_the_server_compresses_is_decoded(
    server: Server, tmp_path: Path, label: str, pack: Any, checked: bool, name: str, content: bytes
) -> None:
    server.resources["/a"] = Resource(content=pack(content), label=label)
    kind = _of if checked else lambda _, *urls, **given: _unpublished(*urls, **given)
    _fetch(kind(content, server.url("/a"), file=name), tmp_path)
    assert (tmp_path / name).read_bytes() == content
    assert sorted(_names(tmp_path)) == sorted([f".{name}.verified", "a.json", name])


def test_a_wrong_labelled_response_is_kept_aside(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(content=b"\x0b\x02\x80[]\x03", label="br")
    with pytest.raises(DataError, match=r"found another format.*Content-Encoding br\. .*a\.tar\.bad"):
        _fetch(_unpublished(server.url("/a"), file="a.tar"), tmp_path)
    assert _names(tmp_path) == ["a.tar.bad"]


@pytest.mark.parametrize("modified", [None, "Sat, 01 Jan 2022 00:00:00 GMT"])
def test_with_a_checksum_servers_of_different_etags_continue_each_other(
    server: Server, tmp_path: Path, modified: str | None
) -> None:
    server.resources["/a"] = Resource(etags=['"1"', '"2"'], modified=modified, drop_after=[700_000] * 2)
    _fetch(_archive(server.url("/a")), tmp_path)
    assert server.ranges() == [None, "bytes=700000-", "bytes=1400000-"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_without_a_checksum_servers_of_different_etags_do_not(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(etags=['"1"', '"2"'], drop_after=[700_000])
    _fetch(_unpublished(server.url("/a")), tmp_path)
    assert server.requests[1][1]["If-Range"] == '"1"' and (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_mirror_continues_the_part_of_another_with_the_same_checksum(server: Server, tmp_path: Path) -> None:
    server.resources["/one"] = Resource(drop_after=[900_000] + [0] * 9)
    server.resources["/two"] = Resource(etag=None)
    _fetch(_archive(server.url("/one"), server.url("/two")), tmp_path, attempts=2)
    assert [headers.get("Range") for path, headers in server.requests if path == "/two"] == ["bytes=900000-"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_mixture_of_two_versions_is_downloaded_once_more(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.resources["/a"] = Resource(content=CONTENT[::-1], drop_after=[900_000] + [0] * 9)
    with pytest.raises(DataError):
        _fetch(_archive(server.url("/a")), tmp_path, attempts=1)
    server.resources["/a"] = Resource(etag='"two"', drop_after=[500_000, 700_000])
    _fetch(_archive(server.url("/a")), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and "again from the start" in capsys.readouterr().err
    server.resources["/b"] = Resource(content=CONTENT[::-1], drop_after=[900_000] * 2)
    with pytest.raises(DataError, match="expected sha256"):
        _fetch(_archive(server.url("/b"), file="b.bin"), tmp_path)
    assert len([path for path, _ in server.requests if path == "/b"]) == 4  # twice in two parts, and no third time


@pytest.mark.parametrize("says_complete", [True, False])
@pytest.mark.parametrize("checked", [True, False])
def test_416_on_a_complete_part_completes_it(
    server: Server, tmp_path: Path, says_complete: bool, checked: bool
) -> None:
    server.resources["/a"] = Resource(chunked=True, says_complete=says_complete, drop_after=[900_000] + [0] * 9)
    archive = _archive(server.url("/a"), bytes=None) if checked else _unpublished(server.url("/a"))
    with pytest.raises(DataError):
        _fetch(archive, tmp_path, attempts=1)
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    server.requests.clear()
    server.resources["/a"].drop_after.clear()
    _fetch(archive, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.ranges()[0] == f"bytes={len(CONTENT)}-"
    assert len(server.requests) == (1 if says_complete or checked else 2)


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("missing", [1, 700_000])
def test_a_chunked_response_that_breaks_off_is_resumed(
    server: Server, tmp_path: Path, checked: bool, missing: int
) -> None:
    framed = len(CONTENT) + 21 * len(b"186a0\r\n\r\n")
    server.resources["/a"] = Resource(chunked=True, drop_after=[framed - 10 - missing])
    archive = _archive(server.url("/a"), bytes=None) if checked else _unpublished(server.url("/a"))
    _fetch(archive, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and len(server.requests) == 2


def test_a_transfer_that_ends_at_the_last_byte_is_resumed(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(drop_after=[len(CONTENT) - 1])
    _fetch(_unpublished(server.url("/a")), tmp_path)
    assert server.ranges() == [None, f"bytes={len(CONTENT) - 1}-"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("checked", [True, False])
def test_a_response_without_any_size_is_judged_by_its_content(server: Server, tmp_path: Path, checked: bool) -> None:
    server.resources["/a"] = Resource(content=GZIPPED, length=False, drop_after=[len(GZIPPED) - 1, 500_000])
    archive = _of(GZIPPED, server.url("/a"), file="a.tgz") if checked else _unpublished(server.url("/a"), file="a.tgz")
    _fetch(archive.model_copy(update={"bytes": None}), tmp_path)
    assert (tmp_path / "a.tgz").read_bytes() == GZIPPED


def test_cookies_of_a_redirect_are_sent(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(cookie="seen=1", drop_after=[900_000])
    _fetch(_archive(server.url("/a")), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("address", ["http://[nonsense", "http://127.0.0.1:port/", "data:text/plain,a", "//"])
def test_a_redirect_to_an_invalid_address_is_a_reason(server: Server, tmp_path: Path, address: str) -> None:
    server.resources["/a"] = Resource(location=address)
    with pytest.raises(DataError, match=r"download failed from every address:\n  http://127"):
        _fetch(_unpublished(server.url("/a")), tmp_path, attempts=1)
    assert _names(tmp_path) == []


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://luab:secret@127.0.0.1:{server.server_port}")
    return server


def test_a_proxy_is_used_but_not_for_hosts_of_no_proxy(
    proxy: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.resources |= {"http://data.invalid/a": Resource(), "/a": Resource()}
    _fetch(_archive("http://data.invalid/a"), tmp_path / "1")
    _fetch(_archive(proxy.url("/a")), tmp_path / "2")
    assert [path for path, _ in proxy.requests] == ["http://data.invalid/a", "/a"]
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "data.invalid")
    with pytest.raises(DataError, match="connection failed"):
        _fetch(_archive("http://data.invalid/a"), tmp_path / "3", attempts=1)
    assert len(proxy.requests) == 2


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_password_is_named(proxy: Server, tmp_path: Path, scheme: str) -> None:
    proxy.resources["http://data.invalid/a"] = Resource(statuses=[407] * 9)
    with pytest.raises(DataError, match=r"407.*user and password of the proxy") as caught:
        _fetch(_archive(f"{scheme}://data.invalid/a"), tmp_path, attempts=9)
    assert "secret" not in str(caught.value) and len(proxy.requests) <= 1


def test_certificates_that_are_missing_are_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "gone.pem"))
    with pytest.raises(DataError, match=r"gone\.pem"):
        _fetch(_archive("https://127.0.0.1:9/a"), tmp_path, attempts=1)


def test_a_file_longer_than_published_is_replaced(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource()
    (tmp_path / "a.bin").write_bytes(CONTENT + b"more")
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    _fetch(_archive(server.url("/a")), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert (tmp_path / "a.bin.bad").read_bytes() == CONTENT + b"more"


# ---- a web page in place of the file --------------------------------------------------------------------------

PAGE = b"<!DOCTYPE html><html><title>Please confirm</title></html>"
ERROR = b'{"error": {"code": 403, "message": "The download quota for this file has been exceeded"}}'
RIGHT = {
    "a.tar": TAR,
    "a.tar.gz": gzip.compress(TAR),
    "a.tgz": TAR,
    "a.tar.bz2": bz2.compress(TAR),
    "a.tar.xz": lzma.compress(TAR),
    "a.zip": b"PK\x05\x06" + bytes(18),
    "a.json": b'[{"image_id": 1}]',
    "a.parquet": b"PAR1 columns PAR1",
    "a.txt": b"n01440764 0 0 9 9\n",
}


PAGES = [PAGE, b"\n " + PAGE.lower(), gzip.compress(PAGE, mtime=0), ERROR, b""]


@pytest.mark.parametrize(
    ("name", "page"), [(n, page) for n in RIGHT for page in (PAGES[:3] if n == "a.txt" else PAGES)]
)
def test_a_web_page_is_not_recorded_as_a_file(server: Server, tmp_path: Path, name: str, page: bytes) -> None:
    server.resources["/a"] = Resource(content=page, etag=None)
    archive = _unpublished(server.url("/a"), file=name, name="b")
    for _ in range(2):
        with pytest.raises(DataError, match=r"expected .*, found"):
            _fetch(archive, tmp_path)
        assert not (tmp_path / name).exists() and not (tmp_path / f".{name}.verified").exists()
        assert _names(tmp_path) == [f"{name}.bad"]
    server.resources["/a"].content = RIGHT[name]
    fetch(archive, tmp_path, tmp_path / "b.card")
    assert (tmp_path / name).read_bytes() == RIGHT[name]


def test_a_web_page_with_a_published_checksum_is_named(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(content=PAGE)
    with pytest.raises(DataError, match=r"found a web page.*expected sha256"):
        _fetch(_archive(server.url("/a"), file="a.tar", bytes=None), tmp_path)


def test_a_web_page_does_not_replace_a_part(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(drop_after=[900_000] + [0] * 9)
    with pytest.raises(DataError):
        _fetch(_archive(server.url("/a"), bytes=None), tmp_path, attempts=1)
    server.resources["/a"] = Resource(content=PAGE, ranges=False, length=False)
    with pytest.raises(DataError, match=r"sent a web page.*900000 bytes in .*a\.bin\.part are kept"):
        _fetch(_archive(server.url("/a"), bytes=None), tmp_path)
    server.resources["/a"] = Resource()
    _fetch(_archive(server.url("/a"), bytes=None), tmp_path)
    assert server.ranges()[-1] == "bytes=900000-" and (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_page_that_was_saved_by_hand_is_refused(server: Server, tmp_path: Path) -> None:
    archive = _unpublished(file="a.zip", manual="Sign in.")
    (tmp_path / "a.zip").write_bytes(PAGE)
    with pytest.raises(DataError, match=r"(?s)Sign in\..*expected a tar or zip, found a web page"):
        _fetch(archive, tmp_path)
    assert _names(tmp_path) == ["a.zip.bad"]
    (tmp_path / "a.zip").write_bytes(RIGHT["a.zip"])
    _fetch(archive, tmp_path)
    verify(archive, tmp_path)


@pytest.mark.parametrize("removed", [True, False])
@pytest.mark.parametrize("content", [PAGE, gzip.compress(b"no tar" * 100, mtime=0)], ids=["page", "no tar"])
def test_the_recorded_digest_of_no_archive_does_not_count(
    server: Server, tmp_path: Path, content: bytes, removed: bool
) -> None:
    archive, target, card = _unpublished(server.url("/a"), file="a.tar.gz"), tmp_path / "a.tar.gz", tmp_path / "a.json"
    target.write_bytes(content)  # as an older version recorded it
    digests = hasher_of(target).digests()
    write_stamp(target, server.url("/a"), digests)
    card.write_text(json.dumps({"sha256": digests.sha256}), encoding="utf-8")
    with pytest.raises(DataError, match="Remove it and fetch it again"):
        unpack_all({"a": target}, tmp_path / "raw", tmp_path / "raw.json", "a")
    if removed:
        target.unlink()
    with pytest.raises(DataError):
        _fetch(archive, tmp_path)  # the server is away at first
    server.resources["/a"] = Resource(content=GZIPPED)
    assert _fetch(archive, tmp_path)["bytes"] == len(GZIPPED)
    target.unlink()
    server.resources["/a"] = Resource(content=gzip.compress(TAR))
    with pytest.raises(DataError, match="first download had sha256"):
        _fetch(archive, tmp_path)


@pytest.mark.parametrize("verified", [True, False])
def test_the_card_of_a_web_page_without_a_stamp_does_not_count(server: Server, tmp_path: Path, verified: bool) -> None:
    archive = _unpublished(server.url("/a"), file="a.tar.gz")
    (tmp_path / "a.tar.gz").write_bytes(PAGE)
    (tmp_path / "a.json").write_text(json.dumps({"sha256": hashlib.sha256(PAGE).hexdigest()}), encoding="utf-8")
    if verified:
        with pytest.raises(DataError, match="found a web page"):
            verify(archive, tmp_path)
        (tmp_path / "a.tar.gz").unlink()
    server.resources["/a"] = Resource(content=GZIPPED)
    assert _fetch(archive, tmp_path)["bytes"] == len(GZIPPED)


def test_damage_after_the_download_does_not_replace_the_recorded_digest(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource(content=gzip.compress(TAR))
    archive, target = _unpublished(server.url("/a"), file="a.tar.gz"), tmp_path / "a.tar.gz"
    _fetch(archive, tmp_path)
    target.write_bytes(target.read_bytes()[:-9])
    with pytest.raises(DataError, match="Remove it and fetch it again"):
        unpack_all({"a": target}, tmp_path / "raw", tmp_path / "raw.json", "a")
    target.unlink()
    server.resources["/a"] = Resource(content=GZIPPED)
    with pytest.raises(DataError, match="first download had sha256"):
        _fetch(archive, tmp_path)


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
    said = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=60, encoding="utf-8", errors="replace"
    ).stdout
    assert said.startswith("JobError ") and os.strerror(errno.ENOSPC) in said and "is kept" in said
    assert 500_000 < int(said.split()[1]) <= 1 << 20


def test_a_file_size_limit_keeps_the_part_and_resumes(server: Server, tmp_path: Path) -> None:
    server.resources["/a"] = Resource()
    archive = _archive(server.url("/a"))
    command = _command(archive, tmp_path, "1000000")
    said = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=60, encoding="utf-8", errors="replace"
    ).stdout
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
