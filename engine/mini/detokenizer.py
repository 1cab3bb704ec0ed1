"""The decoder of a VQGAN: from codes, one for each 16 × 16 pixels, to colours.

Tensors are named as in min-dalle's file. Source: kuprel/min-dalle 0.4.11, `models/vqgan_detokenizer.py`; the network is that of taming-transformers
(Esser et al. 2021, "Taming Transformers for High-Resolution Image Synthesis"), f = 16 with 16,384 codes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 32
BLOCKS = 3
"""Of a level of the ladder."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """The sizes of a detokenizer: `channels` of each level, the coarsest first, each with twice the side of the one before it."""

    codes: int
    embedding: int
    inner: int
    channels: tuple[int, ...]
    has_attention: tuple[bool, ...]

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "Ladder":
        """Read the sizes off a file's tensors.

        Raises:
            KeyError, ValueError: it is no such file.
        """
        codes, embedding = weights["embedding.weight"].shape
        inner = len(weights["decoder.conv_in.weight"])
        levels = range(sum(key.startswith("decoder.up.") and key.endswith(".block.0.conv1.weight") for key in weights))
        channels = tuple(len(weights[f"decoder.up.{level}.block.0.conv1.weight"]) for level in reversed(levels))
        return cls(codes, embedding, inner, channels, tuple(f"decoder.up.{level}.attn.0.q.weight" in weights for level in reversed(levels)))


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        if channels_in != channels:
            self.nin_shortcut = nn.Conv2d(channels_in, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(x), inplace=True))
        inner = self.conv2(F.silu(self.norm2(inner), inplace=True))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + inner


class Attention(nn.Module):
    """Every place looks at every other, with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        queries, keys, values = (part(normed).flatten(2).transpose(1, 2)[:, None] for part in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(queries, keys, values)[:, 0].transpose(1, 2)
        return x + self.proj_out(seen.reshape(x.shape))


class Middle(nn.Module):
    """The coarsest part."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = Residual(channels, channels)
        self.attn_1 = Attention(channels)
        self.block_2 = Residual(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Enlarger(nn.Module):
    """Doubles the side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Level(nn.Module):
    """A rung of the ladder."""

    def __init__(self, channels_in: int, channels: int, has_attention: bool, enlarges: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(Residual(channels_in if index == 0 else channels, channels) for index in range(BLOCKS))
        self.attn = nn.ModuleList(Attention(channels) for _ in range(BLOCKS if has_attention else 0))
        self.enlarges = enlarges
        if enlarges:
            self.upsample = Enlarger(channels)

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[index](x)
        return self.upsample(x) if self.enlarges else x


class Climb(nn.Module):
    """From the coarsest level to the pixels."""

    def __init__(self, ladder: Ladder) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(ladder.embedding, ladder.inner, 3, padding=1)
        self.mid = Middle(ladder.inner)
        before = (ladder.inner, *ladder.channels)
        levels = [
            Level(channels_in, channels, has_attention, enlarges=index < len(ladder.channels) - 1)
            for index, (channels_in, channels, has_attention) in enumerate(zip(before, ladder.channels, ladder.has_attention, strict=False))
        ]
        # Files count from the finest one.
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = nn.GroupNorm(GROUPS, ladder.channels[-1])
        self.conv_out = nn.Conv2d(ladder.channels[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x), inplace=True))


class Detokenizer(nn.Module):
    """Turns codes into colours."""

    def __init__(self, ladder: Ladder) -> None:
        super().__init__()
        self.ladder = ladder
        self.embedding = nn.Embedding(ladder.codes, ladder.embedding)
        self.post_quant_conv = nn.Conv2d(ladder.embedding, ladder.embedding, 1)
        self.decoder = Climb(ladder)

    @property
    def enlargement(self) -> int:
        """Pixels of a code's side."""
        return int(2 ** (len(self.ladder.channels) - 1))

    def forward(self, codes: Tensor) -> Tensor:
        """Paint fields of codes, of any size.

        Shapes:
            codes    (B, rows, columns) int64
            returns  (B, 3, H, W) float in [0, 1]
        """
        x = self.embedding(codes).permute(0, 3, 1, 2)
        return self.decoder(self.post_quant_conv(x)).float().clamp(0, 1)


def field_of(codes: Tensor, columns: int) -> Tensor:
    """Lay the codes of pictures out as one field, row by row of pictures, for a picture without seams.

    Shapes:
        codes    (B, side, side) int64; B is a multiple of `columns`
        returns  (1, rows · side, columns · side)
    """
    side = codes.shape[1]
    return codes.unflatten(0, (-1, columns)).transpose(1, 2).reshape(1, -1, columns * side)


def tiles_of(picture: Tensor, rows: int, columns: int) -> Tensor:
    """Cut one picture, (1, 3, H, W), into `rows` × `columns` of equal size, (B, 3, h, w), row by row."""
    height, width = picture.shape[2] // rows, picture.shape[3] // columns
    return picture[0].unflatten(2, (columns, width)).unflatten(1, (rows, height)).permute(1, 3, 0, 2, 4).flatten(0, 1)


def detokenize(network: Detokenizer, codes: Tensor, columns: int = 0) -> Tensor:
    """Paint the codes of pictures, each by itself; or, where they are to lie in so many columns, as one picture without seams.

    What is missing of the last row is painted with the first pictures again.

    Shapes:
        codes    (B, tokens) int64, row by row
        returns  (B, 3, H, W) float in [0, 1]
    """
    side = round(codes.shape[1] ** 0.5)
    fields = codes.unflatten(1, (side, side))
    if not columns:
        return network(fields)
    count = len(fields)
    rows = -(-count // columns)
    whole = fields[torch.arange(rows * columns, device=codes.device) % count]
    return tiles_of(network(field_of(whole, columns)), rows, columns)[:count]
