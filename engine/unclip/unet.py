"""A unet of the decoder's cascade: predicts noise, picture or v from a noised picture, a time, a picture embedding and perhaps text.

Source: Ramesh et al. 2022, arXiv:2204.06125, section 2.1; dalle2-pytorch, releases 0.11.0 to 1.15.6, `Unet`. State dicts have the names of
1.15.6.

Dimensions: B batch, C channels, H = W = side, D embedding width, L tokens of text, K width of a condition token, T width of time (4 × dim),
S times, F numbers that scale and shift all blocks, J outer cross attentions, M condition tokens and N time tokens, E heads of width Q.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import resize_right
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.unclip.dialects import LATEST, Dialect, Downsampling, Layout, Upsampling
from engine.unclip.layers import ChannelNorm, LayerNorm, MultiQueryAttention, Nested, sinusoids

CROSS_HEADS, CROSS_DIM_HEAD = 8, 64
"""Cross attention has one shape in all releases, whatever the config says of attention."""


@dataclass(frozen=True, slots=True)
class UnetCondition:
    """What stays the same over all steps of one picture; `join` puts the samples of several behind each other.

    Shapes:
        hiddens  (B, T) float, added to the time's
        outer    (B, J, 2, E, 1 + M, Q) float, keys and values that the outer stages attend to, the null token's first
        inner    (B, 2, 2, E, 1 + M', Q) float, keys and values that the middle attends to
    """

    hiddens: Tensor
    outer: Tensor
    inner: Tensor

    @classmethod
    def join(cls, conditions: Sequence["UnetCondition"]) -> "UnetCondition":
        """Put the samples of several conditions behind each other."""
        return cls(*(torch.cat([getattr(condition, name) for condition in conditions]) for name in ("hiddens", "outer", "inner")))


@dataclass(frozen=True, slots=True)
class UnetMoments:
    """What a unet is told of times, whatever it paints.

    Shapes:
        hiddens  (S, T) float
        outer    (S, J, 2, E, N, Q) float, keys and values that the outer stages attend to
        inner    (S, 2, 2, E, N, Q) float, keys and values that the middle attends to
    """

    hiddens: Tensor
    outer: Tensor
    inner: Tensor


@dataclass(frozen=True, slots=True)
class Told:
    """What the blocks of a unet are told at one step, each in its turn: scale and shift, (B, 2 C), and keys and values, (B, 2, E, 1 + N + M, Q)."""

    scales: Iterator[Tensor]
    outer: Iterator[Tensor]
    inner: Iterator[Tensor]


class CrossEmbed(nn.Module):
    """Convolutions of several kernels side by side; the smallest has half of the channels."""

    def __init__(self, dim: int, dim_out: int, kernels: Iterable[int], stride: int) -> None:
        super().__init__()
        kernels = sorted(kernels)
        widths = [dim_out // 2**place for place in range(1, len(kernels))]
        widths.append(dim_out - sum(widths))
        self.convs = nn.ModuleList(
            nn.Conv2d(dim, width, kernel, stride, (kernel - stride) // 2) for kernel, width in zip(kernels, widths, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([conv(x) for conv in self.convs], dim=1)


class StandardizedConv2d(nn.Conv2d):
    """A convolution whose kernels have mean 0 and variance 1. Source: Qiao et al. 2019, arXiv:1903.10520."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float()
        variance, mean = torch.var_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
        return self._conv_forward(x, ((weight - mean) * (variance + 1e-5).rsqrt()).to(x.dtype), self.bias)


class Block(nn.Module):
    """Convolution, group norm, scale and shift, SiLU."""

    def __init__(self, dim: int, dim_out: int, groups: int = 8, *, standardized: bool = False) -> None:
        super().__init__()
        self.project = (StandardizedConv2d if standardized else nn.Conv2d)(dim, dim_out, 3, padding=1)
        self.norm = nn.GroupNorm(groups, dim_out)

    def forward(self, x: Tensor, scale_shift: Tensor | None = None) -> Tensor:
        x = self.norm(self.project(x))
        if scale_shift is not None:
            scale, shift = scale_shift[:, :, None, None].chunk(2, dim=1)
            x = torch.addcmul(shift, x, scale)
        return F.silu(x)


class CrossAttention(nn.Module):
    """Attention from every pixel to the condition tokens and one null token."""

    def __init__(self, dim: int, context_dim: int, dialect: Dialect, *, cosine_sim: bool) -> None:
        super().__init__()
        inner = CROSS_HEADS * CROSS_DIM_HEAD
        self.norm = LayerNorm(dim, dialect)
        self.null_kv = nn.Parameter(torch.randn(2, CROSS_DIM_HEAD))
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(context_dim, inner * 2, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, dim, bias=False), LayerNorm(dim, dialect))
        self.is_cosine = cosine_sim
        self.scale = 16.0 if cosine_sim else CROSS_DIM_HEAD**-0.5

    def look(self, context: Tensor) -> Tensor:
        """Return what pixels see of tokens.

        Shapes:
            context  (B, M, K) float, normalised
            returns  (B, 2, E, M, Q) float, keys and values
        """
        return self.directed(self.to_kv(context).unflatten(-1, (2, CROSS_HEADS, -1)).permute(0, 2, 3, 1, 4))

    def look_at_null(self) -> Tensor:
        """Return what pixels see of the null token, (1, 2, E, 1, Q)."""
        return self.directed(self.null_kv[None, :, None, None].expand(-1, -1, CROSS_HEADS, -1, -1))

    def directed(self, seen: Tensor) -> Tensor:
        """Let the length of keys not count where directions are compared."""
        return torch.cat([F.normalize(seen[:, :1], dim=-1), seen[:, 1:]], dim=1) if self.is_cosine else seen

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Attend.

        Shapes:
            x        (B, HW, C) float
            seen     (B, 2, E, M, Q) float, keys and values
            returns  (B, HW, C) float
        """
        q = self.to_q(self.norm(x)).unflatten(-1, (CROSS_HEADS, -1)).transpose(1, 2)
        if self.is_cosine:
            q = F.normalize(q, dim=-1)
        k, v = seen.unbind(1)
        out = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.to_out(out.transpose(1, 2).flatten(2))


class ResnetBlock(nn.Module):
    """Two blocks beside a shortcut, told the time by scale and shift and the condition by cross attention."""

    def __init__(
        self,
        dim: int,
        dim_out: int,
        dialect: Dialect,
        *,
        cond_dim: int | None = None,
        time_dim: int | None,
        groups: int = 8,
        standardized: bool = False,
        cosine_sim: bool = False,
    ) -> None:
        super().__init__()
        self.time_mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, dim_out * 2)) if time_dim else None
        self.cross_attn = CrossAttention(dim_out, cond_dim, dialect, cosine_sim=cosine_sim) if cond_dim else None
        self.block1 = Block(dim, dim_out, groups, standardized=standardized)
        self.block2 = Block(dim_out, dim_out, groups, standardized=standardized)
        self.res_conv = nn.Conv2d(dim, dim_out, 1) if dim != dim_out else nn.Identity()

    def scale_shift(self, time: Tensor) -> Tensor:
        """Return what the first block is multiplied by and what is added, (…, 2 C), of times, (…, T), after their activation."""
        assert self.time_mlp is not None
        scale, shift = self.time_mlp[1](time).chunk(2, dim=-1)
        return torch.cat([scale + 1, shift], dim=-1)

    def forward(self, x: Tensor, scales: Iterator[Tensor], seen: Iterator[Tensor]) -> Tensor:
        h = self.block1(x, None if self.time_mlp is None else next(scales))
        if self.cross_attn is not None:
            pixels = h.flatten(2).transpose(1, 2)
            h = (self.cross_attn(pixels, next(seen)) + pixels).transpose(1, 2).reshape(h.shape)
        return self.block2(h) + self.res_conv(x)


class PixelAttention(nn.Module):
    """Self-attention between all pixels, added to what comes in."""

    def __init__(self, attention: MultiQueryAttention) -> None:
        super().__init__()
        self.fn = Nested(attention)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).transpose(1, 2)
        return (self.fn(pixels) + pixels).transpose(1, 2).reshape(x.shape)


class LinearAttention(nn.Module):
    """Attention whose cost grows with the pixels, not with their square. Source: Shen et al. 2018, arXiv:1812.01243."""

    def __init__(self, dim: int, dialect: Dialect, *, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = dim_head**-0.5
        self.value_norm = dialect.linear_attention_norm
        self.norm = ChannelNorm(dim, dialect)
        self.to_qkv = nn.Conv2d(dim, heads * dim_head * 3, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(heads * dim_head, dim, 1, bias=False), ChannelNorm(dim, dialect))

    def forward(self, x: Tensor) -> Tensor:
        area = x.shape[-2] * x.shape[-1]
        q, k, v = (t.unflatten(1, (self.heads, -1)).flatten(3) for t in self.to_qkv(self.norm(x)).chunk(3, dim=1))
        q, k = q.softmax(dim=2) * self.scale, k.softmax(dim=3)
        if self.value_norm == "unit":
            k, v = k / math.sqrt(area), F.normalize(v, dim=2) / math.sqrt(area)
        elif self.value_norm == "area":
            v = v / area
        out = (v @ k.transpose(2, 3)) @ q
        return self.to_out(F.gelu(out.flatten(1, 2).unflatten(-1, x.shape[-2:])))


class AddedLinearAttention(nn.Module):
    """Linear attention, added to what comes in."""

    def __init__(self, attention: LinearAttention) -> None:
        super().__init__()
        self.fn = attention

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x


class ShuffledUpsample(nn.Module):
    """Source: Shi et al. 2016, arXiv:1609.05158."""

    def __init__(self, dim: int, dim_out: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(dim, dim_out * 4, 1), nn.SiLU(), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def upsample(kind: Upsampling, dim: int, dim_out: int) -> nn.Module:
    """Return what doubles the side."""
    match kind:
        case Upsampling.SHUFFLED:
            return ShuffledUpsample(dim, dim_out)
        case Upsampling.NEAREST:
            return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(dim, dim_out, 3, padding=1))
        case Upsampling.TRANSPOSED:
            return nn.ConvTranspose2d(dim, dim_out, 4, 2, 1)


def downsample(kind: Downsampling, dim: int, dim_out: int) -> nn.Module:
    """Return what halves the side. Source of the later one: Sunkara & Luo 2022, arXiv:2208.03641."""
    if kind is Downsampling.STRIDED:
        return nn.Conv2d(dim, dim_out, 4, 2, 1)
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(dim * 4, dim_out, 1))


class UpsampleCombiner(nn.Module):
    """Gives the last block what every stage on the way up ended with. Source: Qin et al. 2020, arXiv:2005.09007."""

    def __init__(self, dim: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.fmap_convs = nn.ModuleList(Block(width, dim) for width in widths)

    def forward(self, x: Tensor, stages: Sequence[Tensor]) -> Tensor:
        return torch.cat([x, *(conv(resize(stage, x.shape[-1])) for conv, stage in zip(self.fmap_convs, stages, strict=True))], dim=1)


def resize(x: Tensor, side: int) -> Tensor:
    """Scale (B, C, H, W) to another side by cubic interpolation, which counts what lies outside as zero. Source: resize-right."""
    return x if x.shape[-1] == side else resize_right.resize(x, scale_factors=side / x.shape[-1]).to(x.dtype)


def per_stage(value: Any, stages: int) -> list[Any]:
    """Repeat a single setting for every stage.

    Raises:
        ValueError: a list has another length than there are stages.
    """
    values = list(value) if isinstance(value, (list, tuple)) else [value] * stages
    if len(values) != stages:
        raise ValueError(f"{len(values)} values are given for {stages} stages")
    return values


class Unet(nn.Module):
    """Predicts, for a noised picture, what it was trained to: noise, picture or v, and perhaps a variance beside it.

    `dialect` is the release that the weights were trained with. The other arguments are those of the library's unet config; what inference
    does not need is ignored.
    """

    def __init__(
        self,
        dim: int,
        *,
        image_embed_dim: int | None = None,
        text_embed_dim: int | None = None,
        cond_dim: int | None = None,
        num_image_tokens: int = 4,
        num_time_tokens: int = 2,
        dim_mults: Sequence[int] = (1, 2, 4, 8),
        channels: int = 3,
        channels_out: int | None = None,
        self_attn: bool | Sequence[bool] = False,
        attn_dim_head: int = 32,
        attn_heads: int = 16,
        lowres_cond: bool = False,
        lowres_noise_cond: bool = False,
        self_cond: bool = False,
        sparse_attn: bool = False,
        cosine_sim_cross_attn: bool = False,
        cosine_sim_self_attn: bool = False,
        attend_at_middle: bool = True,
        cond_on_text_encodings: bool | None = False,
        max_text_len: int = 256,
        cond_on_image_embeds: bool = False,
        add_image_embeds_to_time: bool = True,
        init_dim: int | None = None,
        init_conv_kernel_size: int = 7,
        resnet_groups: int | Sequence[int] = 8,
        resnet_weight_standardization: bool = False,
        num_resnet_blocks: int | Sequence[int] = 2,
        init_cross_embed: bool = True,
        init_cross_embed_kernel_sizes: Sequence[int] = (3, 7, 15),
        cross_embed_downsample: bool = False,
        cross_embed_downsample_kernel_sizes: Sequence[int] = (2, 4),
        memory_efficient: bool = False,
        scale_skip_connection: bool = False,
        pixel_shuffle_upsample: bool = True,
        nearest_upsample: bool = False,
        final_conv_kernel_size: int | None = None,
        combine_upsample_fmaps: bool = False,
        dialect: Dialect | None = None,
        **ignored: Any,
    ) -> None:
        super().__init__()
        self.dialect = dialect = dialect or Dialect(LATEST)
        self.layout = dialect.layout
        self.dim = dim
        self.channels = channels
        self.lowres_cond = lowres_cond
        self.self_cond = self_cond
        self.cond_on_image_embeds = cond_on_image_embeds
        self.image_embed_dim = image_embed_dim if cond_on_image_embeds else None
        self.cond_on_text_encodings = bool(cond_on_text_encodings)
        self.max_text_len = max_text_len
        self.skip_scale = 2**-0.5 if scale_skip_connection else 1.0
        cond_dim = cond_dim or dim
        time_dim = dim * 4
        stages = len(dim_mults)

        init_dim = init_dim or dim
        init_channels = channels * (1 + lowres_cond + self_cond)
        self.init_conv = (
            CrossEmbed(init_channels, init_dim, init_cross_embed_kernel_sizes, stride=1)
            if init_cross_embed
            else nn.Conv2d(init_channels, init_dim, init_conv_kernel_size, padding=init_conv_kernel_size // 2)
        )
        self.to_time_hiddens = nn.Sequential(nn.Identity(), nn.Linear(dim, time_dim), nn.GELU())
        self.to_time_tokens = nn.Sequential(nn.Linear(time_dim, cond_dim * num_time_tokens), nn.Unflatten(-1, (num_time_tokens, cond_dim)))
        self.to_time_cond = nn.Sequential(nn.Linear(time_dim, time_dim))
        self.image_to_tokens: nn.Module | None = None
        self.to_image_hiddens: nn.Module | None = None
        if cond_on_image_embeds:
            if image_embed_dim is None:
                raise ValueError("image_embed_dim must be given where cond_on_image_embeds is true")
            self.image_to_tokens = nn.Sequential(
                nn.Linear(image_embed_dim, cond_dim * num_image_tokens), nn.Unflatten(-1, (num_image_tokens, cond_dim))
            )
            if add_image_embeds_to_time:
                self.to_image_hiddens = nn.Sequential(nn.Linear(image_embed_dim, time_dim), nn.GELU())
        self.norm_cond = nn.LayerNorm(cond_dim)
        self.norm_mid_cond = nn.LayerNorm(cond_dim)
        self.text_to_cond: nn.Linear | None = None
        if self.cond_on_text_encodings:
            if text_embed_dim is None:
                raise ValueError("text_embed_dim must be given where cond_on_text_encodings is true")
            self.text_to_cond = nn.Linear(text_embed_dim, cond_dim)
        self.to_lowres_noise_cond = (
            nn.Sequential(nn.Identity(), nn.Linear(dim, time_dim), nn.GELU(), nn.Linear(time_dim, time_dim)) if lowres_noise_cond else None
        )
        self.null_image_embed = nn.Parameter(torch.randn(1, num_image_tokens, cond_dim))
        self.null_image_hiddens = nn.Parameter(torch.randn(1, time_dim))
        self.null_text_embed = nn.Parameter(torch.randn(1, max_text_len, cond_dim))

        groups = per_stage(resnet_groups, stages)
        counts = per_stage(num_resnet_blocks, stages)
        attends = per_stage(self_attn, stages) if self.layout is Layout.FULL else [False] * stages
        dims = [init_dim, *(dim * mult for mult in dim_mults)]
        resnet = partial(
            ResnetBlock, dialect=dialect, time_dim=time_dim, standardized=resnet_weight_standardization, cosine_sim=cosine_sim_cross_attn
        )

        def attention(width: int) -> PixelAttention:
            return PixelAttention(MultiQueryAttention(width, dialect, heads=attn_heads, dim_head=attn_dim_head, cosine_sim=cosine_sim_self_attn))

        def maybe_attention(width: int, wanted: bool) -> nn.Module:
            if wanted:
                return attention(width)
            if sparse_attn:
                return AddedLinearAttention(LinearAttention(width, dialect, heads=attn_heads, dim_head=attn_dim_head))
            return nn.Identity()

        def down(width: int, width_out: int) -> nn.Module:
            if cross_embed_downsample:
                return CrossEmbed(width, width_out, cross_embed_downsample_kernel_sizes, stride=2)
            return downsample(dialect.downsampling, width, width_out)

        self.init_resnet_block = resnet(init_dim, init_dim, groups=groups[0]) if memory_efficient and self.layout is not Layout.NARROW else None
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        narrow = self.layout is Layout.NARROW
        skips = []
        for stage, (width, width_out) in enumerate(zip(dims, dims[1:], strict=False)):
            is_last = stage == stages - 1
            inside = width_out if memory_efficient or narrow else width
            enters = width_out if memory_efficient else width
            skips.append(inside)
            after: nn.Module | None = None
            if not is_last and not memory_efficient:
                after = down(inside, width_out)
            elif not narrow:
                after = nn.Conv2d(inside, width_out, 1)
            blocks = (resnet(inside, inside, groups=groups[stage], cond_dim=cond_dim if stage else None) for _ in range(counts[stage]))
            parts: list[Any] = [
                down(width, width_out) if memory_efficient else None,
                resnet(enters, inside, groups=groups[stage]),
                nn.ModuleList(blocks),
                maybe_attention(inside, attends[stage]),
                after,
            ]
            self.downs.append(nn.ModuleList(parts))
        self.mid_block1 = resnet(dims[-1], dims[-1], groups=groups[-1], cond_dim=cond_dim)
        self.mid_attn = attention(dims[-1]) if attend_at_middle or self.layout is Layout.FULL else None
        self.mid_block2 = resnet(dims[-1], dims[-1], groups=groups[-1], cond_dim=cond_dim)
        kind = dialect.upsampling(pixel_shuffle=pixel_shuffle_upsample, nearest=nearest_upsample)
        for stage in reversed(range(stages)):
            width, width_out, skip = dims[stage], dims[stage + 1], skips[stage]
            inside = width if narrow else width_out
            context = cond_dim if stage else None
            enters = inside + skip
            blocks = (resnet(inside if narrow else enters, inside, groups=groups[stage], cond_dim=context) for _ in range(counts[stage]))
            self.ups.append(
                nn.ModuleList(
                    [
                        resnet(width_out + skip, inside, groups=groups[stage], cond_dim=context),
                        nn.ModuleList(blocks),
                        maybe_attention(inside, attends[stage]),
                        upsample(kind, inside, width) if stage or memory_efficient else nn.Identity(),
                    ]
                )
            )
        self.upsample_combiner = UpsampleCombiner(dim, dims[:0:-1]) if combine_upsample_fmaps else None
        # Without time in the first layout, and without its switches.
        before_last = dim * 2 + (dim * stages if combine_upsample_fmaps else 0)
        self.final_resnet_block = (
            ResnetBlock(before_last, dim, dialect, time_dim=None, groups=groups[0]) if narrow else resnet(before_last, dim, groups=groups[0])
        )
        self.last_sees_lowres = lowres_cond and dialect.last_sees_lowres
        kernel = final_conv_kernel_size or dialect.last_kernel
        self.to_out = nn.Conv2d(dim + channels * self.last_sees_lowres, channels_out or channels, kernel, padding=kernel // 2)
        self.widths = [block.block1.norm.num_channels * 2 for block in self.timed_blocks()]

    def timed_blocks(self) -> list[ResnetBlock]:
        """Return the blocks that are told the time, in the order in which they work."""
        parts = (self.init_resnet_block, self.downs, self.mid_block1, self.mid_block2, self.ups, self.final_resnet_block)
        modules = [module for part in parts if part is not None for module in part.modules()]
        return [module for module in modules if isinstance(module, ResnetBlock) and module.time_mlp is not None]

    def look(self, tokens: Tensor, *, inner: bool, with_null: bool = False) -> Tensor:
        """Return what the blocks of the middle, or all others, see of normalised tokens, perhaps after the null token.

        Shapes:
            tokens   (B, N, K) float
            returns  (B, J, 2, E, N, Q) or (B, J, 2, E, 1 + N, Q) float, keys and values
        """
        seen = [attention.look(tokens) for attention in self.cross_attentions(inner=inner)]
        if not seen:
            return tokens.new_empty(len(tokens), 0, 2, CROSS_HEADS, tokens.shape[1] + with_null, CROSS_DIM_HEAD)
        if with_null:
            nulls = [attention.look_at_null().expand(len(tokens), -1, -1, -1, -1) for attention in self.cross_attentions(inner=inner)]
            seen = [torch.cat(both, dim=3) for both in zip(nulls, seen, strict=True)]
        return torch.stack(seen, dim=1)

    def cross_attentions(self, *, inner: bool) -> list[CrossAttention]:
        """Return the cross attentions of the middle, or all others, in the order in which they work."""
        middle = (self.mid_block1, self.mid_block2)
        return [block.cross_attn for block in self.timed_blocks() if block.cross_attn is not None and (block in middle) is inner]

    def condition(
        self,
        image_embed: Tensor | None,
        text_encodings: Tensor | None = None,
        text_mask: Tensor | None = None,
        *,
        lowres_noise_level: Tensor | None = None,
        batch: int,
        drop_image: bool = False,
        drop_text: bool = False,
    ) -> UnetCondition:
        """Prepare what stays the same over all steps.

        Shapes:
            image_embed         (B, D) float, unit length; unused by upsamplers
            text_encodings      (B, L, W) float, zero where there is no token; unused where the unet was trained without text
            text_mask           (B, L) bool, True = a token; read off the encodings from release 0.21.1 on
            lowres_noise_level  (B,) number, the time up to which the smaller picture was noised

        `drop_image` and `drop_text` prepare the unconditional answer that guidance leads away from.
        """
        hiddens = self.null_image_hiddens.new_zeros(batch, self.dim * 4)
        tokens = self.null_image_embed.new_empty(batch, 0, self.null_image_embed.shape[-1])
        if self.cond_on_image_embeds:
            if image_embed is None:
                raise ValueError("this unet needs image_embed")
            assert self.image_to_tokens is not None
            image_embed = image_embed.to(hiddens.dtype)
            tokens = self.null_image_embed.expand(batch, -1, -1) if drop_image else self.image_to_tokens(image_embed)
            if self.to_image_hiddens is not None:
                hiddens = self.null_image_hiddens.expand(batch, -1) if drop_image else self.to_image_hiddens(image_embed)
        inner = tokens
        if text_encodings is not None and self.cond_on_text_encodings:
            inner = torch.cat([tokens, self.text_tokens(text_encodings, text_mask, drop=drop_text)], dim=1)
        if self.to_lowres_noise_cond is not None and lowres_noise_level is not None:
            hiddens = hiddens + self.to_lowres_noise_cond(sinusoids(lowres_noise_level, self.dim).to(hiddens.dtype))
        return UnetCondition(
            hiddens,
            self.look(self.norm_cond(tokens), inner=False, with_null=True),
            self.look(self.norm_mid_cond(inner), inner=True, with_null=True),
        )

    def text_tokens(self, encodings: Tensor, mask: Tensor | None, *, drop: bool) -> Tensor:
        """Turn (B, L, W) text encodings into (B, max_text_len, K) tokens, with learned ones where text is missing or dropped."""
        null = self.null_text_embed
        if drop:
            return null.expand(len(encodings), -1, -1)
        assert self.text_to_cond is not None
        encodings = encodings[:, : self.max_text_len]
        missing = self.max_text_len - encodings.shape[1]
        tokens = F.pad(self.text_to_cond(encodings.to(null.dtype)), (0, 0, 0, missing))
        if self.dialect.text_mask_from_zeros and mask is None:
            mask = (encodings != 0).any(dim=-1)
        if mask is None:
            return tokens
        return torch.where(F.pad(mask[:, : self.max_text_len], (0, missing), value=False)[..., None], tokens, null)

    def moments(self, times: Tensor) -> UnetMoments:
        """Prepare what stays the same at a time, whatever is painted; `times` are (S,) numbers, 0 = the cleanest."""
        hiddens = self.to_time_hiddens(sinusoids(times, self.dim).to(self.null_image_hiddens.dtype))
        tokens = self.to_time_tokens(hiddens)
        return UnetMoments(
            self.to_time_cond(hiddens), self.look(self.norm_cond(tokens), inner=False), self.look(self.norm_mid_cond(tokens), inner=True)
        )

    def scales(self, hiddens: Tensor) -> Tensor:
        """Return what scales and shifts the blocks, (…, F), from the sums of the hiddens of times and conditions, (…, T)."""
        time = F.silu(hiddens)
        return torch.cat([block.scale_shift(time) for block in self.timed_blocks()], dim=-1)

    def answer(
        self,
        x: Tensor,
        scales: Tensor,
        outer: Tensor,
        inner: Tensor,
        lowres_cond_img: Tensor | None = None,
        self_cond: Tensor | None = None,
    ) -> Tensor:
        """Answer at one step, told what was prepared.

        Shapes:
            x                (B, C, H, W) float, noised
            scales           (B, F) float
            outer            (B, J, 2, E, 1 + M + N, Q) float, keys and values of condition and time
            inner            (B, 2, 2, E, 1 + M' + N, Q) float, those of the middle
            lowres_cond_img  (B, C, H, W) float in [-1, 1], the smaller picture enlarged; upsamplers need it
            self_cond        (B, C, H, W) float, the answer of the step before; zeros where there is none
            returns          (B, C or 2 C, H, W) float

        Raises:
            ValueError: an upsampler got no smaller picture.
        """
        dtype = self.null_image_hiddens.dtype
        parts = [x.to(dtype)]
        if self.self_cond:
            parts.append(torch.zeros_like(parts[0]) if self_cond is None else self_cond.to(dtype))
        lowres: Tensor | None = None
        if self.lowres_cond:
            if lowres_cond_img is None:
                raise ValueError("this unet is an upsampler: it needs lowres_cond_img")
            lowres = lowres_cond_img.to(dtype)
            parts.append(lowres)
        x = self.init_conv(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0])
        beginning = x
        told = Told(iter(scales.split(self.widths, dim=1)), iter(outer.unbind(1)), iter(inner.unbind(1)))
        if self.init_resnet_block is not None:
            x = self.init_resnet_block(x, told.scales, told.outer)
        x, skips = self.descend(x, told)
        x = self.mid_block1(x, told.scales, told.inner)
        if self.mid_attn is not None:
            x = self.mid_attn(x)
        x = self.mid_block2(x, told.scales, told.inner)
        x = self.ascend(x, told, skips)
        x = self.final_resnet_block(torch.cat([x, beginning], dim=1), told.scales, told.outer)
        if self.last_sees_lowres:
            assert lowres is not None
            x = torch.cat([x, lowres], dim=1)
        return self.to_out(x)

    def predict(self, x: Tensor, times: Tensor, condition: UnetCondition, **rest: Tensor | None) -> Tensor:
        """Answer at one step, with `times`, (B,) number, 0 = the cleanest; for shapes see `answer`."""
        moments = self.moments(times)
        outer, inner = (torch.cat(both, dim=4) for both in ((condition.outer, moments.outer), (condition.inner, moments.inner)))
        return self.answer(x, self.scales(moments.hiddens + condition.hiddens), outer, inner, **rest)

    def descend(self, x: Tensor, told: Told) -> tuple[Tensor, list[Tensor]]:
        """Go down to the smallest side; return what comes out there and what the way up is to be joined with."""
        skips = []
        stages: Any = self.downs
        for before, first, blocks, attention, after in stages:
            if before is not None:
                x = before(x)
            x = first(x, told.scales, told.outer)
            if self.layout is not Layout.FULL:
                x = attention(x)
            if self.layout is Layout.SPARSE:
                skips.append(x)
            for block in blocks:
                x = block(x, told.scales, told.outer)
                if self.layout is not Layout.NARROW:
                    skips.append(x)
            if self.layout is Layout.FULL:
                x = attention(x)
            if self.layout is not Layout.SPARSE:
                skips.append(x)
            if after is not None:
                x = after(x)
        return x, skips

    def ascend(self, x: Tensor, told: Told, skips: list[Tensor]) -> Tensor:
        """Go back up to the full side."""
        ends = []
        stages: Any = self.ups

        def joined(x: Tensor) -> Tensor:
            skip = skips.pop()
            return torch.cat([x, skip if self.skip_scale == 1 else skip * self.skip_scale], dim=1)

        for first, blocks, attention, enlarge in stages:
            x = first(joined(x), told.scales, told.outer)
            if self.layout is not Layout.FULL:
                x = attention(x)
            for block in blocks:
                x = block(x if self.layout is Layout.NARROW else joined(x), told.scales, told.outer)
            if self.layout is Layout.FULL:
                x = attention(x)
            ends.append(x)
            x = enlarge(x)
        return x if self.upsample_combiner is None else self.upsample_combiner(x, ends)

    def forward(
        self,
        x: Tensor,
        times: Tensor,
        *,
        image_embed: Tensor | None = None,
        text_encodings: Tensor | None = None,
        text_mask: Tensor | None = None,
        lowres_noise_level: Tensor | None = None,
        image_cond_drop_prob: float = 0.0,
        text_cond_drop_prob: float = 0.0,
        **rest: Tensor | None,
    ) -> Tensor:
        """Answer at one step, called like the library's unet; conditions are dropped or not (1 or 0). For shapes see the parts."""
        condition = self.condition(
            image_embed,
            text_encodings,
            text_mask,
            lowres_noise_level=lowres_noise_level,
            batch=len(x),
            drop_image=bool(image_cond_drop_prob),
            drop_text=bool(text_cond_drop_prob),
        )
        return self.predict(x, times, condition, **rest)

    def forward_with_cond_scale(self, *args: Tensor, cond_scale: float = 1.0, **kwargs: Any) -> Tensor:
        """Answer under classifier-free guidance: null + scale × (conditional - null). Source: Ho & Salimans 2022, arXiv:2207.12598."""
        answer = self(*args, **kwargs)
        if cond_scale == 1:
            return answer
        null = self(*args, **kwargs, image_cond_drop_prob=1.0, text_cond_drop_prob=1.0)
        return null + (answer - null) * cond_scale
