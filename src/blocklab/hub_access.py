"""Asking Hugging Face's hub, and saying in one line what it answered."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from blocklab.errors import InputError, RunError, error_line


def endpoint() -> str:
    """Return the hub's address, or that of the mirror that HF_ENDPOINT names."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


@contextmanager
def asking(address: str, repository: str, kind: str) -> Iterator[None]:
    """Turn whatever is raised while the hub is asked for `repository` into one line.

    `kind` is what it holds, such as ``data set``; `address` what the user wrote.

    Raises:
        InputError: if there is no such repository, or it may not be read.
        RunError: if the hub does not answer.
        RemoteEntryNotFoundError: as it is, if the repository has not the file.
    """
    from huggingface_hub.errors import (  # slow to import, seldom needed
        HfHubHTTPError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)  # of each try it warns on several lines
    try:
        yield
    except RepositoryNotFoundError:
        raise InputError(
            f"the hub at {endpoint()} has no {kind} '{repository}' that you may read; check its "
            "name, or log in (hf auth login)"
        ) from None
    except RevisionNotFoundError:
        raise InputError(
            f"{address}: '{repository}' has no such revision; name a branch, a tag or a commit"
        ) from None
    except (InputError, RunError, RemoteEntryNotFoundError):
        raise
    except HfHubHTTPError as error:
        raise RunError(
            f"the hub at {endpoint()} answered {error.response.status_code} for {address}; try "
            "again later"
        ) from error
    except Exception as error:  # of whichever library asks: no network, no answer, no JSON
        raise RunError(
            f"the hub at {endpoint()} did not answer for {address} "
            f"({error_line(_first_cause(error), kind=False)[:200]}); try again later, or set "
            "HF_ENDPOINT"
        ) from error
    finally:
        logger.setLevel(before)


def _first_cause(error: BaseException) -> BaseException:
    """Return what a library's error began with: a name that is not known, say."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error
