"""Weights of a model on Hugging Face's hub: ``hf:USER/NAME``, or with ``@REVISION`` after it.

They are kept where every library keeps them (HF_HOME), so that what timm has fetched is not fetched
again.
"""

import re
from contextlib import suppress
from pathlib import Path

from blocklab.download import offline
from blocklab.errors import InputError, RunError
from blocklab.hub_access import asking, endpoint

PREFIXES = ("hf:", "hf-hub:")  # the second is timm's
CONFIG = "config.json"
_FILES = ("model.safetensors", "pytorch_model.bin")
_ADDRESS = re.compile(r"((?![.-])[\w.-]{1,96}/(?![.-])[\w.-]{1,96})(?:@([\w./-]{1,96}))?", re.ASCII)


def is_hub_address(source: str) -> bool:
    """Whether it names a model of the hub."""
    return source.startswith(PREFIXES)


def hub_file(address: str) -> Path:
    """Return the file of weights of a model on the hub, fetched once.

    Raises:
        InputError: if it is no address, there is no such model, it holds no weights, or downloads
            are switched off.
        RunError: if the hub does not answer.
    """
    repository, revision = _parsed(address)
    switch = offline()
    for name in _FILES:
        if (file := _fetched(address, repository, name, revision, switch is not None)) is not None:
            return file
    if switch is not None:
        raise InputError(
            f"{address} is not among the hub's files here and {switch} is set; unset it, or give "
            "a file"
        )
    raise InputError(
        f"{address} holds neither {' nor '.join(_FILES)}; name another model, or a file"
    )


def hub_config(address: str) -> Path | None:
    """Return the ``config.json`` of a model on the hub, which says what images it was trained with.

    None where it has none or, of a note's worth, where the hub does not answer.
    """
    repository, revision = _parsed(address)
    with suppress(InputError, RunError):
        return _fetched(address, repository, CONFIG, revision, offline() is not None)
    return None


def _parsed(address: str) -> tuple[str, str | None]:
    found = _ADDRESS.fullmatch(address.partition(":")[2])
    if found is None or ".." in address:
        raise InputError(
            f"'{address}' is no model of the hub; write hf:USER/NAME, or hf:USER/NAME@REVISION"
        )
    repository, revision = found.groups()
    return repository, revision


def _fetched(
    address: str, repository: str, name: str, revision: str | None, local: bool
) -> Path | None:
    """Return a file of a model; None where the model has none or, of `local` ones, it is not."""
    from huggingface_hub import hf_hub_download  # slow to import, seldom needed
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    try:
        with asking(address, repository, "model"):
            try:
                return Path(
                    hf_hub_download(
                        repository,
                        name,
                        revision=revision,
                        endpoint=endpoint(),
                        local_files_only=local,
                    )
                )
            except LocalEntryNotFoundError:
                if local:
                    return None
                raise
    except RemoteEntryNotFoundError:
        return None
