"""Attention of a map's positions to those of another, without a plane of scores in memory."""

import torch
from torch import Tensor
from torch.nn import functional as F

from blocklab.kernels.recording import is_memory_counted


def attended(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Return at each position the mean of values that its query finds by their keys.

    sum_j softmax_j(scale * q_i . k_j) v_j: (B, D, H, W), (B, D, H', W'), (B, E, H', W') ->
    (B, E, H, W). Scores are float32 where maps are half precision: a product of two float16 values
    near 1,000 is beyond their range.
    """
    flat = [  # contiguous, without which a processor writes the scores down
        one.flatten(2).transpose(1, 2).unsqueeze(1).contiguous() for one in (queries, keys, values)
    ]
    if is_memory_counted(queries):  # as on a processor; without values, PyTorch has its plain form
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out = flash(flat[0], flat[1], flat[2], scale=scale)[0]
    else:
        out = F.scaled_dot_product_attention(flat[0], flat[1], flat[2], scale=scale)
    # (B, 1, HW, E)
    return out.squeeze(1).transpose(1, 2).unflatten(2, (queries.shape[2], queries.shape[3]))
