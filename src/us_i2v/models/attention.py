"""Multi-head self-attention over tokens, as the denoisers use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


def attend(qkv: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention of each batch entry's tokens to one another (Vaswani et al. 2017, Eq. 1).

    Args:
        qkv: (B, N, 3 C), queries, keys and values side by side.
        heads: Divides C.

    Returns:
        (B, N, C), heads side by side.
    """
    b, n, c = qkv.shape
    q, k, v = qkv.reshape(b, n, 3, heads, c // (3 * heads)).permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c // 3)
