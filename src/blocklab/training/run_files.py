"""The files of a run's folder: their names, and what each may hold."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from blocklab.errors import one_line
from blocklab.files import canonical_json, parse_checked_json, parse_json

RUN, LOG, RESULT = "run.json", "log.jsonl", "result.json"
CHECKPOINT, PREVIOUS = "last.ckpt", "previous.ckpt"
WEIGHTS, PREDICTIONS = "model.safetensors", "predictions.npz"
LOGITS = "logits.npz"  # its checksum is in RESULT too, and yet the run is whole without it
DIAGNOSIS = "diagnosis.json"  # of `blocklab diagnose`, for the pages of the run's studies
FAILURE = "failed.json"  # why the run last ended without a result
LOCK = "lock"
RECORD = "record.json"  # of a run kept without its largest files: which were left out
LISTED = (RUN, LOG, PREDICTIONS, WEIGHTS)  # those that are there have their checksums in RESULT
LEFT_OUT = (WEIGHTS,)  # of those, what a record may do without
RUN_HASH = "run_hash"  # the key under which a file says which run it is of

FINISHED, DIVERGED = "finished", "diverged"


class _Plain(BaseModel):
    """Fields are of these very types; fields that are not named here may hold anything."""

    model_config = ConfigDict(strict=True)


Count = Annotated[int, Field(ge=0)]
# Of float32's range: no figure that is computed is larger, and its square is still finite.
Number = Annotated[float, Field(ge=-1e39, le=1e39)]
Amount = Annotated[float, Field(ge=0, le=1e39)]
Percent = Annotated[float, Field(ge=0, le=100)]
Channels = Annotated[list[Number], Field(min_length=3, max_length=3)]


class _Definition(_Plain):
    model: dict[str, Any]
    data: dict[str, Any]
    recipe: dict[str, Any]
    seed: Count
    pretrained: dict[str, Any] | None = None


class _Start(_Plain):
    """What a run started from: tensors by name."""

    weights: str | None = None
    sha256: str
    loaded: list[str]
    fresh: list[str] = []
    adapted: list[str] = []


class _Machine(_Plain):
    cpu: str
    cores: Count
    device: str


class _Earlier(_Plain):
    """By what a run's first epochs were trained, where its last ones were by something else."""

    to_epoch: Annotated[int, Field(ge=1)]
    versions: dict[str, str]
    machine: _Machine


class Cost(_Plain):
    """A network's cost, for one image of `input_size` pixels a side."""

    macs: Count
    params: Count
    input_size: Count


class RunJson(_Plain):
    """run.json: what defines the run, on what it runs, and facts about its data."""

    definition: _Definition
    data_address: str
    label: str
    started: str
    versions: dict[str, str]
    machine: _Machine
    earlier: list[_Earlier] = []
    precision: str
    memory_format: str
    compile: bool = False
    compile_mode: str = ""
    lean: bool = False
    algorithms: dict[str, str] = {}
    setup_note: str = ""
    devices: Count = 1
    threads: Count
    class_names: Annotated[list[str], Field(min_length=1)]
    image_size: Annotated[int, Field(ge=1, le=65536)]
    train_images: Count
    validation_images: Count
    test_images: Count
    test_images_left_out: Count = 0
    data_mean: Channels
    data_std: Channels
    cost: Cost | None = None
    pretrained: _Start | None = None


class _Line(_Plain):
    """A line of log.jsonl, of one epoch."""

    epoch: Annotated[int, Field(ge=1)]
    lr: Number | None = None
    train_loss: Number | None = None
    train_top1_percent: Percent | None = None
    validation_top1_percent: Percent | None = None
    validation_top5_percent: Percent | None = None
    test_top1_percent: Percent | None = None
    test_top5_percent: Percent | None = None


class _Checksum(_Plain):
    bytes: Count
    sha256: str


class ResultJson(_Plain):
    """result.json: how the run ended, its figures, and the checksums of its files."""

    status: Literal["finished", "diverged"]
    epochs: Count
    files: dict[str, _Checksum]
    train_seconds: Amount | None = None
    images_per_second: Amount | None = None
    peak_memory_bytes: Count | None = None
    test_top1_percent: Percent | None = None
    test_top5_percent: Percent | None = None
    test_loss: Number | None = None
    validation_top1_percent: Percent | None = None
    best_test_top1_percent: Percent | None = None
    best_test_top5_percent: Percent | None = None
    best_test_epoch: Count | None = None


class _Zeros(_Plain):
    zero_percent: Percent
    zeros: Count | None = None


class DiagnosisJson(_Plain):
    """diagnosis.json, as far as a page reads it."""

    run_hash: str
    first_batch: Count | None = None
    last_batch: Count | None = None
    images: Count | None = None
    last_block: _Zeros | None = None


class FailureJson(_Plain):
    """failed.json."""

    message: str


_LINES = TypeAdapter(list[_Line])


def definition_hash(definition: Mapping[str, Any]) -> str:
    """Return what names the folder of the run that is so defined: 16 hexadecimal digits."""
    return hashlib.sha256(canonical_json(definition).encode()).hexdigest()[:16]


def parse_object(content: bytes, shape: type[BaseModel]) -> dict[str, Any]:
    """Read an object of JSON by the checksum in it, and look at its types.

    Raises:
        ValueError: if it is damaged.
    """
    value = parse_checked_json(content)
    _fits(shape.model_validate, value)
    return value


def parse_log(content: bytes) -> list[dict[str, Any]]:
    """Read log.jsonl.

    Raises:
        ValueError: if it is damaged.
    """
    lines = [parse_json(line) for line in content.splitlines() if line.strip()]
    _fits(_LINES.validate_python, lines)
    return lines


def _fits(validate: Any, value: object) -> None:
    try:
        validate(value)
    except ValidationError as error:
        raise ValueError(one_line(error, "it").removeprefix("it: ")) from None
