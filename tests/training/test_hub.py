"""Weights from the hub: the real client against a server on loopback that answers as the hub does."""

import hashlib
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
from huggingface_hub import constants
from safetensors.torch import save

from luab.errors import DataError
from luab.training import pretrained

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "test_resnet.r160_in1k"


class Hub(BaseHTTPRequestHandler):
    """Answers for files of one repository; `server.files` holds them, `server.sent` the share of bytes that is sent."""

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, with_body):
        name = re.fullmatch(r"/timm/test_resnet\.r160_in1k/resolve/[^/]+/(.+)", self.path)
        content = self.server.files.get(name[1]) if name else None
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content[: int(len(content) * self.server.sent)])

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    """A server with nothing on it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.sent = {}, 1.0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(hub, tmp_path, monkeypatch):
    """`download` with an empty cache, from the server or from a port where nobody listens."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # between its tries
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def download_from(port=None):
        files = f"http://127.0.0.1:{port or hub.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        return pretrained.download(MODEL)

    return download_from


@pytest.fixture
def nobody():
    """A port where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


@pytest.fixture(scope="module")
def weights():
    """A small model's safetensors file."""
    return save(timm.create_model("test_resnet").state_dict())


def test_weights_come_from_the_hub_and_then_from_its_cache(hub, ask, nobody, weights):
    hub.files["model.safetensors"] = weights
    path = ask()
    assert path.read_bytes() == weights
    assert ask(nobody) == path


def test_a_hub_out_of_reach_and_a_hub_without_safetensors(hub, ask, nobody, tmp_path):
    hub.files["pytorch_model.bin"] = b"a pickle"
    for port in (None, nobody):
        with pytest.raises(DataError) as error:
            ask(port)
        assert str(error.value).startswith(
            f"{MODEL}: its weights are not in the hub's cache and could not be fetched ("
        )
        assert "Copy model.safetensors of timm/test_resnet.r160_in1k here and pass it with --weights." in str(
            error.value
        )
    assert not list(tmp_path.rglob("pytorch_model.bin"))


def test_a_download_that_breaks_off_is_not_taken_for_the_file(hub, ask, weights):
    hub.files["model.safetensors"], hub.sent = weights, 0.5
    with pytest.raises(DataError, match="could not be fetched"):
        ask()
    hub.sent = 1.0
    assert ask().read_bytes() == weights
