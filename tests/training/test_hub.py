"""Downloads of weights: the real hub client against a local server that answers like the hub."""

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
    """Serves `server.files`, the files of one repository; sends the fraction `server.sent` of their bytes."""

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
    """A server without files."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.sent = {}, 1.0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetch(hub, tmp_path, monkeypatch):
    """`download` with an empty cache, from the server or from another port."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda _: None)  # between attempts of the client
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def download_from(port=None):
        files = f"http://127.0.0.1:{port or hub.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        return pretrained.download(MODEL)

    return download_from


@pytest.fixture
def unused_port():
    """A port on which no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


@pytest.fixture(scope="module")
def weights():
    """A small model's safetensors file."""
    return save(timm.create_model("test_resnet").state_dict())


def test_weights_come_from_the_hub_and_then_from_its_cache(hub, fetch, unused_port, weights):
    hub.files["model.safetensors"] = weights
    path = fetch()
    assert path.read_bytes() == weights
    assert fetch(unused_port) == path


def test_an_unreachable_hub_and_a_hub_without_safetensors_are_errors(hub, fetch, unused_port, tmp_path):
    hub.files["pytorch_model.bin"] = b"a pickle"
    for port in (None, unused_port):
        with pytest.raises(DataError) as error:
            fetch(port)
        assert str(error.value).startswith(
            f"{MODEL}: its weights are not in the hub's cache and could not be fetched ("
        )
        assert "Copy model.safetensors of timm/test_resnet.r160_in1k here and pass it with --weights." in str(
            error.value
        )
    assert not list(tmp_path.rglob("pytorch_model.bin"))


def test_an_interrupted_download_is_not_used(hub, fetch, weights):
    hub.files["model.safetensors"], hub.sent = weights, 0.5
    with pytest.raises(DataError, match="could not be fetched"):
        fetch()
    hub.sent = 1.0
    assert fetch().read_bytes() == weights
