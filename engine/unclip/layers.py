"""Layers that prior and unets share.

Dimensions: B batch, N queries, M keys, E heads, K width of a head, D model width, C channels, H = W = side.
Source of all arithmetic: dalle2-pytorch, releases 0.7.0 to 1.15.6; see `dialects.py`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.unclip.dialects import Dialect, Stable
from engine.unclip.packing import Linear

EPS = 1e-5
"""Inside the root of every norm. In half precision the library takes 1e-3, which no full-precision checkpoint was trained with."""


class LayerNorm(nn.Module):
    """Normalise the last dimension, with a factor and, in old releases, a sum.

    Source: Ba et al. 2016, arXiv:1607.06450; division by the largest value first: Ding et al. 2021, arXiv:2105.13290, section 2.4.
    """

    def __init__(self, dim: int, dialect: Dialect, *, last: bool = False) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(dim))
        self.beta: Tensor | None = nn.Parameter(torch.zeros(dim)) if dialect.norms_have_beta else None
        self.is_stable = dialect.stable_norms is Stable.ALL or (last and dialect.stable_norms is Stable.LAST)

    def forward(self, x: Tensor) -> Tensor:
        if self.is_stable:
            x = by_largest(x, dim=-1)
        return F.layer_norm(x, self.g.shape, self.g, self.beta, EPS)


class ChannelNorm(nn.Module):
    """Normalise the channels of every pixel of (B, C, H, W)."""

    def __init__(self, dim: int, dialect: Dialect) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, dim, 1, 1))
        self.is_stable = dialect.stable_norms is Stable.ALL

    def forward(self, x: Tensor) -> Tensor:
        if self.is_stable:
            x = by_largest(x, dim=1)
        return F.layer_norm(x.movedim(1, -1), self.g.shape[1:2], self.g.flatten(), None, EPS).movedim(-1, 1)


def by_largest(x: Tensor, dim: int) -> Tensor:
    """Divide by the largest value along a dimension. What is zero throughout, such as padding, stays so; in the library it became NaN."""
    largest = x.amax(dim=dim, keepdim=True)
    return x / largest.where(largest != 0, 1)


class Nested(nn.Module):
    """A module inside another that only gives its weights a longer name."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.fn = inner

    def forward(self, *args: Tensor) -> Tensor:
        return self.fn(*args)


def sinusoids(times: Tensor, dim: int) -> Tensor:
    """Embed times as sines, then cosines, of falling frequencies; always float32, for the fast ones of late times are noise in less.

    Shapes:
        times    (B,) any number
        returns  (B, dim) float32
    """
    half = dim // 2
    steps = torch.arange(half, device=times.device, dtype=torch.float32)
    angles = times.float()[:, None] * torch.exp(steps * -(math.log(10000) / (half - 1)))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


Rotation = tuple[Tensor, Tensor]
KeysAndValues = tuple[Tensor, Tensor]


class MultiQueryAttention(nn.Module):
    """Self-attention whose heads share one key and one value per token, and one null token beside all others.

    Source: Shazeer 2019, arXiv:1911.02150; cosine similarity: Liu et al. 2021, arXiv:2111.09883, section 3.2.
    """

    def __init__(self, dim: int, dialect: Dialect, *, heads: int, dim_head: int, cosine_sim: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = LayerNorm(dim, dialect)
        self.null_kv = nn.Parameter(torch.randn(2, dim_head))
        self.to_q = Linear(dim, heads * dim_head)
        self.to_kv = Linear(dim, dim_head * 2)
        self.to_out = nn.Sequential(Linear(heads * dim_head, dim), LayerNorm(dim, dialect))
        self.is_cosine = dialect.cosine_attention and cosine_sim
        # From 1.4.3 on the scale is applied twice where directions are not compared.
        self.scale = 16.0 if self.is_cosine else dim_head**-1.0 if dialect.cosine_attention else dim_head**-0.5

    def forward(self, x: Tensor, mask: Tensor | None = None, rotation: Rotation | None = None, past: KeysAndValues | None = None) -> Tensor:
        """Attend from every token to every token, and to those of `past`, which stand before them.

        Shapes:
            x         (B, N, D) float
            mask      (1 or B, E, N, M) float, added to the logits; the null token comes first
            rotation  cosines and sines, (N, R) float each, R ≤ K even
            past      what `look` returned for the tokens before
            returns   (B, N, D) float
        """
        x = self.norm(x)
        q = self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        if rotation is not None:
            q = rotate(q, rotation)
        if self.is_cosine:
            q = F.normalize(q, dim=-1)
        k, v = (t[:, None].expand(-1, self.heads, -1, -1) for t in self.keys_and_values(x, rotation, past))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        return self.to_out(out.transpose(1, 2).flatten(2))

    def look(self, x: Tensor, rotation: Rotation | None = None) -> KeysAndValues:
        """Return what later tokens see of these: keys and values, (B, N + 1, K) each, the null token's first."""
        return self.keys_and_values(self.norm(x), rotation, None)

    def keys_and_values(self, x: Tensor, rotation: Rotation | None, past: KeysAndValues | None) -> KeysAndValues:
        """Return keys and values, (B, M, K) each, of tokens that are normed already, after those of `past` or the null token's."""
        k, v = self.to_kv(x).chunk(2, dim=-1)
        if rotation is not None:
            k = rotate(k, rotation)
        past_k, past_v = self.null_kv[:, None, None] if past is None else past
        if self.is_cosine:
            k = F.normalize(k, dim=-1)
            past_k = F.normalize(past_k, dim=-1) if past is None else past_k
        return torch.cat([past_k.expand(len(x), -1, -1), k], dim=1), torch.cat([past_v.expand(len(x), -1, -1), v], dim=1)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn neighbouring pairs of the first R values by their position's angles.

    Source: Su et al. 2021, arXiv:2104.09864.
    """
    cos, sin = rotation
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = turned.unflatten(-1, (-1, 2)).unbind(-1)
    across = torch.stack([-second, first], dim=-1).flatten(-2)
    return torch.cat([turned * cos + across * sin, rest], dim=-1).to(x.dtype)
