"""Tensors by name out of files and addresses: read without running code in them, unwrapped."""

import argparse
import hashlib
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import torch
from filelock import FileLock
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from blocklab.download import cached_download, http_address, is_whole, offline
from blocklab.errors import InputError, RunError

Weights = dict[str, Tensor]
Source = str | os.PathLike[str] | Mapping[str, Any]

# Where training programs put the tensors, averaged ones first: those are what was evaluated.
_CONTAINERS = ("average", "state_dict_ema", "model_ema", "state_dict", "model")
# Of DataParallel, torch.compile, Lightning, and detectors.
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
# What reading a file that is cut short, or of another kind, ends in.
_DAMAGE = (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError)
_FILES_OF_A_FOLDER = ("model.safetensors", "last.ckpt")
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+(?:\.\w+)?$")  # as torch.hub names files
LONGEST_NAME = 200  # of a file in the cache: a file system takes 255 bytes
_FRAGMENT = re.compile(r"sha256=([0-9a-fA-F]{8,64})")


def read_weights(source: Source) -> tuple[str, Weights]:
    """Return what to call a source of weights, and its tensors by the names that it gives them.

    Raises:
        InputError: if it cannot be read, or holds no tensors by name.
        RunError: if it cannot be downloaded.
    """
    if isinstance(source, Mapping):
        return "the state dict", _tensors(source, "the state dict")
    if isinstance(source, str) and "://" in source:
        path = fetch(source)
        return source, _tensors(_read(path), source)
    if isinstance(source, str | os.PathLike):
        what = os.fspath(source)
        return what, _tensors(_read(Path(what)), what)
    raise InputError(
        "weights are a path, an address or tensors by name (module.state_dict()), not a "
        f"{type(source).__name__}"
    )


def fetch(url: str) -> Path:
    """Return the file behind `url`, downloaded once into the folder of weights in the cache.

    The file's SHA-256 is checked against ``#sha256=...`` in the address (8 or more digits), else
    against the digits before the ending of its name, as torch.hub writes them; where neither is
    there, against the hash that the server sends. What is in the cache is checked again, and
    fetched once more if it is damaged. BLOCKLAB_CACHE names the cache.

    Raises:
        InputError: for an address that is not HTTP, a malformed hash, or downloads switched off.
        RunError: if the download fails or is damaged, or the cache cannot be written.
    """
    address = http_address(url)
    if address is None:
        raise InputError(f"{url} is not an http address; give one, or a path")
    fragment = url.partition("#")[2]
    name = PurePosixPath(unquote(urlsplit(address).path)).name or "weights"
    wanted: str | None = None
    if fragment:
        given = _FRAGMENT.fullmatch(fragment)
        if given is None:
            raise InputError(
                f"#{fragment} is no hash; end the address in #sha256= and 8 to 64 "
                "hexadecimal digits"
            )
        wanted = given[1].lower()
    elif named := _HASH_IN_NAME.search(name):
        wanted = named[1]
    plain = url.partition("#")[0]
    # The hash is part of the name: another hash asked for is another file.
    identity = hashlib.sha256(f"{plain} {wanted}".encode("utf-8", "replace")).hexdigest()[:12]
    kept = re.sub(r"[^0-9A-Za-z._-]", "_", name)[-LONGEST_NAME:]
    path = _cache_folder() / "weights" / f"{identity}-{kept}"
    if is_whole(path, wanted, _may_be_weights):
        return path
    if switch := offline():
        what = "damaged" if path.is_file() else f"not in {path.parent}"
        raise InputError(f"{plain} is {what} and {switch} is set; unset it, or give a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            # Another process may have just fetched it.
            cached_download(plain, path, sha256=wanted, looks_right=_may_be_weights)
    except OSError as error:
        raise RunError(
            f"cannot write into {path.parent}: {error.strerror or error}; free some space, or name "
            "another folder with BLOCKLAB_CACHE"
        ) from error
    return path


def _may_be_weights(head: bytes) -> bool:
    """Say whether a file begins as PyTorch's (a zip, or a pickle of old) or as safetensors."""
    return head.startswith((b"PK", b"\x80")) or head[8:9] == b"{"


def _cache_folder() -> Path:
    named = os.environ.get("BLOCKLAB_CACHE")
    return Path(named).expanduser() if named else user_cache_path("blocklab")


def _read(path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        found = next((path / name for name in _FILES_OF_A_FOLDER if (path / name).is_file()), None)
        if found is None:
            raise InputError(
                f"{path} has neither model.safetensors nor last.ckpt; name a checkpoint or the "
                "folder of a run that has begun"
            )
        path = found
    if not path.is_file():
        raise InputError(f"no file {path}; check the path")
    try:
        if _is_safetensors(path):
            return load_file(path)
        # Training programs keep their command line in a Namespace, which does nothing on loading.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise InputError(f"cannot read {path}: permission denied; check whose it is") from None
    except (SafetensorError, pickle.UnpicklingError, *_DAMAGE) as error:
        if refused := re.search(r"GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{path} holds a Python object ({refused[1]}), which could run code when loaded; "
                "save the state_dict() alone, best as .safetensors"
            ) from None
        raise InputError(
            f"{path} is damaged or no checkpoint (.safetensors, or saved by PyTorch); copy or "
            "download it again"
        ) from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not tensors by name")
    return content


def _is_safetensors(path: Path) -> bool:
    """Tell by the name, or by the beginning: eight bytes that count the JSON that follows."""
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _tensors(content: Mapping[str, Any], what: str) -> Weights:
    """Take the tensors out of their containers and prefixes."""
    while inner := next(
        (content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None
    ):
        content = inner
    state = {
        name: value
        for name, value in content.items()
        # `n_averaged` is the count that torch.optim.swa_utils keeps beside the averaged tensors.
        if isinstance(name, str) and isinstance(value, Tensor) and name != "n_averaged"
    }
    if not state:
        raise InputError(f"{what} holds no tensors by name; give a state_dict()")
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state
