"""Reading one of a study's own JSON files, whatever it holds."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from blocklab.errors import RunError, one_line
from blocklab.files import LARGEST_JSON, parse_checked_json, read_regular

Model = TypeVar("Model", bound=BaseModel)


def read_checked_model(path: Path, model: type[Model], remedy: str) -> Model:
    """Read a file that `write_checked_json` wrote of a model.

    Raises:
        RunError: in one line that ends with the remedy, if it is not there or damaged.
    """
    try:
        value = parse_checked_json(read_regular(path, LARGEST_JSON))
        json.dumps(value, ensure_ascii=False).encode()  # half a character cannot be drawn
        return model.model_validate(value)
    except (OSError, ValueError) as error:
        why = one_line(error, "it") if isinstance(error, ValidationError) else str(error)
        raise RunError(f"{path} is damaged ({why}); {remedy}") from None
