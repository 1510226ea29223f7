"""A data set of Hugging Face's hub: its parquet files, fetched once below the data folder.

`hf:USER/NAME` or, where a data set has several configurations, `hf:USER/NAME/CONFIGURATION`. The
files stay at the commit that they were first fetched at: `.commit.json` beside them says which,
with each file's length and SHA-256.
"""

import hashlib
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from blocklab.data.faults import first_few
from blocklab.data.split_names import is_split_name
from blocklab.download import offline
from blocklab.errors import InputError, RunError, error_line
from blocklab.files import file_sha256, read_checked_json, write_checked_json
from blocklab.hub_access import asking, endpoint

COMMIT = ".commit.json"
MOST_SHOWN = 5
# USER/NAME or, of a few old data sets, NAME; then the folder of a configuration.
_ADDRESS = re.compile(r"(?![.-])[\w.-]{1,96}(/(?![.-])[\w.-]{1,96}){0,3}", re.ASCII)


def hub_folder(name: str, root: Path) -> Path:
    """Return the folder of a hub's parquet files below `root`, which then holds all of them.

    Raises:
        InputError: if there is no such data set, it has no parquet files by split, or downloads
            are switched off.
        RunError: if a download fails.
    """
    if not _ADDRESS.fullmatch(name) or ".." in name:
        raise InputError(
            f"'hf:{name}' is no data set of the hub; write hf:USER/NAME, or "
            "hf:USER/NAME/CONFIGURATION where it has several"
        )
    folder, commit = _kept(name, root)
    if commit["files"] and all((folder / file["name"]).is_file() for file in commit["files"]):
        return folder / commit["folder"]
    if switch := offline():
        raise InputError(
            f"hf:{name} is not whole in {folder} and {switch} is set; unset it, or put the files "
            "there"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock"):
            commit = _kept(name, root)[1]
            if not commit["files"]:
                commit = _ask(name)
                write_checked_json(folder / COMMIT, commit)
            for file in commit["files"]:
                _fetch(folder, commit, file)
    except OSError as error:
        raise RunError(
            f"cannot write into {folder}: {error.strerror or error}; free some space, or name "
            "another folder with BLOCKLAB_DATA"
        ) from error
    return folder / commit["folder"]


def mend_hub_folder(name: str, root: Path) -> None:
    """Check each file against its hash; throw away what is damaged and fetch it once more.

    Raises:
        InputError, RunError: as `hub_folder`.
    """
    hub_folder(name, root)
    folder, commit = _kept(name, root)
    for file in commit["files"]:
        if not _is_whole(folder / file["name"], file):
            (folder / file["name"]).unlink(missing_ok=True)
    hub_folder(name, root)


def hub_fingerprint(name: str, root: Path) -> str:
    """Return what identifies the images, on any machine: a hash of their files' hashes."""
    hub_folder(name, root)
    files = _kept(name, root)[1]["files"]
    listed = sorted((file["name"], file["bytes"], file["hash"]) for file in files)
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


def _kept(name: str, root: Path) -> tuple[Path, dict[str, Any]]:
    folder = root / "hf" / name.replace("/", "--")
    return folder, read_checked_json(folder / COMMIT) or {"files": []}


def _ask(name: str) -> dict[str, Any]:
    """Ask the hub for the commit of a data set, and its parquet files with their hashes."""
    from huggingface_hub import HfApi  # slow to import, seldom needed

    parts = name.split("/")
    repository, configuration = "/".join(parts[:2]), "/".join(parts[2:])
    with asking(f"hf:{name}", repository, "data set"):
        info = HfApi(endpoint=endpoint()).dataset_info(repository, files_metadata=True, timeout=30)
    tables = [file for file in info.siblings or [] if file.rfilename.endswith(".parquet")]
    folder = _choose(name, configuration, [file.rfilename for file in tables])
    files = [
        {
            "name": file.rfilename,
            "bytes": file.size,
            "hash": file.lfs.sha256 if file.lfs else file.blob_id,
        }
        for file in tables
        if str(PurePosixPath(file.rfilename).parent) == folder
    ]
    return {"repository": repository, "commit": info.sha, "folder": folder, "files": files}


def _choose(name: str, configuration: str, files: list[str]) -> str:
    """Return the folder, within the hub's, that holds the parquet files of splits."""
    folders = sorted(
        {
            str(path.parent)
            for path in map(PurePosixPath, files)
            if is_split_name(re.sub(r"-\d+-of-\d+.*", "", path.stem)) == "train"
        }
    )
    found = [
        folder
        for folder in folders
        if not configuration or configuration in (folder, PurePosixPath(folder).name)
    ]
    if len(found) == 1:
        return found[0]
    if not folders:
        raise InputError(
            f"hf:{name} has no files train*.parquet; download it and give folder:PATH or "
            "parquet:PATH"
        )
    raise InputError(
        f"hf:{name} has configurations {first_few(folders, most=MOST_SHOWN)}; name one, as "
        f"hf:{'/'.join(name.split('/')[:2])}/{PurePosixPath(folders[0]).name}"
    )


def _fetch(folder: Path, commit: dict[str, Any], file: dict[str, Any]) -> None:
    from huggingface_hub import hf_hub_download

    path = folder / file["name"]
    for _ in range(2):
        if _is_whole(path, file):
            return
        path.unlink(missing_ok=True)
        try:
            hf_hub_download(
                commit["repository"],
                file["name"],
                repo_type="dataset",
                revision=commit["commit"],
                local_dir=folder,
                endpoint=endpoint(),
            )
        except Exception as error:  # of whichever library fetches
            raise RunError(
                f"cannot fetch {file['name']} of {commit['repository']} from {endpoint()} "
                f"({error_line(error, kind=False)[:200]}); try again later"
            ) from error
    if not _is_whole(path, file):
        path.unlink(missing_ok=True)
        raise RunError(
            f"{file['name']} of {commit['repository']} came damaged from {endpoint()} twice; try "
            "again later"
        )


def _is_whole(path: Path, file: dict[str, Any]) -> bool:
    """Check a file's length and its hash: SHA-256, or Git's own of a file kept in Git itself."""
    try:
        if path.stat().st_size != file["bytes"]:
            return False
        if len(file["hash"]) == 64:
            return file_sha256(path) == file["hash"]
        git = hashlib.sha1(f"blob {file['bytes']}\0".encode(), usedforsecurity=False)
        with path.open("rb") as content:
            while block := content.read(1 << 20):
                git.update(block)
        return git.hexdigest() == file["hash"]
    except OSError:
        return False
