"""Many workers at once, and servers that die: what was acknowledged is stored, once."""

import asyncio
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from .conftest import REPOSITORY, browsing_body, configuration

# LUAB_LOAD_S=300 is the long run; LUAB_ANNOTATE_KILLS=50 likewise.
SECONDS = float(os.environ.get("LUAB_LOAD_S", "20"))
KILLS = int(os.environ.get("LUAB_ANNOTATE_KILLS", "8"))


def many_images(folder: Path, per_class: int) -> None:
    """Files that are listed but never looked at."""
    for label in ("cat", "dog"):
        (folder / "photos" / label).mkdir(parents=True)
        for k in range(per_class):
            (folder / "photos" / label / f"{label}_{k}.jpg").touch()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def server(file: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """The command in a process of its own, ready to answer; killed at the end."""
    command = [sys.executable, "-m", "luab", "annotate", str(file), "--port", str(port)]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path}, cwd=file.parent
    )
    try:
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, "the server did not start"
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


class Worker:
    """A participant over one connection that is kept open, without a browser."""

    def __init__(self, port: int, name: str) -> None:
        self.port, self.name, self.cookie = port, name, ""
        self.reader: asyncio.StreamReader | None = None
        self.acknowledged: dict[str, str] = {}  # page id -> assignment and number
        self.seconds: list[float] = []

    async def ask(self, method: str, path: str, content: Any) -> tuple[int, dict[str, Any]]:
        """One request; OSError if the connection breaks."""
        if self.reader is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = json.dumps(content).encode()
        head = f"{method} /api/browsing/{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        head += f"Cookie: luab-browsing={self.cookie}\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            self.writer.write(head.encode() + body)
            await self.writer.drain()
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines[1:])}
            answer = json.loads(await self.reader.readexactly(int(headers["content-length"])))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise OSError from error
        if "set-cookie" in headers:
            self.cookie = headers["set-cookie"].partition("luab-browsing=")[2].partition(";")[0].strip('"')
        return int(lines[0].split()[1]), answer

    def close(self) -> None:
        """Ends the connection."""
        if self.reader is not None:
            self.writer.close()
            self.reader = None

    async def work(self, until: float, think_s: float) -> None:
        """Sends pages until a moment; after a broken connection the same page again."""
        pending: tuple[dict[str, Any], dict[str, Any]] | None = None
        following: dict[str, Any] | None = None  # the answer to a page has the next one
        while time.monotonic() < until:
            try:
                if pending is None:
                    page = following or await self.next_page()
                    if page is None:
                        return
                    await asyncio.sleep(random.uniform(0, 2 * think_s))
                    pending = page, browsing_body(page)
                page, body = pending
                start = time.monotonic()
                status, answer = await self.ask("PUT", f"assignments/{page['assignment']}/pages/{page['number']}", body)
                assert status == 200, answer
                self.seconds.append(time.monotonic() - start)
                self.acknowledged[body["page"]["id"]] = f"{page['assignment']} {page['number']}"
                pending, following = None, answer.get("page")
            except OSError:
                following = None
                await asyncio.sleep(0.05)

    async def next_page(self) -> dict[str, Any] | None:
        """Logs in, consents and begins as needed."""
        status, state = await self.ask("POST", "login", {"name": self.name})
        if state.get("stage") == "consent":
            status, state = await self.ask("POST", "consent", {"version": "1"})
        if state.get("stage") == "done":
            status, state = await self.ask("POST", "another", {})
        assert status == 200, state
        return state.get("page")


def check_stored(database: Path, workers: list[Worker]) -> int:
    """Every acknowledged page is there, none twice; returns the number of pages."""
    connection = sqlite3.connect(database)
    rows = connection.execute("SELECT id, assignment, number FROM page").fetchall()
    assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    connection.close()
    stored = {page_id: f"{assignment} {number}" for page_id, assignment, number in rows}
    acknowledged = {key: value for worker in workers for key, value in worker.acknowledged.items()}
    assert acknowledged.items() <= stored.items()
    assert len(set(stored.values())) == len(rows)
    return len(rows)


@pytest.mark.slow
def test_200_workers_at_once(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    many_images(tmp_path, 4000)
    browsing = {"images": "photos", "annotators_per_image": 1000}
    file, port = configuration(tmp_path, tagging=None, browsing=browsing, assignments_per_worker=None), free_port()
    workers = [Worker(port, f"worker {k}") for k in range(200)]

    async def arrives(worker: Worker, until: float) -> None:
        await asyncio.sleep(random.uniform(0, min(30, SECONDS / 2)))
        await worker.work(until, think_s=5)

    async def everybody() -> None:
        until = time.monotonic() + SECONDS
        await asyncio.gather(*(worker.work(until, think_s=5) for worker in workers))
        for worker in workers:
            worker.close()

    with server(file, port) as process:
        asyncio.run(everybody())
        process.terminate()
        process.wait(30)
    pages = check_stored(tmp_path / "collection.sqlite", workers)
    seconds = sorted(second for worker in workers for second in worker.seconds)
    assert pages == len(seconds) > 0  # nothing lost, nothing invented
    p99 = seconds[int(0.99 * (len(seconds) - 1))]
    print(f"{pages} pages, {pages / SECONDS:.1f} pages/s, median {seconds[len(seconds) // 2]:.3f} s, p99 {p99:.3f} s")
    record_property("pages_per_s", pages / SECONDS)
    assert p99 < 30, p99  # seconds, on two cores that other tests share


@pytest.mark.slow
@pytest.mark.faults
def test_a_killed_server_loses_no_acknowledged_page(tmp_path: Path) -> None:
    many_images(tmp_path, 400)
    browsing = {"images": "photos", "images_per_page": 3, "annotators_per_image": 1000}
    file, port = configuration(tmp_path, tagging=None, browsing=browsing, assignments_per_worker=None), free_port()
    workers = [Worker(port, f"worker {k}") for k in range(8)]
    rng = random.Random(0)

    async def life(process: "subprocess.Popen[bytes]") -> None:
        until = time.monotonic() + 600
        tasks = [asyncio.create_task(worker.work(until, think_s=0.02)) for worker in workers]
        await asyncio.sleep(rng.uniform(0.05, 1.5))
        process.send_signal(signal.SIGKILL)
        await asyncio.sleep(0.1)  # answers on the way arrive
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in workers:
            worker.close()

    for _ in range(KILLS):
        with server(file, port) as process:
            asyncio.run(life(process))
        check_stored(tmp_path / "collection.sqlite", workers)
    acknowledged = sum(len(worker.acknowledged) for worker in workers)
    print(f"{KILLS} kills, {acknowledged} pages acknowledged")
    assert acknowledged > KILLS
