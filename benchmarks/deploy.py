"""Deployed networks against their training form at inference, side by side.

    python benchmarks/deploy.py [--models resnet18,van_b0 | --all] [--input-size 32]
        [--batch-size 32] [--layouts channels_last] [--dtypes fp32] [--rounds 7] [--threads N]

One process, in turn: median and spread in milliseconds a batch, how many times as fast the
deployed network is, and the largest difference of outputs, relative to the largest output: in
float32, where a network may magnify its own rounding, and of the same network in float64.
"""

import argparse
import copy

import torch
from side_by_side import DTYPES, LAYOUTS, Step, Table, alternate, difference, ratio
from torch import Tensor, nn

from blocklab import create_model, deploy, list_models

CHOSEN = (
    "resnet18 resnet50 resnet50_se resnet50_ca resnet50_gc resnet50_sk resnet50_triplet res2net50 "
    "res2net50_26w_4s resnet20 van_b0 van_b1 replknet_31n"
).split()


def inference(model: nn.Module, images: Tensor, dtype: torch.dtype) -> Step:
    def step() -> None:
        half = dtype is not torch.float32
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            model(images)

    return step


@torch.no_grad()
def settle(model: nn.Module, images: Tensor) -> None:
    """Give every BatchNorm statistics of some batches, so that the outputs are of usual size."""
    model.train()
    for _ in range(2):
        model(images)
    model.eval()


@torch.no_grad()
def in_float64(model: nn.Module, images: Tensor) -> float:
    """How far the deployed network is from its training form in float64."""
    exact = copy.deepcopy(model).double()
    return difference(deploy(exact, images.shape[-1])(images.double()), exact(images.double()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default=",".join(CHOSEN))
    parser.add_argument("--all", action="store_true", help="every named model")
    parser.add_argument("--input-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--layouts", default="channels_last")
    parser.add_argument("--dtypes", default="fp32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    headings = ["model", "layout", "dtype", "training form (ms)", "deployed (ms)"]
    headings += ["times as fast", "outputs differ, float32", "float64", "what was done"]
    size = f"{args.input_size}x{args.input_size}, batch {args.batch_size}"
    table = Table(f"Deployed networks at {size}", headings)
    slower = []
    for name in list_models() if args.all else args.models.split(","):
        torch.manual_seed(0)
        model = create_model(name, num_classes=100)
        images = torch.randn(args.batch_size, 3, args.input_size, args.input_size)
        settle(model, images)
        deployed = deploy(model, args.input_size)
        exactly = in_float64(model, images)
        for layout in args.layouts.split(","):
            model.to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload]
            deployed.to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload]
            images = images.contiguous(memory_format=LAYOUTS[layout])
            with torch.inference_mode():
                differ = difference(deployed(images), model(images))
            for dtype in args.dtypes.split(","):
                steps = {
                    "plain": inference(model, images, DTYPES[dtype]),
                    "deployed": inference(deployed, images, DTYPES[dtype]),
                }
                times = alternate(steps, args.rounds)
                gain = ratio(times["plain"], times["deployed"])
                if float(gain) < 1:
                    slower.append(f"{name} ({layout}, {dtype}: {gain})")
                done = deployed.deploy_report
                differences = [f"{differ:.0e}", f"{exactly:.0e}"]
                table.add([name, layout, dtype, *times.values(), gain, *differences, done])
    print(f"\nSlower than the training form: {', '.join(slower) or 'none'}.")


if __name__ == "__main__":
    main()
