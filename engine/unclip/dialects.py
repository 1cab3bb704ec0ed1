"""What each release of dalle2-pytorch meant by its weights: which arithmetic, which layout, which names.

The boundaries were read from the sources of the 146 releases from 0.7.0 to 1.15.6; `tests/engine/unclip/test_dialects.py` holds networks
built by the releases on both sides of them against ours. Names are those of 1.15.6; `rename` brings older ones there.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, order=True)
class Release:
    """A release of dalle2-pytorch."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> "Release":
        """Read "1.1.0"; what follows the third number is ignored.

        Raises:
            ValueError: these are not three numbers.
        """
        found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text.strip())
        if found is None:
            raise ValueError(f"'{text:.40}' is no release of dalle2-pytorch")
        return cls(*map(int, found.groups()))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


FIRST_PRIOR, FIRST_DECODER, LATEST = Release(0, 7, 0), Release(0, 11, 0), Release(1, 15, 6)
CHANNELS = 3
"""Of a picture."""


class Stable(Enum):
    """Which layer norms divide by their largest value first."""

    NONE = "none"
    LAST = "the transformer's last"
    ALL = "all"


class Padding(Enum):
    """What the prior puts in the place of text tokens that are not there, and what guidance leaves out."""

    MASKED = "padding is masked out where a mask is given; guidance masks all text"
    MASKED_WHERE_ZERO = "the same, with the mask read off the encodings where none is given"
    ATTENDED = "padding is attended to as it comes; guidance masks all text"
    LEARNED = "learned tokens; guidance changes nothing"
    LEARNED_TEXT = "learned tokens; guidance replaces text tokens and the noised picture embedding, but not the text embedding"
    LEARNED_ALL = "learned tokens; guidance replaces text tokens, text embedding and noised picture embedding"


class Downsampling(Enum):
    """How a unet halves the side."""

    STRIDED = "a 4 × 4 convolution of stride 2"
    UNSHUFFLED = "pixel-unshuffle and a 1 × 1 convolution"


class Upsampling(Enum):
    """How a unet doubles the side."""

    TRANSPOSED = "a transposed 4 × 4 convolution"
    NEAREST = "nearest neighbours and a 3 × 3 convolution"
    SHUFFLED = "a 1 × 1 convolution and pixel-shuffle"


class Layout(Enum):
    """How a unet's stages are put together."""

    NARROW = "widths change in a stage's first block, one skip connection a stage, no time in the last block"
    SPARSE = "linear attention before a stage's further blocks, its output skipped over"
    FULL = "attention after a stage's blocks, its output skipped over"


@dataclass(frozen=True, slots=True)
class Dialect:
    """One release's behaviour, as far as inference can tell."""

    release: Release

    def since(self, *release: int) -> bool:
        """Tell whether this is the given release or a later one."""
        return self.release >= Release(*release)

    @property
    def stable_norms(self) -> Stable:
        """Division by the largest value: none, all from 0.16.2, the prior's last one from 0.23.3."""
        if self.since(0, 23, 3):
            return Stable.LAST
        return Stable.ALL if self.since(0, 16, 2) else Stable.NONE

    @property
    def norms_have_beta(self) -> bool:
        """Layer norms add a beta, zero in training."""
        return not self.since(0, 16, 0)

    @property
    def position_bias_scale(self) -> float:
        """What the prior's relative position bias is multiplied by: the softmax was rescaled after the bias had been added."""
        if self.since(1, 4, 3) or not self.since(0, 16, 1):
            return 1.0
        return 128.0 if self.since(0, 23, 3) else 1024.0

    @property
    def cosine_attention(self) -> bool:
        """Self-attention compares directions, in the prior always and in a unet where it is asked for; else its scale is squared."""
        return self.since(1, 4, 3)

    @property
    def linear_attention_norm(self) -> str:
        """What linear attention does to its values: "none", divide by "area", or "unit" length and the root of the area on both sides."""
        if self.since(1, 4, 0):
            return "unit"
        return "area" if self.since(1, 2, 0) else "none"

    @property
    def padding(self) -> Padding:
        """How the prior treats missing text."""
        if self.since(1, 10, 4):
            return Padding.LEARNED_ALL
        if self.since(1, 9, 0):
            return Padding.LEARNED_TEXT
        if self.since(0, 23, 0):
            return Padding.LEARNED
        if self.since(0, 22, 3):
            return Padding.ATTENDED
        return Padding.MASKED_WHERE_ZERO if self.since(0, 21, 1) else Padding.MASKED

    @property
    def reads_text_mask(self) -> bool:
        """The prior heeds a mask that it is given; later it only looks for zeros."""
        return not self.since(0, 22, 0)

    @property
    def query_after_self_condition(self) -> bool:
        """The prior reads its answer off the learned query; before 1.12.1 off the self-condition, with the picture embedding repeated."""
        return self.since(1, 12, 1)

    @property
    def reads_self_condition(self) -> bool:
        """The prior looks at the self-condition that it is given; 1.6.1, the first that had one, put zeros in its place."""
        return self.since(1, 6, 2)

    @property
    def text_mask_from_zeros(self) -> bool:
        """A unet takes text tokens of zeros for padding even where no mask is given."""
        return self.since(0, 21, 1)

    @property
    def layout(self) -> Layout:
        """How a unet's stages are built."""
        if self.since(0, 15, 3):
            return Layout.FULL
        return Layout.SPARSE if self.since(0, 14, 0) else Layout.NARROW

    @property
    def downsampling(self) -> Downsampling:
        """How a unet halves the side."""
        return Downsampling.UNSHUFFLED if self.since(1, 10, 0) else Downsampling.STRIDED

    def upsampling(self, *, pixel_shuffle: bool, nearest: bool) -> Upsampling:
        """How a unet doubles the side, by the two switches that releases had in turn."""
        if self.since(0, 21, 0):
            return Upsampling.SHUFFLED if pixel_shuffle else Upsampling.NEAREST
        if self.since(0, 15, 0):
            return Upsampling.NEAREST if nearest else Upsampling.TRANSPOSED
        return Upsampling.NEAREST if self.since(0, 14, 0) else Upsampling.TRANSPOSED

    @property
    def last_kernel(self) -> int:
        """Side of the last convolution's kernel where the config names none."""
        return 3 if self.layout is Layout.SPARSE and not self.since(0, 15, 0) else 1

    @property
    def last_sees_lowres(self) -> bool:
        """An upsampler's last convolution sees the smaller picture too."""
        return self.since(0, 24, 0)

    @property
    def smooth_lowres(self) -> bool:
        """The smaller picture is enlarged by cubic interpolation; later by nearest neighbours."""
        return not self.since(0, 23, 10)

    @property
    def ddim_eta(self) -> float:
        """Noise of the decoder's DDIM where the config names none."""
        return 0.0 if self.since(1, 12, 0) else 1.0

    @property
    def dynamic_percentile(self) -> float:
        """Percentile of dynamic thresholding where the config names none."""
        return 0.95 if self.since(0, 26, 1) else 0.9


RENAMED = (
    # einops-exts wrapped cross attention until 1.12.
    (re.compile(r"\.cross_attn\.fn\."), ".cross_attn."),
    # The factor of a layer norm was called gamma until 0.16.
    (re.compile(r"\.gamma$"), ".g"),
)
MOVED = (
    # Linear attention stood before a stage's further blocks until 0.15.3, and the last two layers were called otherwise until 0.14.
    (re.compile(r"^downs\.(\d+)\.([23])\."), lambda found: f"downs.{found[1]}.{5 - int(found[2])}."),
    (re.compile(r"^ups\.(\d+)\.([12])\."), lambda found: f"ups.{found[1]}.{3 - int(found[2])}."),
    (re.compile(r"^final_conv\.0\."), lambda found: "final_resnet_block."),
    (re.compile(r"^final_conv\.1\."), lambda found: "to_out."),
)


def rename_prior(key: str) -> str:
    """Return today's name of a tensor of the prior's network."""
    # The only null parameter of priors until 1.9 is today's padding.
    return "null_text_encodings" if key == "null_text_embed" else rename(key)


def rename_unet(key: str, dialect: Dialect) -> str:
    """Return today's name of a tensor of a unet."""
    key = rename(key)
    if dialect.layout is not Layout.FULL:
        for pattern, move in MOVED:
            if pattern.match(key):
                return pattern.sub(move, key)
    return key


def rename(key: str) -> str:
    """Apply what is renamed everywhere."""
    for pattern, name in RENAMED:
        key = pattern.sub(name, key)
    return key


def detect_prior(keys: Iterable[str]) -> Release:
    """Tell from the names in its state dict by which release a prior's network was trained, where the file does not say.

    Where several releases share all names, the one that the published priors come from, or the one that stayed longest, is taken.
    """
    keys = set(keys)
    if "null_text_encodings" in keys:
        return LATEST
    if "null_text_embed" in keys:
        return Release(1, 1, 0)
    return Release(0, 15, 4) if any(key.endswith(".gamma") for key in keys) else Release(0, 20, 1)


def detect_decoder(unets: Iterable[Mapping[str, tuple[int, ...]]]) -> list[Release]:
    """Tell from the names and shapes in each unet's state dict by which release a decoder may have been trained, where the file does not say.

    Where several releases share all names, the one that the published decoders come from, or the one that stayed longest, is taken.
    """
    unets = [unet for unet in unets if unet]
    signs = {sign for unet in unets if (sign := detect_unet(unet)) is not None}
    if signs:
        return sorted(signs)
    wrapped = any(".cross_attn.fn." in key for unet in unets for key in unet)
    return [Release(1, 1, 0) if wrapped else LATEST]


def detect_unet(shapes: Mapping[str, tuple[int, ...]]) -> Release | None:
    """Tell a unet's release by what only some releases have; None where it has nothing of the kind."""

    def has(pattern: str) -> bool:
        return any(re.match(pattern, key) for key in shapes)

    transposed = has(r"ups\.\d+\.3\.weight$")
    if has(r"final_conv\."):
        return Release(0, 12, 4)
    if not has(r"downs\.\d+\.2\.0\.block1\."):
        return Release(0, 15, 2) if transposed else Release(0, 14, 1)
    if has(r".*\.gamma$"):
        return Release(0, 15, 4)
    if transposed:
        return Release(0, 20, 1)
    if last_misses_lowres(shapes):
        return Release(0, 23, 10)
    if has(r"downs\.\d+\.[04]\.1\.weight$"):
        return LATEST
    strided = any(re.match(r"downs\.\d+\.[04]\.weight$", key) and shape[-1] == 4 for key, shape in shapes.items())
    return Release(1, 1, 0) if strided else None


def last_misses_lowres(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether these are the tensors of an upsampler whose last convolution does not see the smaller picture."""
    first, last = (shapes.get(key) for key in ("init_conv.convs.0.weight", "to_out.weight"))
    inside = shapes.get("final_resnet_block.block2.project.weight")
    if first is None or last is None or inside is None or len(first) < 2 or len(last) < 2:
        return False
    return first[1] == 2 * CHANNELS and last[1] == inside[0]
