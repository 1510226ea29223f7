"""One training step: forward, loss, backward, clipping, the optimizer, the average of the weights.

A step waits for no device and mixes none: its sums stay where the network is, and are read once an
epoch. On a GPU the learning rate and the average's decay are tensors, so that a step can be
captured as a CUDA graph, whose numbers are then filled in before each replay.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from timm.optim import Lookahead
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase  # what all of PyTorch's norms are

from blocklab.kernels.recording import lean_on_gpus
from blocklab.measure.device import widest
from blocklab.training.device import Setup
from blocklab.training.recipe import Recipe
from blocklab.training.weight_casts import WeightCasts


class TrainingStep:
    """Trains a network on one batch after another, and sums up what an epoch's record needs.

    `network` and `optimizer` are as Fabric wraps them; `average` follows the weights of `model`.
    """

    def __init__(
        self,
        model: nn.Module,
        network: Any,
        optimizer: Any,
        average: ModelEmaV3 | None,
        recipe: Recipe,
        setup: Setup,
    ) -> None:
        self.network, self.optimizer, self.setup, self.recipe = network, optimizer, setup, recipe
        self.average, self.mixes = average, bool(recipe.mixup or recipe.cutmix)
        # Mixup smooths its targets itself.
        self.label_smoothing = 0.0 if self.mixes else recipe.label_smoothing
        device = setup.device
        self.loss_sum = torch.zeros((), dtype=widest(device), device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped = torch.zeros((), device=device)
        raw: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
        self.parameters = [p for group in raw.param_groups for p in group["params"]]
        self._raw = raw
        # As tensors, where the optimizer takes its learning rate so: a graph's numbers are fixed.
        # One that counts for itself, as timm's Lookahead around PyTorch's, would count no more.
        own = type(raw).__module__.startswith("torch.optim.")
        self.capturable = device.type == "cuda" and own and bool(raw.defaults.get("fused"))
        # A compiler merges the casts itself, and DDP needs each gradient as soon as it is there.
        together = device.type == "cuda" and not setup.compiled and setup.world_size == 1
        half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(setup.precision)
        self._casts = WeightCasts(model, half) if together and half else None
        # Layers may have a share of the learning rate, each its own.
        shares = {group.get("lr_scale", 1.0) for group in raw.param_groups}
        self._rates = {share: torch.zeros((), device=device) for share in shares}
        self.missing = torch.zeros((), device=device)  # 1 less the average's decay
        if self.capturable:
            for group in raw.param_groups:
                group["lr"] = self._rates[group.get("lr_scale", 1.0)]
        self._decay = 0.0
        self._ours, self._averaged = ([], []) if average is None else _pairs(model, average.module)

    def start_epoch(self) -> None:
        """Begin the sums anew."""
        for total in (self.loss_sum, self.correct, self.skipped):
            total.zero_()

    def set_rates(self, rate: float, steps_done: int) -> None:
        """Set the learning rate, and the average's decay after so many steps of the run."""
        if self.average is not None:
            self._decay = self.average.get_decay(steps_done + 1)
        if self.capturable:
            for scale, scaled in self._rates.items():
                scaled.fill_(rate * scale)
            self.missing.fill_(1 - self._decay)
        else:
            for group in self._raw.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)

    def __call__(self, images: Tensor, labels: Tensor, targets: Tensor, in_batch: int) -> None:
        """Train on a batch (B, 3, H, W) with labels (B,) and targets, classes or their shares.

        `in_batch` are the images of the whole batch, over all processes.
        """
        parts = self.parts(in_batch)
        pieces = zip(*(t.tensor_split(parts) for t in (images, labels, targets)), strict=True)
        for number, (some, their_labels, their_targets) in enumerate(pieces):
            last = number == parts - 1
            with nullcontext() if last else self.setup.fabric.no_backward_sync(self.network):
                self._backward(some, their_labels, their_targets, in_batch, parts)
        self._update()

    def parts(self, in_batch: int) -> int:
        """Return in how many parts a batch is taken: of two images or more, for BatchNorm.

        By the smallest share of it, so that all processes take as many and meet in each.
        """
        share = min(in_batch, self.recipe.batch_size) // self.setup.world_size
        return max(1, min(self.recipe.accumulate, share // 2))

    def _backward(
        self, images: Tensor, labels: Tensor, targets: Tensor, in_batch: int, parts: int
    ) -> None:
        casts = nullcontext() if self._casts is None else self._casts.in_place()
        with casts, lean_on_gpus(self.setup.lean):
            logits = self.network(images)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)
        processes = self.setup.world_size
        if processes > 1 or parts > 1:  # DDP takes the mean over processes, whatever their parts
            loss = loss * (len(labels) * processes / in_batch)
        self.setup.fabric.backward(loss)
        self.loss_sum.add_(loss.detach(), alpha=in_batch / processes)
        if not self.mixes:  # else no image is of one class
            self.correct += (logits.detach().argmax(1) == labels).sum()

    @torch.no_grad()
    def _update(self) -> None:
        scaler, raw = self.setup.scaler, self._raw
        scale = None if scaler is None else scaler._get_scale_async()
        before = None if scale is None else scale.clone()
        if self.recipe.clip_grad_norm is not None:
            # By hand: Fabric refuses to clip what a fused optimizer would unscale itself.
            if scaler is not None:
                scaler.unscale_(raw)
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_grad_norm)
        self.optimizer.step()
        if scale is not None and before is not None:  # it falls where a step was left out
            self.skipped += scale < before
        self.optimizer.zero_grad()
        if self._averaged:
            self._follow()

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Bring Lookahead's fast weights to its slow ones, as timm's training does at this place.

        What is evaluated would else depend on where in its cycle of steps the epoch ends.
        """
        if not isinstance(self._raw, Lookahead):
            return
        moved = [one for one in self.parameters if self._raw._base_optimizer.state.get(one)]
        for one in moved:  # it passes over those without a gradient, and none is left by now
            one.grad = torch.zeros((), dtype=one.dtype, device=one.device).expand_as(one)
        self._raw.sync_lookahead()
        for one in moved:
            one.grad = None

    def _follow(self) -> None:
        """Let the average follow; its counters of batches follow once an epoch."""
        if not self.capturable:
            torch._foreach_lerp_(self._averaged, self._ours, weight=1 - self._decay)
            return
        # The same by a number that a graph may change: a + (1 - d) (w - a).
        gaps = torch._foreach_sub(self._ours, self._averaged)
        torch._foreach_mul_(gaps, self.missing)
        torch._foreach_add_(self._averaged, gaps)


def _pairs(model: nn.Module, average: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return a model's numbers and those of its average, each tensor once that has two names."""
    seen: set[int] = set()
    ours, averaged = list[Tensor](), list[Tensor]()
    both = zip(model.state_dict().values(), average.state_dict().values(), strict=True)
    for tensor, mean in both:
        if tensor.is_floating_point() and tensor.numel() and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            ours.append(tensor)
            averaged.append(mean)
    return ours, averaged


class BatchCounters:
    """BatchNorm's counters of batches, set aside within an epoch: each is a launch a layer a step.

    They decide nothing where a momentum is given, and are whole again after the epoch, in the
    network and in its average.
    """

    def __init__(self, model: nn.Module, average: nn.Module | None) -> None:
        self._norms = [
            (module, module.num_batches_tracked)
            for module in model.modules()
            if isinstance(module, _NormBase)
            and not isinstance(module, nn.SyncBatchNorm)  # which cannot do without
            and module.num_batches_tracked is not None
            and module.momentum is not None
        ]
        self._pairs: list[tuple[Tensor, Tensor]] = []
        if average is not None:
            both = zip(model.state_dict().values(), average.state_dict().values(), strict=True)
            self._pairs = [(a, b) for a, b in both if not a.is_floating_point()]

    @contextmanager
    def aside(self, passes: int) -> Iterator[None]:
        """Within it no batch is counted; after it, `passes` more are by what was training.

        SyncBatchNorm counts its own.
        """
        counted = [counter for norm, counter in self._norms if norm.training]
        for norm, _ in self._norms:
            norm.num_batches_tracked = None
        try:
            yield
        finally:
            for norm, counter in self._norms:
                norm.num_batches_tracked = counter
            if counted:
                torch._foreach_add_(counted, passes)
            for ours, averaged in self._pairs:
                averaged.copy_(ours)
