"""A folder as the Hugging Face hub keeps models: ``config.json``, weights and a model card.

`from_pretrained` and, once blocklab is imported, ``timm.create_model("local-dir:FOLDER",
pretrained=True)`` build the network from it. Nothing here uses the network.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from torch import nn

from blocklab.backbones.base import Backbone, input_cfg
from blocklab.errors import InputError, error_line
from blocklab.files import (
    LARGEST_JSON,
    file_sha256,
    parse_json,
    read_checked_json,
    read_regular,
    write_atomically,
    write_checked_json,
)
from blocklab.models.export_place import check_own
from blocklab.models.hub_weights import CONFIG
from blocklab.models.model_file import (
    WEIGHTS,
    describe_saved,
    is_described,
    load_model,
    write_tensors,
)
from blocklab.models.probe import ImageSize, channels_of, size_text
from blocklab.models.rebuilding import check_computes, specification
from blocklab.models.timm_models import TimmConfig, timm_arguments
from blocklab.models.use import set_use

CARD = "README.md"
FROM_SPEC = "blocklab"  # timm's name for a model that a specification says
# What timm's configuration of a model says of its images and layers, whatever its weights are.
_OF_IMAGES = (
    "pool_size crop_pct crop_mode interpolation mean std first_conv classifier fixed_input_size "
    "min_input_size"
).split()
_CARD_DIGEST = "card_sha256"  # in config.json
# A result's name -> the hub's name of the metric and what the card calls it.
_METRICS = {
    "test_top1_percent": ("accuracy", "top-1 accuracy (%)"),
    "test_top5_percent": ("top_5_accuracy", "top-5 accuracy (%)"),
}


@dataclass(frozen=True)
class Card:
    """What a model card tells besides the network, as plain data.

    `results` are figures by name, such as ``test_top1_percent``, measured on `dataset`; `training`
    is anything that says how they were reached. `mean` and `std` are what images from 0 to 1 were
    normalised with, a channel each; every format of export keeps them. `hub_dataset` is the
    dataset's name on the hub.
    """

    name: str | None = None
    dataset: str | None = None
    hub_dataset: str | None = None
    results: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, object] = field(default_factory=dict)
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    license: str | None = None

    def __post_init__(self) -> None:
        if self.results and self.dataset is None:
            raise InputError("results without the data that they are of; give the card a dataset")


def save_pretrained(
    model: Backbone,
    folder: str | os.PathLike[str],
    class_names: Sequence[str] = (),
    card: Card | None = None,
    input_size: ImageSize | None = None,
    force: bool = False,
) -> None:
    """Write ``config.json``, ``model.safetensors`` and ``README.md`` into a folder.

    Raises:
        InputError: as `model_file.save_model`, or if one of the files is there and not as
            blocklab wrote it, without `force`; before anything is written.
        RunError: if the folder cannot be written.
    """
    folder, card = Path(folder), card or Card()
    size = model.pretrained_cfg["input_size"][1:] if input_size is None else input_size
    about = describe_saved(model, class_names, size, *normalisation(model, card))
    about |= preparation(model)
    check_computes(model, size)
    check_own(changed_files(folder), force)
    write_hub(model, folder, about, card)


def normalisation(
    model: nn.Module, card: Card
) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    """Return mean and SD of a network's images: the card's, else what its ``pretrained_cfg`` says.

    Of images of other channels than three that says nothing.
    """
    cfg = getattr(model, "pretrained_cfg", None) or {}
    said = cfg.get("mean"), cfg.get("std")
    other = any(value is None or len(value) != channels_of(model) for value in said)
    mean, std = (None, None) if other else said
    return card.mean or mean, card.std or std


def preparation(model: nn.Module) -> dict[str, Any]:
    """Return how pictures are cut and resized for a network, as its ``pretrained_cfg`` says."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    return {key: cfg[key] for key in ("crop_pct", "interpolation") if cfg.get(key) is not None}


def write_hub(model: Backbone, folder: Path, about: Mapping[str, Any], card: Card) -> None:
    """Write the three files; `about` is what `model_file.describe_saved` says of the network."""
    write_tensors(model, folder / WEIGHTS, about)
    text = str(_model_card(model, about, card))
    write_atomically(folder / CARD, text)
    digest = file_sha256(folder / CARD)
    # By the checksums it is known whether somebody has changed what was written here.
    write_checked_json(folder / CONFIG, _config(model, about) | {_CARD_DIGEST: digest})


def changed_files(folder: Path) -> list[Path]:
    """Return which of the three files are there, and not as `write_hub` wrote them."""
    config = read_checked_json(folder / CONFIG) or {}
    own = {
        CONFIG: bool(config),
        CARD: (folder / CARD).is_file()
        and file_sha256(folder / CARD) == config.get(_CARD_DIGEST, ""),
        WEIGHTS: is_described(folder / WEIGHTS),
    }
    return [folder / name for name in own if (folder / name).exists() and not own[name]]


def from_pretrained(folder: str | os.PathLike[str]) -> Backbone:
    """Rebuild the network, in evaluation mode, that `save_pretrained` wrote.

    Its ``pretrained_cfg`` has the size, mean and SD of images that ``config.json`` says.

    Raises:
        InputError: if the folder is none of its, or the network needs a block that is not
            registered.
    """
    path = Path(folder)
    if not (path / CONFIG).is_file() or not (path / WEIGHTS).is_file():
        raise InputError(f"{path} has not both {CONFIG} and {WEIGHTS}; name an exported folder")
    model = load_model(path)
    try:
        config = parse_json(read_regular(path / CONFIG, LARGEST_JSON))
        cfg = dict(config["pretrained_cfg"])
        size = cfg["input_size"][1:] if "input_size" in cfg else None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path / CONFIG} is no configuration of a model ({error_line(error)}); export the "
            "network again"
        ) from None
    use = {"mean": cfg.get("mean"), "std": cfg.get("std"), "input_size": size}
    use |= {key: cfg.get(key) for key in ("crop_pct", "interpolation")}
    set_use(model, use, str(path / CONFIG))
    return model


def _config(model: Backbone, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what timm reads (its keys), and under ``blocklab`` what we do."""
    spec = specification(model)
    if isinstance(spec.config, TimmConfig):  # timm alone rebuilds it
        cfg = {key: value for key, value in model.pretrained_cfg.items() if key in _OF_IMAGES}
        architecture, args = spec.config.name, timm_arguments(spec.config, about["input_size"])
    else:
        cfg = input_cfg(type(model), spec.config)
        reduction = int(model.feature_info.reduction()[-1])
        cfg["pool_size"] = [-(-side // reduction) for side in about["input_size"]]
        architecture, args = FROM_SPEC, {"spec": about["model"]}
    cfg |= {
        "input_size": [model.in_chans, *about["input_size"]],
        "num_classes": model.num_classes,
        **{key: about[key] for key in ("crop_pct", "interpolation") if key in about},
    }
    for key in ("mean", "std"):
        values = list(about.get(key, cfg.pop(key, ())))
        if len(values) == model.in_chans:  # ImageNet's say nothing of other channels
            cfg[key] = values
    return {
        "architecture": architecture,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "model_args": {**args, "in_chans": model.in_chans},
        "pretrained_cfg": cfg,
        **({"label_names": about["class_names"]} if about["class_names"] else {}),
        "blocklab": about,
    }


def _model_card(model: Backbone, about: Mapping[str, Any], card: Card) -> ModelCard:
    spec = specification(model)
    own = not isinstance(spec.config, TimmConfig)
    backbone = f"timm {spec.config.name}" if isinstance(spec.config, TimmConfig) else spec.family
    name = card.name or (f"blocklab {backbone}" if own else backbone)
    measured = [
        EvalResult(
            task_type="image-classification",
            dataset_type=card.dataset or "",
            dataset_name=card.dataset or "",
            dataset_split="test",
            metric_type=_METRICS[key][0],
            metric_name=_METRICS[key][1],
            metric_value=round(float(value), 3),
        )
        for key, value in card.results.items()
        if key in _METRICS
    ]
    data = ModelCardData(
        library_name="blocklab",
        pipeline_tag="image-classification",
        tags=["image-classification", "pytorch", "timm", "blocklab"],
        license=card.license,
        datasets=[card.hub_dataset] if card.hub_dataset else None,
        model_name=name if measured else None,
        eval_results=measured or None,
    )
    params = sum(parameter.numel() for parameter in model.parameters())
    facts = {
        "backbone": backbone,
        "parameters": f"{params:,}",
        "classes": f"{model.num_classes:,}",
        "images": f"{model.in_chans} channels, {size_text(about['input_size'])}",
    }
    if "mean" in about and "std" in about:
        shown = (", ".join(f"{value:.4g}" for value in about[key]) for key in ("mean", "std"))
        facts["images from 0 to 1, normalised with"] = "mean {}; SD {}".format(*shown)
    sections = [f"# {name}", _table(("network", ""), facts)]
    if card.results:
        shown = {
            _METRICS.get(key, (key, key))[1]: f"{float(value):.2f}"
            for key, value in card.results.items()
        }
        sections.append(f"## Results on {card.dataset}\n\n{_table(('figure', 'value'), shown)}")
    if card.training:
        sections.append(f"## Training\n\n{_table(('setting', 'value'), card.training)}")
    if about["class_names"]:
        sections.append("## Classes\n\n" + ", ".join(about["class_names"]))
    sections.append(
        "## Use\n\n```python\nfrom blocklab.models.hub import from_pretrained\n\n"
        'model = from_pretrained("FOLDER")\n```\n\nor through timm:\n\n```python\n'
        f"import {'blocklab, timm' if own else 'timm'}\n\n"
        'model = timm.create_model("local-dir:FOLDER", pretrained=True)\n```'
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def _table(headings: tuple[str, str], rows: Mapping[str, object]) -> str:
    lines = [f"| {headings[0]} | {headings[1]} |", "|---|---|"]
    cells = (f"| {key} | {str(value).replace('|', chr(92) + '|')} |" for key, value in rows.items())
    return "\n".join([*lines, *cells])


__all__ = ["Card", "changed_files", "from_pretrained", "save_pretrained", "write_hub"]
