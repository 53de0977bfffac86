"""Attention pooling: one weight per position in place of the average or the class token."""

from typing import Any

import torch
from timm.layers import AttentionPoolLatent
from torch import nn

_HEAD_WIDTH = 64


class SimPool(nn.Module):
    """Pools by the attention of the average feature to the features of all positions.

    q = mean of X; K = V = layer norm of X; a = softmax(q Wq (K Wk)^T / sqrt(width)); the pooled feature is
    (sum of a (V - min V + eps)^gamma)^(1 / gamma).

    DEVIATES: min V is the one of each image, not of the batch, so that an image's feature does not depend on others.

    Args:
        width: Width of the features.
        gamma: 2 for feature maps and 1.25 for tokens, as in the source.

    Source:
        Psomas et al., Keep It SimPool, ICCV 2023; billpsomas/simpool:sp.py.
    """

    def __init__(self, width: int, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps features [batch, positions, width] to the pooled one, [batch, width], and weights [batch, positions]."""
        values = self.norm(tokens)
        query, keys = self.query(tokens.mean(dim=1)), self.key(values)
        attention = (keys @ query[:, :, None] * keys.shape[2] ** -0.5).squeeze(2).float().softmax(dim=1)
        values = (values - values.amin(dim=(1, 2), keepdim=True) + self.norm.eps).float().pow(self.gamma)
        pooled = (attention[:, :, None] * values).sum(dim=1).pow(1 / self.gamma)
        return pooled, attention


class LatentPool(nn.Module):
    """timm's attention pooling with a learned query; the attention is the mean over its heads.

    Args:
        width: Width of the features; heads are 64 wide where that divides it, else there is one.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        heads = 1 if width % _HEAD_WIDTH else width // _HEAD_WIDTH
        self.pool: Any = AttentionPoolLatent(width, num_heads=heads, norm_layer=nn.LayerNorm)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps features [batch, positions, width] to the pooled one, [batch, width], and weights [batch, positions]."""
        pool = self.pool
        # timm's own forward does not return the weights; with the fused kernel it does not even compute them.
        keys = pool.kv(tokens).unflatten(2, (2, pool.num_heads, pool.head_dim))[:, :, 0]  # [batch, n, heads, width]
        query = pool.q(pool.latent)[0, 0].view(pool.num_heads, pool.head_dim)
        weights = torch.einsum("bnhw,hw->bnh", keys, query * pool.scale).float().softmax(dim=1)
        return pool(tokens), weights.mean(dim=2)


def attention_pool(kind: str, width: int, tokens: bool) -> nn.Module:
    """Returns a pooling: "simpool" or "latent"; `tokens`: whether the backbone is a ViT."""
    return LatentPool(width) if kind == "latent" else SimPool(width, 1.25 if tokens else 2.0)
