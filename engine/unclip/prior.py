"""The prior's network: a causal transformer over the text, the time and a noised picture embedding, which answers with the clean one.

Source: Ramesh et al. 2022, arXiv:2204.06125, section 2.2; dalle2-pytorch, releases 0.7.0 to 1.15.6, `DiffusionPriorNetwork`. State
dicts have the names of 1.15.6.

Dimensions: B batch, L tokens of text, D embedding width, N tokens in all, E heads.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.unclip.dialects import LATEST, Dialect, Padding
from engine.unclip.layers import KeysAndValues, LayerNorm, MultiQueryAttention, Rotation, sinusoids
from engine.unclip.memory import Rows
from engine.unclip.packing import Linear

BUCKETS, FARTHEST = 32, 128
"""Relative positions up to half of the buckets have their own bias; farther ones share, up to FARTHEST and beyond."""
DROPS_IMAGE = (Padding.LEARNED_TEXT, Padding.LEARNED_ALL)
"""Where guidance leaves out the noised picture embedding too."""


@dataclass(frozen=True, slots=True)
class PriorCondition:
    """What stays the same over all steps of one prompt: the text comes first and sees nothing of what comes later, so each layer reads it once.

    Shapes:
        past      of each layer keys and values of null token and text, (B, 1 + L + text embeds, K) float each
        mask      (1 or B, E, N - L - text embeds, N + 1) float, added to the logits of the tokens after the text
        rotation  of the tokens after the text
    """

    past: list[KeysAndValues]
    mask: Tensor
    rotation: Rotation | None
    keeps_image: bool

    @classmethod
    def join(cls, conditions: Sequence["PriorCondition"]) -> "PriorCondition":
        """Put the samples of several conditions behind each other."""
        if len(conditions) == 1:
            return conditions[0]
        past = [(torch.cat([k for k, _ in layer]), torch.cat([v for _, v in layer])) for layer in zip(*(one.past for one in conditions), strict=True)]
        masks = [one.mask.expand(len(one.past[0][0]), -1, -1, -1) for one in conditions]
        shared = all(len(one.mask) == 1 for one in conditions)
        return cls(past, conditions[0].mask if shared else torch.cat(masks), conditions[0].rotation, conditions[0].keeps_image)

    def of(self, part: Rows) -> "PriorCondition":
        """Return that of some of the samples."""
        mask = self.mask if len(self.mask) == 1 else self.mask[part]
        return PriorCondition([(keys[part], values[part]) for keys, values in self.past], mask, self.rotation, self.keeps_image)


class SwiGLU(nn.Module):
    """Source: Shazeer 2020, arXiv:2002.05202."""

    def forward(self, x: Tensor) -> Tensor:
        x, gate = x.chunk(2, dim=-1)
        return x * F.silu(gate)


def feed_forward(dim: int, dialect: Dialect, mult: float, *, normformer: bool) -> nn.Sequential:
    """Return a gated layer of `mult` times the width."""
    inner = int(mult * dim)
    middle = LayerNorm(inner, dialect) if normformer else nn.Identity()
    # The fifth place was dropout's.
    return nn.Sequential(
        LayerNorm(dim, dialect),
        Linear(dim, inner * 2),
        SwiGLU(),
        middle,
        nn.Identity(),
        Linear(inner, dim),
    )


class PositionBias(nn.Module):
    """A learned bias per head and distance. Source: Raffel et al. 2019, arXiv:1910.10683, section 2.1."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.relative_attention_bias = nn.Embedding(BUCKETS, heads)

    def forward(self, queries: int, keys: int) -> Tensor:
        """Return the bias, (E, N, N + 1): the null token's key counts as the first position."""
        device = self.relative_attention_bias.weight.device
        distance = (torch.arange(queries, device=device)[:, None] - torch.arange(keys, device=device)).clamp(min=0)
        exact = BUCKETS // 2
        far = torch.log(distance.clamp(min=1).float() / exact) / math.log(FARTHEST / exact) * (BUCKETS - exact)
        bucket = torch.where(distance < exact, distance, (exact + far.long()).clamp(max=BUCKETS - 1))
        return self.relative_attention_bias(bucket).permute(2, 0, 1)


class Rotary(nn.Module):
    """Frequencies of rotary embeddings; the layers of a prior share them, and its state dict holds them once per layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.freqs = nn.Parameter(10000.0 ** (-torch.arange(0, dim, 2).float() / dim))

    def forward(self, count: int) -> tuple[Tensor, Tensor]:
        """Return cosines and sines, (N, R) each."""
        angles = torch.arange(count, device=self.freqs.device).float()[:, None] * self.freqs.float()
        angles = angles.repeat_interleave(2, dim=-1)
        return angles.cos(), angles.sin()


class CausalTransformer(nn.Module):
    """Attention and gated layers in turn."""

    def __init__(
        self,
        dim: int,
        dialect: Dialect,
        *,
        depth: int,
        dim_head: int = 64,
        heads: int = 8,
        ff_mult: float = 4,
        norm_in: bool = False,
        norm_out: bool = True,
        final_proj: bool = True,
        normformer: bool = False,
        rotary_emb: bool = True,
    ) -> None:
        super().__init__()
        self.bias_scale = dialect.position_bias_scale
        self.init_norm = LayerNorm(dim, dialect) if norm_in else nn.Identity()
        self.rel_pos_bias = PositionBias(heads)
        self.layers = nn.ModuleList()
        rotary = Rotary(min(32, dim_head)) if rotary_emb else None
        for _ in range(depth):
            attention = MultiQueryAttention(dim, dialect, heads=heads, dim_head=dim_head, cosine_sim=True)
            if rotary is not None:
                attention.add_module("rotary_emb", rotary)
            self.layers.append(nn.ModuleList([attention, feed_forward(dim, dialect, ff_mult, normformer=normformer)]))
        self.norm = LayerNorm(dim, dialect, last=True) if norm_out else nn.Identity()
        self.project_out = Linear(dim, dim) if final_proj else nn.Identity()

    def mask(self, count: int, keep: Tensor | None) -> Tensor:
        """Return what is added to the logits of `count` tokens: the bias of their distances, and -inf where they may not look.

        Shapes:
            keep     (B, N) bool, False = padding
            returns  (1 or B, E, N, N + 1) float
        """
        bias = self.rel_pos_bias(count, count + 1) * self.bias_scale
        later = torch.ones(count, count + 1, dtype=torch.bool, device=bias.device).triu(2)
        hidden = later if keep is None else later | ~F.pad(keep, (1, 0), value=True)[:, None, None, :]
        return bias.expand(1, -1, -1, -1).masked_fill(hidden, -torch.inf)

    def rotation(self, first: int, last: int) -> Rotation | None:
        """Return the rotations of the places from `first` to before `last`."""
        layers: Any = self.layers
        rotary = getattr(layers[0][0], "rotary_emb", None)
        if rotary is None:
            return None
        cos, sin = rotary(last)
        return cos[first:], sin[first:]

    def read(self, x: Tensor, mask: Tensor) -> list[KeysAndValues]:
        """Return what tokens after these will see of them in each layer; `mask` is these tokens' own, (1 or B, E, N, N + 1)."""
        x = self.init_norm(x)
        layers: Any = self.layers
        rotation, past = self.rotation(0, x.shape[1]), []
        for attention, gated in layers:
            past.append(attention.look(x, rotation))
            if len(past) < len(layers):
                x = attention(x, mask, rotation) + x
                x = gated(x) + x
        return past

    def forward(self, x: Tensor, mask: Tensor, rotation: Rotation | None, past: list[KeysAndValues]) -> Tensor:
        """Answer tokens that come after those of `past`."""
        x = self.init_norm(x)
        layers: Any = self.layers
        for (attention, gated), seen in zip(layers, past, strict=True):
            x = attention(x, mask, rotation, seen) + x
            x = gated(x) + x
        return self.project_out(self.norm(x))


class TimeEmbedding(nn.Sequential):
    """Sinusoids of any time through two hidden layers, for priors without a table of times."""

    def __init__(self, dim: int, dim_out: int) -> None:
        hidden = dim_out * 2
        self.dim = dim
        super().__init__(
            nn.Identity(),
            nn.ModuleDict(
                {
                    "net": nn.Sequential(
                        nn.Sequential(nn.Linear(dim, hidden), nn.SiLU()),
                        nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU()),
                        nn.Linear(hidden, dim_out),
                    )
                }
            ),
        )

    def forward(self, times: Tensor) -> Tensor:
        embedding: Any = self[1]
        net = embedding["net"]
        return net(sinusoids(times, self.dim).to(net[2].weight.dtype))


class PriorNetwork(nn.Module):
    """Predicts a picture embedding, or what the prior was trained to predict, from a noised one.

    `dialect` is the release that the weights were trained with. The other arguments are those of the library's network config.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_timesteps: int | None = None,
        num_time_embeds: int = 1,
        num_image_embeds: int = 1,
        num_text_embeds: int = 1,
        max_text_len: int | None = 256,
        attend_all_text_encodings: bool = True,
        self_cond: bool = False,
        dialect: Dialect | None = None,
        **transformer: Any,
    ) -> None:
        super().__init__()
        dialect = dialect or Dialect(LATEST)
        self.dim = dim
        self.self_cond = self_cond
        self.reads_self_condition = dialect.reads_self_condition
        self.query_last = dialect.query_after_self_condition or not self_cond
        self.padding = dialect.padding
        if self.padding is Padding.ATTENDED and not attend_all_text_encodings:
            self.padding = Padding.MASKED_WHERE_ZERO
        self.reads_text_mask = dialect.reads_text_mask
        self.counts = (num_text_embeds, num_time_embeds, num_image_embeds)
        self.to_text_embeds = nn.Sequential(nn.Linear(dim, dim * num_text_embeds) if num_text_embeds > 1 else nn.Identity())
        self.to_image_embeds = nn.Sequential(nn.Linear(dim, dim * num_image_embeds) if num_image_embeds > 1 else nn.Identity())
        self.num_timesteps = num_timesteps
        wide = dim * num_time_embeds
        self.to_time_embeds = nn.Sequential(nn.Embedding(num_timesteps, wide) if num_timesteps else TimeEmbedding(dim, wide))
        self.learned_query = nn.Parameter(torch.randn(dim))
        self.causal_transformer = CausalTransformer(dim, dialect, **transformer)
        self.max_text_len = max_text_len
        if self.pads:
            self.null_text_encodings = nn.Parameter(torch.randn(1, max_text_len or 0, dim))
        if self.padding in (Padding.LEARNED_TEXT, Padding.LEARNED_ALL):
            self.null_text_embeds = nn.Parameter(torch.randn(1, num_text_embeds, dim))
            self.null_image_embed = nn.Parameter(torch.randn(1, dim))

    @property
    def pads(self) -> bool:
        """Whether learned tokens stand where text is missing."""
        return self.padding in (Padding.LEARNED, Padding.LEARNED_TEXT, Padding.LEARNED_ALL)

    @property
    def null_is_constant(self) -> bool:
        """Whether the unconditional answer depends on the time only."""
        return self.padding is Padding.LEARNED_ALL and not self.self_cond

    def condition(
        self, text_embed: Tensor, text_encodings: Tensor | None, mask: Tensor | None = None, *, drop_text: bool = False, drop_image: bool = False
    ) -> PriorCondition:
        """Prepare what stays the same over all steps.

        Shapes:
            text_embed      (B, D) float, unit length
            text_encodings  (B, L, D) float, zero where there is no token; None where the prior was trained without
            mask            (B, L) bool, True = a token; only read by releases before 0.22

        `drop_text` and `drop_image` prepare the unconditional answer that guidance leads away from.
        """
        embeds = self.to_text_embeds(text_embed).unflatten(-1, (-1, self.dim))
        encodings = embeds.new_empty(len(embeds), 0, self.dim) if text_encodings is None else text_encodings
        keep: Tensor | None = None
        if self.pads:
            encodings = self.padded(encodings, everything=drop_text and self.padding is not Padding.LEARNED)
            if drop_text and self.padding is Padding.LEARNED_ALL:
                embeds = self.null_text_embeds.expand(len(embeds), -1, -1)
        else:
            keep = self.kept(encodings, embeds.shape[1], mask, drop=drop_text)
        text = torch.cat([encodings, embeds], dim=1)
        count = text.shape[1] + self.counts[1] + self.counts[2] * (1 if self.query_last else 2) + 1 + (self.self_cond and self.query_last)
        if keep is not None:
            keep = F.pad(keep, (0, count - keep.shape[1]), value=True)
        keeps_image = not drop_image or self.padding not in DROPS_IMAGE
        mask, first = self.causal_transformer.mask(count, keep).to(text.dtype), text.shape[1]
        past = self.causal_transformer.read(text, mask[:, :, :first, : first + 1])
        return PriorCondition(past, mask[:, :, first:], self.causal_transformer.rotation(first, count), keeps_image)

    def padded(self, encodings: Tensor, *, everything: bool) -> Tensor:
        """Cut or extend (B, L, D) to the prior's length, with learned tokens in the place of zeros, or of all."""
        null = self.null_text_encodings.to(encodings.dtype)
        if everything:
            return null.expand(len(encodings), -1, -1)
        length = null.shape[1]
        encodings = F.pad(encodings[:, :length], (0, 0, 0, max(length - encodings.shape[1], 0)))
        return torch.where((encodings != 0).any(dim=-1, keepdim=True), encodings, null)

    def kept(self, encodings: Tensor, embeds: int, mask: Tensor | None, *, drop: bool) -> Tensor:
        """Return which text tokens may be looked at, (B, L + text embeds) bool."""
        batch, length = encodings.shape[:2]
        if drop:
            return torch.zeros(batch, length + embeds, dtype=torch.bool, device=encodings.device)
        if not self.reads_text_mask:
            mask = None
        if self.padding is Padding.MASKED_WHERE_ZERO and mask is None:
            mask = (encodings != 0).any(dim=-1)
        if mask is None or self.padding is Padding.ATTENDED:
            mask = torch.ones(batch, length, dtype=torch.bool, device=encodings.device)
        return F.pad(mask, (0, embeds), value=True)

    def moments(self, times: Tensor) -> Tensor:
        """Prepare what stays the same at a time, whatever is dreamt: tokens, (S, N, D), of times, (S,) int64, 0 = the cleanest."""
        return self.to_time_embeds(times).unflatten(-1, (-1, self.dim)).to(self.learned_query.dtype)

    def predict(self, image_embed: Tensor, times: Tensor, condition: PriorCondition, self_cond: Tensor | None = None) -> Tensor:
        """Answer at one step, with `times`, (B,) int64, 0 = the cleanest; for shapes see `answer`."""
        return self.answer(image_embed, self.moments(times), condition, self_cond)

    def answer(self, image_embed: Tensor, moments: Tensor, condition: PriorCondition, self_cond: Tensor | None = None) -> Tensor:
        """Answer at one step, told what was prepared.

        Shapes:
            image_embed  (B, D) float, noised
            moments      (B, N, D) float, tokens of the time
            self_cond    (B, D) float, the answer of the step before; zeros where there is none
            returns      (B, D) float
        """
        batch = len(image_embed)
        image = self.to_image_embeds(image_embed).unflatten(-1, (-1, self.dim))
        if not condition.keeps_image:
            image = self.null_image_embed.expand(batch, image.shape[1], -1)
        last = [self.learned_query.expand(batch, 1, -1)]
        if self.self_cond:
            before = torch.zeros_like(image_embed)[:, None] if self_cond is None or not self.reads_self_condition else self_cond.reshape(batch, 1, -1)
            last = [before, *last] if self.query_last else [image, before]
        tokens = torch.cat([moments, image, *last], dim=1)
        return self.causal_transformer(tokens, condition.mask, condition.rotation, condition.past)[:, -1]

    def forward(
        self,
        image_embed: Tensor,
        times: Tensor,
        *,
        text_embed: Tensor,
        text_encodings: Tensor | None = None,
        mask: Tensor | None = None,
        self_cond: Tensor | None = None,
        text_cond_drop_prob: float = 0.0,
        image_cond_drop_prob: float = 0.0,
        cond_drop_prob: float | None = None,
    ) -> Tensor:
        """Answer at one step, called like the library's network; conditions are dropped or not (1 or 0). For shapes see the parts."""
        drop_text, drop_image = (bool(drop if cond_drop_prob is None else cond_drop_prob) for drop in (text_cond_drop_prob, image_cond_drop_prob))
        condition = self.condition(text_embed, text_encodings, mask, drop_text=drop_text, drop_image=drop_image)
        return self.predict(image_embed, times, condition, self_cond)

    def forward_with_cond_scale(self, *args: Tensor, cond_scale: float = 1.0, **kwargs: Any) -> Tensor:
        """Answer under classifier-free guidance: null + scale × (conditional - null). Source: Ho & Salimans 2022, arXiv:2207.12598."""
        answer = self(*args, **kwargs)
        if cond_scale == 1:
            return answer
        null = self(*args, **kwargs, cond_drop_prob=1.0)
        return null + (answer - null) * cond_scale
