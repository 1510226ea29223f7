"""Data sets of the hub, against a server on this machine that answers as the hub does."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from image_files import Made, make, write_parquet, write_shards

from blocklab.data.image_data import ImageData, open_data
from blocklab.data.spec import DataSpec
from blocklab.errors import BlocklabError, InputError, RunError

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves files as data sets of the hub, and counts."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sets: dict[str, dict[str, bytes]] = {}
        self.spoilt = 0  # how many files are yet to come damaged
        self.in_git = False  # small files have no SHA-256 there, only Git's own hash
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        assert isinstance(hub, Hub)
        for name, files in hub.sets.items():
            if path.startswith(f"/api/datasets/{name}"):
                hub.asked.append(name)
                return self.send(json.dumps(described(name, files, hub.in_git)).encode(), body)
            start = f"/datasets/{name}/resolve/{SHA}/"
            if path.startswith(start) and (content := files.get(path.removeprefix(start))):
                etag = hashlib.sha256(content).hexdigest()
                if body:
                    hub.asked.append(path.rpartition("/")[2])
                    if hub.spoilt:
                        hub.spoilt -= 1
                        content = content[:-1] + bytes([content[-1] ^ 1])
                return self.send(content, body, etag)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, content: bytes, body: bool, etag: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        if etag:
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", SHA)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *ignored: object) -> None:
        pass


def described(name: str, files: dict[str, bytes], in_git: bool) -> dict[str, object]:
    siblings = []
    for path, content in files.items():
        git = hashlib.sha1(f"blob {len(content)}".encode() + bytes(1) + content)
        one: dict[str, object] = {
            "rfilename": path,
            "size": len(content),
            "blobId": git.hexdigest(),
        }
        if not in_git:
            sha256 = hashlib.sha256(content).hexdigest()
            one["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
        siblings.append(one)
    return {"id": name, "sha": SHA, "siblings": siblings, "private": False, "tags": []}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.delenv("BLOCKLAB_OFFLINE")
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    yield hub
    hub.shutdown()
    hub.server_close()


def files_of(folder: Path, below: str) -> dict[str, bytes]:
    return {f"{below}{path.name}": path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


@pytest.fixture
def made(hub: Hub, tmp_path: Path, rng: np.random.Generator) -> Made:
    made = make(rng, 3, train=6, test=2, size=8)
    write_shards(made, tmp_path / "made", shards=2)
    hub.sets["someone/things"] = {
        **files_of(tmp_path / "made", "data/"),
        "README.md": b"read me",
        "data/other.csv": b"1,2",
    }
    return made


def opened(name: str = "someone/things", **fields: object) -> ImageData:
    return open_data(DataSpec.parse({"source": f"hf:{name}", "validation_fraction": 0, **fields}))


def pixels(data: ImageData) -> list[bytes]:
    return sorted(image.tobytes() for image in data.train.pixels(slice(None)))


def refused(message: str, kind: type[BlocklabError], name: str = "someone/things") -> None:
    with pytest.raises(kind, match=message) as caught:
        opened(name)
    assert str(caught.value).isprintable()


def test_a_data_set_is_fetched_once(
    hub: Hub, made: Made, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened()
    assert pixels(found) == sorted(image.tobytes() for image in made.train)
    assert len(found.test) == 6 and found.class_names == tuple(made.names)
    assert found.name == "someone/things"
    fetched = ["test-00000-of-00002.parquet", "test-00001-of-00002.parquet"]
    fetched += ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert sorted(hub.asked) == sorted(["someone/things", *fetched])  # no README, no CSV
    monkeypatch.setenv("BLOCKLAB_OFFLINE", "1")  # nothing more is asked for
    assert opened().fingerprint == found.fingerprint
    assert len(hub.asked) == 5


def test_the_address_follows_the_files_not_their_place(
    hub: Hub, made: Made, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DataSpec.parse("hf:someone/things")
    first = spec.definition()["source"]
    assert first.startswith("hf:") and "someone" not in first
    monkeypatch.setenv("BLOCKLAB_DATA", str(tmp_path / "elsewhere"))
    assert spec.definition()["source"] == first
    hub.sets["someone/things"]["data/test-00000-of-00002.parquet"] += b" "
    assert spec.definition()["source"] == first  # it stays at its commit
    monkeypatch.setenv("BLOCKLAB_DATA", str(tmp_path / "third"))
    assert spec.definition()["source"] != first


@pytest.mark.parametrize("in_git", [False, True])
def test_what_comes_damaged_is_fetched_once_more(hub: Hub, made: Made, in_git: bool) -> None:
    hub.in_git = in_git
    hub.spoilt = 1
    assert len(opened().train) == 18
    assert len(hub.asked) == 6


def test_what_comes_damaged_twice_is_refused(hub: Hub, made: Made, data: Path) -> None:
    hub.spoilt = 2
    refused("parquet of someone/things came damaged from http.* twice; try again later", RunError)
    assert len(opened().train) == 18  # and the next time it goes on


def test_a_damaged_file_is_thrown_away_when_it_is_read(
    hub: Hub, made: Made, data: Path, cache: Path
) -> None:
    first = opened()
    path = data / "hf" / "someone--things" / "data" / "train-00000-of-00002.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    assert opened().fingerprint == first.fingerprint
    assert len(hub.asked) == 6


def test_configurations(hub: Hub, made: Made, tmp_path: Path) -> None:
    files = files_of(tmp_path / "made", "")
    hub.sets["someone/many"] = {
        f"{folder}/{name}": content
        for folder in ("fine", "coarse")
        for name, content in files.items()
    }
    refused(
        "has configurations coarse, fine; name one, as hf:someone/many/c",
        InputError,
        "someone/many",
    )
    assert len(opened("someone/many/fine").train) == 18
    assert hub.asked.count("train-00000-of-00002.parquet") == 1
    refused("has configurations coarse, fine", InputError, "someone/many/gone")


def test_train_alone_and_named_columns(hub: Hub, tmp_path: Path, rng: np.random.Generator) -> None:
    write_parquet(make(rng, 2, train=10, test=1, size=8), tmp_path / "made", "kind")
    files = {"train.parquet": (tmp_path / "made" / "train.parquet").read_bytes()}
    hub.sets["someone/few"] = files
    found = opened("someone/few", label_column="kind", image_column="img")
    assert (len(found.train), len(found.test)) == (16, 4)


@pytest.mark.parametrize(
    ("name", "message", "kind"),
    [
        ("someone/gone", "has no data set 'someone/gone' that you may read; check its", InputError),
        ("someone/empty", "hf:someone/empty has no files train", InputError),
        ("../../etc", "is no data set of the hub; write hf:USER/NAME", InputError),
        ("a//b", "is no data set of the hub", InputError),
        ("some one/x", "is no data set of the hub", InputError),
        ("a/b/../c", "is no data set of the hub", InputError),
    ],
)
def test_what_is_not_there(
    name: str, message: str, kind: type[BlocklabError], hub: Hub, data: Path
) -> None:
    hub.sets["someone/empty"] = {"README.md": b"x", "images.zip": b"PK"}
    refused(message, kind, name)
    assert not (data / "hf" / "etc").exists()


def test_no_name_no_server_no_network(
    hub: Hub, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="'hf:' names no data set; write hf:USER/NAME"):
        DataSpec.parse("hf:")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused("is not whole in .* and HF_HUB_OFFLINE is set; unset it, or put", InputError)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused(r"the hub at http://127.0.0.1:9 did not answer for hf:someone/things ", RunError)
