"""Large Kernel Attention and its multi-scale form against their equations."""

from typing import Any

import pytest
from slow_blocks import large_kernel_attention
from slow_loops import Grid, Weights, assert_equals_loop, join

from blocklab.blocks.large_kernel_attention import LargeKernelAttention, MultiScaleLKA
from blocklab.blocks.registry import create_block
from blocklab.errors import InputError


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"local_kernel": 3, "kernel": 5, "dilation": 2},
        {"local_kernel": 1, "kernel": 3, "dilation": 4},
        {"norm": True},
        {"inner_activation": "celu"},
        {"norm": True, "inner_activation": "gelu"},
    ],
)
def test_large_kernel_attention(options: dict[str, Any]) -> None:
    block = LargeKernelAttention(3, **options)
    assert_equals_loop(block, lambda x, w: large_kernel_attention(x, w, **options), (2, 3, 8, 5))


@pytest.mark.parametrize(
    ("kernels", "local_kernel", "dilation"), [((5, 7, 9), 5, 3), ((3, 5), 3, 2), ((1,), 3, 1)]
)
def test_multi_scale_lka(kernels: tuple[int, ...], local_kernel: int, dilation: int) -> None:
    block = MultiScaleLKA(2, kernels=kernels, local_kernel=local_kernel, dilation=dilation)
    assert block.out_channels == 2 * len(kernels)

    def loop(x: Grid, weights: Weights) -> Grid:
        return join(
            [
                large_kernel_attention(
                    x,
                    weights,
                    f"branches.{number}.",
                    local_kernel=local_kernel,
                    kernel=kernel,
                    dilation=dilation,
                )
                for number, kernel in enumerate(kernels)
            ]
        )

    assert_equals_loop(block, loop, (2, 2, 7, 4))


@pytest.mark.parametrize("kernel", [0, 4, -3])
def test_even_kernels_are_refused(kernel: int) -> None:
    with pytest.raises(InputError, match=f"odd and positive, not {kernel}"):
        create_block("attention", {"type": "large_kernel_attention", "kernel": kernel}, channels=4)


def test_no_kernels_are_refused() -> None:
    with pytest.raises(InputError, match="at least one kernel"):
        create_block("token_mixer", {"type": "multi_scale_lka", "kernels": []}, channels=4)
