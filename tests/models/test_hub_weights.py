"""Weights of the hub, against a server on this machine that answers as the hub does."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from blocklab.errors import BlocklabError, InputError, RunError
from blocklab.models.factory import create_model
from blocklab.models.hub_weights import hub_config, hub_file
from blocklab.models.pretrained import Pretrained
from blocklab.models.weights import load_weights

SHA = "0123456789abcdef0123456789abcdef01234567"
SMALL = {"widths": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "stem": "cifar"}


class Hub(ThreadingHTTPServer):
    """Serves models' files as the hub does, and counts what was fetched."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.repositories = {"someone/net"}
        self.fetched: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        hub = self.server
        assert isinstance(hub, Hub)
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if repository not in hub.repositories:
            return self.refuse("RepoNotFound")
        if revision not in ("main", SHA):
            return self.refuse("RevisionNotFound")
        if (content := hub.files.get(name)) is None:
            return self.refuse("EntryNotFound")
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", SHA)
        self.end_headers()
        if body:
            hub.fetched.append(name)
            self.wfile.write(content)

    def refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *ignored: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub()
    threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
    for name in ("BLOCKLAB_OFFLINE", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    yield hub
    hub.shutdown()
    hub.server_close()


def _weights() -> tuple[dict[str, torch.Tensor], bytes]:
    torch.manual_seed(0)
    state = dict(create_model("resnet18", 5, **SMALL).state_dict())
    return state, save(state)


@pytest.mark.parametrize(
    "address", ["hf:someone/net", "hf-hub:someone/net", f"hf:someone/net@{SHA}"]
)
def test_a_models_weights_are_fetched_once(hub: Hub, address: str) -> None:
    state, hub.files["model.safetensors"] = _weights()
    for _ in range(2):
        model = create_model("resnet18", 5, **SMALL)
        load_weights(model, address)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert hub.fetched == ["model.safetensors"]


@pytest.mark.parametrize("nested", [True, False])
def test_a_models_images_are_known_by_its_configuration(hub: Hub, nested: bool) -> None:
    images = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5], "input_size": [3, 224, 224]}
    hub.files["model.safetensors"] = _weights()[1]
    start = Pretrained.parse("hf:someone/net")
    assert start.normalisation() is None and hub.fetched == ["model.safetensors"]
    hub.files["config.json"] = json.dumps({"pretrained_cfg": images} if nested else images).encode()
    assert start.normalisation() == ((0.5, 0.5, 0.5), (0.25, 0.5, 0.5))
    Path(hub_config("hf:someone/net") or "").write_text('{"mean": [1], "std": "x"}')
    assert start.normalisation() is None


def test_a_file_beside_anothers_configuration_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(_weights()[1])
    (tmp_path / "config.json").write_text('{"mean": [1, 1, 1], "std": [1, 1, 1]}')
    assert Pretrained.parse(str(tmp_path / "mine.safetensors")).normalisation() is None


def test_older_models_have_a_pytorch_file(hub: Hub, tmp_path: Path) -> None:
    torch.save(_weights()[0], tmp_path / "old.bin")
    hub.files["pytorch_model.bin"] = (tmp_path / "old.bin").read_bytes()
    assert hub_file("hf:someone/net").name == "pytorch_model.bin"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("hf:someone/nothing", "no model 'someone/nothing' that you may read"),
        ("hf:someone/net@v9", "no such revision"),
        ("hf:someone/net", "neither model.safetensors nor pytorch_model.bin"),
        ("hf:someone", "is no model of the hub; write hf:USER/NAME"),
        ("hf:../../etc", "is no model of the hub"),
    ],
)
def test_what_the_hub_has_not_is_one_line(hub: Hub, address: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        hub_file(address)
    assert "\n" not in str(refused.value)


def test_no_network_is_one_line(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the library's tries
    with pytest.raises(RunError, match=r"hf:someone/net \(.*refused\); try .*HF_ENDPOINT"):
        hub_file("hf:someone/net")
    assert capfd.readouterr().err == ""


def test_switched_off_is_one_line_unless_it_was_fetched(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files["model.safetensors"] = _weights()[1]
    with monkeypatch.context() as patch:
        patch.setenv("BLOCKLAB_OFFLINE", "1")
        with pytest.raises(InputError, match="BLOCKLAB_OFFLINE is set"):
            hub_file("hf:someone/net")
    fetched = hub_file("hf:someone/net")
    monkeypatch.setenv("BLOCKLAB_OFFLINE", "1")
    assert hub_file("hf:someone/net") == fetched


def test_a_damaged_answer_is_no_weights(hub: Hub) -> None:
    hub.files["model.safetensors"] = b"<html>"
    with pytest.raises(BlocklabError, match="damaged or no checkpoint"):
        load_weights(create_model("resnet18", 5, **SMALL), "hf:someone/net")
