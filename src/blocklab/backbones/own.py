"""A backbone of a user's own: their module has a stem and stages, and the rest is added here.

``self.stem`` takes the image, each of ``self.stages`` a map to a map, and ``self.norm``, if there
is one, the last stage's. Added are the head, timm's conventions, dropout, and an ``attention`` slot
after each stage where the module has no such option of its own. How wide the stages are and by how
much each shrinks the image is measured, on PyTorch's meta device.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self, cast

import torch
from pydantic import BeforeValidator, Field, create_model, model_validator
from torch import Tensor, nn

from blocklab.backbones.base import Backbone
from blocklab.backbones.config import BackboneConfig, create_staged_chain, parse_staged_chain
from blocklab.blocks.plugins import fault_line
from blocklab.blocks.protocol import init_itself
from blocklab.blocks.registry import LONGEST_LIST, BlockInfo, BlockSpec, block_info, create_block
from blocklab.errors import BlocklabError, InputError

KIND = "backbone"
_PARTS = ("stem", "stages", "norm")
# Of a module that has none of its own, and of the containers that stages are in.
_FORWARDS = (nn.Module.forward, nn.ModuleList.forward, nn.Sequential.forward)
_EXAMPLE = "self.stages = nn.ModuleList([...])"


@dataclass(frozen=True)
class Anatomy:
    """What a network of a user's is like, measured on one image."""

    widths: tuple[int, ...]  # channels after each stage
    reductions: tuple[int, ...]  # by how much the image has shrunk after each
    stem_stride: int
    first_conv: str


def _parse_attention(value: object) -> list[BlockSpec]:
    return parse_staged_chain(value, LONGEST_LIST)  # how many it has is seen once it is built


class OwnConfig(BackboneConfig):
    """A backbone of a user's own as data: the options of their constructor, and what is added."""

    info: ClassVar[BlockInfo]

    @property
    def options(self) -> dict[str, Any]:
        """What the user's constructor is given."""
        said = self.model_dump(mode="json")
        return {option: said[option] for option in self.info.options.model_fields}

    def anatomy(self, in_chans: int = 3) -> Anatomy:
        """Return what the network is like.

        Raises:
            InputError: if it has not the parts that it is to have, or does not run.
        """
        return _anatomy(self.info, json.dumps(self.options, sort_keys=True), in_chans)

    @property
    def blocks_per_stage(self) -> tuple[int, ...]:
        return ()  # what the user's code makes of its options is theirs to bound

    @property
    def first_conv(self) -> str:
        return self.anatomy().first_conv

    @property
    def stem_stride(self) -> int:
        return self.anatomy().stem_stride

    @property
    def reduction(self) -> int:
        return self.anatomy().reductions[-1]

    @property
    def native_size(self) -> int:
        return getattr(self.info.cls, "native_size", 224)

    @model_validator(mode="after")
    def _told(self) -> Self:
        if self.drop_path_rate and "drop_path_rate" not in self.info.slot_parameters:
            raise ValueError(
                f"{self.info.name} has no stochastic depth; take drop_path_rate in its constructor"
            )
        chain = [] if "attention" in self.info.options.model_fields else self._attention()
        stages = [stage for spec in chain for stage in spec.get("stages", ())]
        if stages and max(stages) > (count := len(self.anatomy().widths)):
            raise ValueError(f"stages are numbers from 1 to {count}, not {max(stages)}")
        return self

    def _attention(self) -> list[BlockSpec]:
        return cast(Any, self).attention


class OwnBackbone(Backbone):
    """A user's stem and stages as a network by timm's conventions; tensors keep their names."""

    norm_name = "norm"

    def __init__(self, config: OwnConfig, num_classes: int, in_chans: int) -> None:
        anatomy = config.anatomy(in_chans)  # says what is wrong with it before anything is built
        super().__init__(config, num_classes, in_chans)
        made = cast(Any, _made(config.info, config.options, in_chans, config.drop_path_rate))
        self._made = (made,)  # no module of this one: its parts are
        self.stem = made.stem
        self.stages = nn.ModuleList(made.stages)
        self.norm = getattr(made, "norm", None) or nn.Identity()
        added = "attention" not in config.info.options.model_fields
        chains = [
            create_staged_chain(config._attention(), stage, width) if added else None
            for stage, width in enumerate(anatomy.widths, start=1)
        ]
        if any(chain is not None for chain in chains):
            self.attentions = nn.ModuleList(chain or nn.Identity() for chain in chains)
        after = "attentions" if hasattr(self, "attentions") else "stages"
        self.stage_modules = tuple(f"{after}.{stage}" for stage in range(len(chains)))
        self.finish(list(anatomy.widths), list(anatomy.reductions))
        self.init_weights()

    def forward_stem(self, x: Tensor) -> Tensor:
        return self.stem(x)

    def forward_stage(self, x: Tensor, stage: int) -> Tensor:
        x = self.stages[stage](x)
        return self.attentions[stage](x) if hasattr(self, "attentions") else x

    def stage_parts(self, stage: int) -> tuple[str, ...]:
        attended = (f"attentions.{stage}",) if hasattr(self, "attentions") else ()
        return (f"stages.{stage}", *attended)

    def init_weights(self) -> None:
        super().init_weights()
        if not next(self.parameters()).is_meta:
            init_itself(self._made[0])

    def no_weight_decay(self) -> set[str]:
        own = getattr(self._made[0], "no_weight_decay", None)
        return set(cast(Any, own)()) if callable(own) else set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {
            "stem": r"^stem",
            "blocks": [(r"^(?:stages|attentions)\.(\d+)", None), (r"^norm", (99999,))],
        }


@lru_cache(maxsize=256)
def own_family(info: BlockInfo) -> tuple[type[OwnBackbone], type[OwnConfig]]:
    """Return the network's class and its configuration's of a registered backbone."""
    fields: dict[str, Any] = {
        name: (field.annotation, field) for name, field in info.options.model_fields.items()
    }
    if "attention" not in fields:
        chain = Annotated[list[BlockSpec], BeforeValidator(_parse_attention)]
        fields["attention"] = (chain, Field([], description="after each stage"))
    config = create_model(f"{info.name}_config", __base__=OwnConfig, **fields)
    config.info = info
    network = type(info.cls.__name__, (OwnBackbone,), {"family": info.versioned_name})
    return network, config


def own_backbone(name: str) -> BlockInfo:
    """Return what is known of a user's backbone by its name, perhaps with its file's digest.

    Raises:
        InputError: if there is none, or its file has changed.
    """
    return block_info(KIND, name)


@lru_cache(maxsize=1024)
def _anatomy(info: BlockInfo, options: str, in_chans: int) -> Anatomy:
    size = getattr(info.cls, "native_size", 224)
    if type(size) is not int or size < 1:
        raise InputError(f"native_size of {info.name} is pixels of a side, not {size!r}")
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        made = cast(Any, _made(info, json.loads(options), in_chans, 0.0))
        made.eval()
        x = torch.zeros(2, in_chans, size, size)
    widths, reductions = [], []
    with torch.no_grad():
        x = _run(made.stem, x, f"the stem of {info.name}")
        stem_stride = max(1, round(size / x.shape[2]))
        for number, stage in enumerate(made.stages, start=1):
            x = _run(stage, x, f"stage {number} of {info.name}")
            widths.append(x.shape[1])
            reductions.append(max(1, round(size / x.shape[2])))
        norm = getattr(made, "norm", None)
        if norm is not None and _run(norm, x, f"the norm of {info.name}").shape != x.shape:
            raise InputError(f"the norm of {info.name} changes the map's shape; it is to keep it")
    first = next((n for n, part in made.named_modules() if isinstance(part, nn.Conv2d)), "stem")
    return Anatomy(tuple(widths), tuple(reductions), stem_stride, first)


def _made(info: BlockInfo, options: dict[str, Any], in_chans: int, rate: float) -> nn.Module:
    """Build the user's module, and see that it has its parts and nothing beside them."""
    spec = {"type": info.versioned_name, **options}
    made = create_block(KIND, spec, in_chans=in_chans, drop_path_rate=rate)
    what = f"backbone '{info.name}'"
    if not isinstance(getattr(made, "stem", None), nn.Module):
        raise InputError(f"{what} has no stem; give it one: self.stem = nn.Conv2d(in_chans, ...)")
    stages: Any = getattr(made, "stages", None)
    if not isinstance(stages, nn.ModuleList | nn.Sequential) or not len(stages):
        raise InputError(f"{what} has no stages; give it some: {_EXAMPLE}")
    for part, of in ((made, what), (stages, f"the stages of {what}")):
        if type(part).forward not in _FORWARDS:
            raise InputError(
                f"{of}: a forward of its own is not run; what runs is {', '.join(_PARTS)}, one "
                "after the other. Put what else it does into one of them, and take it out"
            )
    of_it = (dict(made.named_parameters()), dict(made.named_buffers()), dict(made.named_children()))
    beside = [name for names in of_it for name in names if name.partition(".")[0] not in _PARTS]
    if beside:
        raise InputError(
            f"{what}: {beside[0]} is in none of {', '.join(_PARTS)}, which are all that runs; "
            "put it into one of them (the head is added)"
        )
    return made


def _run(part: nn.Module, x: Tensor, what: str) -> Tensor:
    """Run a part on a map; the result is one, too."""
    with _faults(what, x):
        out = part(x)
    if not isinstance(out, Tensor) or out.ndim != 4 or out.shape[0] != x.shape[0]:
        given = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise InputError(f"{what} gives {given}; it is to give a map, (B, C, H, W)")
    return out


@contextmanager
def _faults(what: str, x: Tensor) -> Iterator[None]:
    try:
        yield
    except BlocklabError:
        raise
    except Exception as error:
        raise InputError(
            f"{what} cannot take the map that comes, {tuple(x.shape)}: {fault_line(error)}"
        ) from error


__all__ = ["KIND", "Anatomy", "OwnBackbone", "OwnConfig", "own_backbone", "own_family"]
