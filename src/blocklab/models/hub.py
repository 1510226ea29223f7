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

from blocklab.backbones.base import Backbone, input_cfg
from blocklab.errors import InputError
from blocklab.files import write_atomically, write_json
from blocklab.models.model_file import CONFIG, WEIGHTS, describe_saved, load_model, save_model

CARD = "README.md"
# A result's name -> the hub's name of the metric and what the card calls it.
_METRICS = {
    "test_top1_percent": ("accuracy", "top-1 accuracy (%)"),
    "test_top5_percent": ("top_5_accuracy", "top-5 accuracy (%)"),
}


@dataclass(frozen=True)
class Card:
    """What a model card tells besides the network, as plain data.

    `results` are figures by name, such as ``test_top1_percent``, measured on `dataset`; `training`
    is anything that says how they were reached. `mean` and `std` are what images were normalised
    with, a channel each.
    """

    name: str | None = None
    dataset: str | None = None
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
    input_size: int | None = None,
) -> None:
    """Write ``config.json``, ``model.safetensors`` and ``README.md`` into a folder.

    Raises:
        InputError: if the network was pruned, or the names of classes are not as many as outputs.
        RunError: if the folder cannot be written.
    """
    folder, card = Path(folder), card or Card()
    size = model.config.native_size if input_size is None else input_size
    about = describe_saved(model, class_names)
    save_model(model, folder / WEIGHTS, class_names)
    write_json(folder / CONFIG, _config(model, about, card, size))
    write_atomically(folder / CARD, str(_model_card(model, about, card, size)))


def from_pretrained(folder: str | os.PathLike[str]) -> Backbone:
    """Rebuild the network, in evaluation mode, that `save_pretrained` wrote.

    Raises:
        InputError: if the folder is none of its, or the network needs a block that is not
            registered.
    """
    path = Path(folder)
    if not (path / CONFIG).is_file() or not (path / WEIGHTS).is_file():
        raise InputError(f"{path} has not both {CONFIG} and {WEIGHTS}; name an exported folder")
    return load_model(path)


def _config(model: Backbone, about: dict[str, Any], card: Card, size: int) -> dict[str, Any]:
    """Return what timm reads (its keys), and under ``blocklab`` what we do."""
    cfg = input_cfg(type(model), model.config)
    side = -(-size // int(model.feature_info.reduction()[-1]))
    cfg |= {
        "input_size": (model.in_chans, size, size),
        "pool_size": (side, side),
        "num_classes": model.num_classes,
        "mean": tuple(card.mean or cfg["mean"]),
        "std": tuple(card.std or cfg["std"]),
    }
    return {
        "architecture": "blocklab",
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "model_args": {"spec": about["model"], "in_chans": model.in_chans},
        "pretrained_cfg": cfg,
        **({"label_names": about["class_names"]} if about["class_names"] else {}),
        "blocklab": about,
    }


def _model_card(model: Backbone, about: dict[str, Any], card: Card, size: int) -> ModelCard:
    name = card.name or f"blocklab {model.family}"
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
        datasets=[card.dataset] if card.dataset else None,
        model_name=name if measured else None,
        eval_results=measured or None,
    )
    params = sum(parameter.numel() for parameter in model.parameters())
    facts = {
        "backbone": model.family,
        "parameters": f"{params:,}",
        "classes": f"{model.num_classes:,}",
        "images": f"{model.in_chans} channels, {size}x{size}",
    }
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
        "import blocklab, timm\n\n"
        'model = timm.create_model("local-dir:FOLDER", pretrained=True)\n```'
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def _table(headings: tuple[str, str], rows: Mapping[str, object]) -> str:
    lines = [f"| {headings[0]} | {headings[1]} |", "|---|---|"]
    cells = (f"| {key} | {str(value).replace('|', chr(92) + '|')} |" for key, value in rows.items())
    return "\n".join([*lines, *cells])


__all__ = ["Card", "from_pretrained", "save_pretrained"]
