"""Tensors by name out of files and addresses, read without running code in them."""

import argparse
import hashlib
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import load_file

from blocklab.download import cached_download, http_address, is_whole, offline
from blocklab.errors import InputError, RunError, error_line
from blocklab.files import cache_folder, check_stored, file_sha256, read_checked_json
from blocklab.models.containers import Found, find_tensors
from blocklab.models.hub_weights import hub_file, is_hub_address

Source = str | os.PathLike[str] | Mapping[str, Any]

# What training programs keep beside tensors, and does nothing on loading: their command line, and
# NumPy's numbers.
_NUMBER = np.float64().__reduce__()[0]  # what a pickled NumPy number is made by
_HARMLESS: list[Any] = [
    argparse.Namespace,
    _NUMBER,
    (_NUMBER, "numpy.core.multiarray.scalar"),  # as NumPy before 2 names it
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"},
]
FILES_OF_A_FOLDER = ("model.safetensors", "last.ckpt")
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+(?:\.\w+)?$")  # as torch.hub names files
LONGEST_NAME = 200  # of a file in the cache: a file system takes 255 bytes
_FRAGMENT = re.compile(r"sha256=([0-9a-fA-F]{8,64})")


def read_weights(source: Source) -> tuple[str, Found]:
    """Return what to call a source of weights, and its tensors by the names that it gives them.

    Raises:
        InputError: if it cannot be read, or holds no tensors by name.
        RunError: if it cannot be downloaded.
    """
    if isinstance(source, Mapping):
        return "the state dict", find_tensors(source, "the state dict")
    if isinstance(source, str | os.PathLike):
        what = os.fspath(source)
        return what, find_tensors(_read(weights_file(what)), what)
    raise InputError(
        "weights are a path, an address or tensors by name (module.state_dict()), not a "
        f"{type(source).__name__}"
    )


def weights_file(source: str) -> Path:
    """Return the file that holds the weights of a path, a run's folder or an address.

    What lies elsewhere is fetched once: ``https://...`` (see `fetch`) or ``hf:USER/NAME``.

    Raises:
        InputError: if there is none.
        RunError: if it cannot be downloaded.
    """
    if is_hub_address(source):
        return hub_file(source)
    if "://" in source:
        return fetch(source)
    path = Path(source)
    if path.is_dir():
        found = next((path / name for name in FILES_OF_A_FOLDER if (path / name).is_file()), None)
        if found is None:
            raise InputError(
                f"{path} has neither model.safetensors nor last.ckpt; name a checkpoint or the "
                "folder of a run that has begun"
            )
        path = found
    if not path.is_file():
        raise InputError(f"no file {path}; check the path")
    return path


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
    path = cache_folder() / "weights" / f"{identity}-{kept}"
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


def _read(path: Path) -> Mapping[str, Any]:
    _check_against_result(path)
    _check_stored(path)
    try:
        if _is_safetensors(path):
            return load_file(path)
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise InputError(f"cannot read {path}: permission denied; check whose it is") from None
    except MemoryError:
        raise
    except Exception as error:  # of a damaged file the readers raise anything, assertions too
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


def _check_stored(path: Path) -> None:
    try:
        check_stored(path, path.stat().st_size)
    except (ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(
            f"{path}: {error_line(error, kind=False)}; PyTorch stores tensors unpacked: save it "
            "again by torch.save"
        ) from None


def _check_against_result(path: Path) -> None:
    """Check a file of a finished run's folder against what its result says of it.

    Raises:
        RunError: if the file is not as it was written.
    """
    result = read_checked_json(path.parent / "result.json") or {}
    files = result.get("files")
    known = files.get(path.name) if isinstance(files, dict) else None
    if isinstance(known, dict) and known.get("sha256") != file_sha256(path):
        raise RunError(
            f"{path} is damaged; delete it and run again: it is written anew from the last "
            "checkpoint"
        )


def _is_safetensors(path: Path) -> bool:
    """Tell by the name, or by the beginning: eight bytes that count the JSON that follows."""
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"
