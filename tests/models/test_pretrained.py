"""`create_model(pretrained=...)`: files and addresses, heads and channels of other sizes."""

import copy
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from blocklab import create_model, load_weights
from blocklab.errors import InputError, RunError
from blocklab.models.checkpoint import fetch
from blocklab.models.spec import model_spec

TEN: dict[str, Any] = {"num_classes": 10}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class _Counting(SimpleHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of `tmp_path / "served"`, and an empty cache."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("BLOCKLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BLOCKLAB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    _Counting.asked.clear()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Counting, directory=str(folder)))
    serve = partial(httpd.serve_forever, poll_interval=0.01)
    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def save(folder: Path, name: str = "weights.safetensors") -> tuple[nn.Module, str]:
    """Save a network; return it and the file's SHA-256."""
    model = create_model("resnet20", **TEN)
    path = folder / "served" / name
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save({"state_dict": model.state_dict()}, path)
    return model, hashlib.sha256(path.read_bytes()).hexdigest()


def assert_equal_states(one: nn.Module, other: nn.Module, but: str = "none") -> None:
    expected, got = one.state_dict(), other.state_dict()
    for name, value in expected.items():
        if not name.startswith(but):
            assert torch.equal(value, got[name]), name


@pytest.mark.parametrize("hashed", ["fragment", "short fragment", "name", "nothing"])
def test_an_address_is_downloaded_once(hashed: str, server: str, tmp_path: Path) -> None:
    model, digest = save(tmp_path)
    address = f"{server}/weights.safetensors"
    if "fragment" in hashed:
        address += f"#sha256={digest if hashed == 'fragment' else digest[:8].upper()}"
    elif hashed == "name":
        saved = tmp_path / "served" / "weights.safetensors"
        saved.rename(saved.with_name(f"resnet20-{digest[:8]}.safetensors"))
        address = f"{server}/resnet20-{digest[:8]}.safetensors"
    for _ in range(2):
        assert_equal_states(model, create_model("resnet20", **TEN, pretrained=address))
    assert len(_Counting.asked) == 1


def test_a_pickled_checkpoint_by_address(server: str, tmp_path: Path) -> None:
    model, _ = save(tmp_path, "weights.pth.tar")
    loaded = create_model("resnet20", **TEN)
    load_weights(loaded, f"{server}/weights.pth.tar")
    assert_equal_states(model, loaded)


@pytest.mark.parametrize("hashed", ["fragment", "name"])
def test_another_hash_is_refused_and_nothing_kept(hashed: str, server: str, tmp_path: Path) -> None:
    name = "weights-0123abcd.safetensors" if hashed == "name" else "weights.safetensors"
    save(tmp_path, name)
    address = f"{server}/{name}" + ("#sha256=0123abcd" if hashed == "fragment" else "")
    with pytest.raises(RunError, match=r"came damaged: sha256 [0-9a-f]+, not 0123abcd"):
        create_model("resnet20", **TEN, pretrained=address)
    kept = [path for path in (tmp_path / "cache" / "weights").iterdir() if path.suffix != ".lock"]
    assert not kept


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("ftp://example.org/a.pth", InputError, "not an http address"),
        ("SERVER/a.pth#md5=12345678", InputError, "is no hash; end the address in #sha256="),
        ("SERVER/a.pth#sha256=xyz", InputError, "is no hash"),
        ("SERVER/absent.pth", RunError, "answered 404"),
    ],
)
def test_bad_addresses_are_refused_in_one_line(
    address: str, error: type[Exception], message: str, server: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        create_model("resnet20", pretrained=address.replace("SERVER", server))
    assert "\n" not in str(caught.value)


def test_offline_and_unwritable_caches(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path)
    address = f"{server}/weights.safetensors"
    monkeypatch.setenv("BLOCKLAB_OFFLINE", "1")
    with pytest.raises(InputError, match="BLOCKLAB_OFFLINE is set; unset it, or give a file"):
        fetch(address)
    monkeypatch.delenv("BLOCKLAB_OFFLINE")
    (tmp_path / "file").touch()
    monkeypatch.setenv("BLOCKLAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(RunError, match=r"cannot write into .*BLOCKLAB_CACHE"):
        fetch(address)


def test_a_wrong_way_to_load_names_the_right_ones() -> None:
    state = create_model("resnet20", **TEN).state_dict()
    with pytest.raises(InputError, match="head is 'load' or 'fresh', not 'frsh'; did you mean"):
        create_model("resnet20", **TEN, pretrained=state, head="frsh")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="first_conv is 'load' or 'adapt', not True"):
        load_weights(create_model("resnet20"), state, first_conv=True)  # type: ignore[arg-type]


def test_a_head_left_fresh(tmp_path: Path) -> None:
    state = create_model("resnet20", num_classes=7).state_dict()
    with pytest.raises(InputError, match=r'head has 7 classes.*head="fresh"'):
        create_model("resnet20", **TEN, pretrained=state)
    model = create_model("resnet20", **TEN)
    before = copy.deepcopy(model)
    report = load_weights(model, state, head="fresh")
    assert report.fresh == ("fc.weight", "fc.bias")
    assert not report.problems()
    assert "head left fresh (fc.weight, fc.bias)" in str(report)
    assert torch.equal(model.state_dict()["fc.weight"], before.state_dict()["fc.weight"])
    assert torch.equal(model.state_dict()["conv1.weight"], state["conv1.weight"])
    # Strict still for the rest, and fresh even where the head would fit.
    wrong = {name: value for name, value in state.items() if name != "bn1.bias"}
    with pytest.raises(InputError, match="1 missing"):
        load_weights(model, wrong, head="fresh")
    same = create_model("resnet20", **TEN)
    load_weights(same, model.state_dict(), head="fresh")
    assert not torch.equal(same.state_dict()["fc.weight"], model.state_dict()["fc.weight"])
    headless = {name: value for name, value in state.items() if not name.startswith("fc.")}
    assert not load_weights(model, headless, head="fresh").problems()


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(channels: int) -> None:
    state = create_model("van_b0", **TEN, depths=(1, 1, 1, 1)).state_dict()
    slots: dict[str, Any] = {**TEN, "in_chans": channels, "depths": (1, 1, 1, 1)}
    with pytest.raises(InputError, match=rf"takes 3 input channels, the model {channels}.*adapt"):
        create_model("van_b0", **slots, pretrained=state)
    model: Any = create_model("van_b0", **slots, pretrained=state, first_conv="adapt")
    weight, given = model.patch_embed1.proj.weight, state["patch_embed1.proj.weight"]
    expected = given.sum(1, True) if channels == 1 else given[:, [0, 1, 2, 0]] * 3 / 4
    assert torch.allclose(weight, expected)
    report = load_weights(model, state, first_conv="adapt")
    assert report.adapted == ("patch_embed1.proj.weight",)


def test_features_only_of_pretrained_weights() -> None:
    model: Any = create_model("resnet20", **TEN).eval()
    features: Any = create_model(
        "resnet20", features_only=True, out_indices=(-2,), pretrained=model.state_dict()
    ).eval()
    assert not any(name.startswith(("model.layer3", "model.fc")) for name in features.state_dict())
    images = torch.randn(2, 3, 16, 24)
    with torch.inference_mode():
        expected = model.forward_intermediates(images, intermediates_only=True)[1]
        assert torch.equal(features(images)[0], expected)
    other: Any = create_model("resnet20", features_only=True, out_indices=1).eval()
    report = load_weights(other, model.state_dict())
    assert not report.problems()


def test_what_pretrained_is_not() -> None:
    with pytest.raises(InputError, match="blocklab brings no weights of its own"):
        create_model("resnet20", pretrained=True)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="give pretrained"):
        create_model("resnet20", head="fresh")


# Design of the checkpoint -> model it is loaded into, what the refusal says.
@pytest.mark.parametrize(
    ("of", "into", "message"),
    [
        ("resnet18_se", "resnet18", r"fits resnet18_se best \(all \d+ tensors but the head's\)"),
        ("res2net50_26w_4s", "resnet50", r"fits res2net50_26w_4s best \(all"),
        ("resnet50d", "resnet50", r"fits resnet50d best \(all"),
        ("resnet34", "resnet18", r"fits resnet34 best \(all"),
        ("van_b1", "van_b0", r"fits van_b1 best \(all"),
        ("replknet_31b", "replknet_31n", r"fits replknet_31b best \(all"),
        ("van_b0", "resnet18", r"none of its \d+ tensors.*VAN.*fits van_b0 best \(all"),
    ],
)
def test_a_refusal_names_the_model_that_fits(of: str, into: str, message: str) -> None:
    state = model_spec(of).build_meta(1000).state_dict()
    with pytest.raises(InputError, match=message) as caught:
        load_weights(model_spec(into).build_meta(10), state)
    assert "\n" not in str(caught.value)


def test_a_refusal_says_what_differs_from_the_nearest() -> None:
    spec = model_spec("resnet18", attention={"type": "se", "stages": [2, 3, 4]})
    with pytest.raises(InputError, match=r"resnet18(_se)? best \(\d+ of its \d+ tensors, .*first"):
        load_weights(model_spec("van_b0").build_meta(), spec.build_meta().state_dict())
    state = model_spec("resnet18").build_meta().state_dict()
    del state["bn1.bias"]
    with pytest.raises(InputError, match=r"1 missing \(bn1.bias\).*the model's own design"):
        load_weights(model_spec("resnet18").build_meta(), state)
