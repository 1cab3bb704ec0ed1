"""The train configs of dalle2-pytorch, as far as inference reads them: what a network looks like and how it is to be sampled.

Source: dalle2-pytorch 1.15.6, `train_configs.py`, and the defaults of its modules. What only training reads is ignored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.errors import Misconfigured
from engine.unclip.config import first_mistake


class Part(BaseModel):
    """A part of a train config: unknown keys are training's business."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class PriorNetworkConfig(Part):
    """Arguments of `PriorNetwork`."""

    dim: int = Field(gt=0, le=8192)
    depth: int = Field(gt=0, le=256)
    max_text_len: int | None = Field(None, gt=0, le=4096)
    num_timesteps: int | None = Field(None, gt=0, le=10_000)
    num_time_embeds: int = Field(1, gt=0, le=64)
    num_image_embeds: int = Field(1, gt=0, le=64)
    num_text_embeds: int = Field(1, gt=0, le=64)
    attend_all_text_encodings: bool = True
    self_cond: bool = False
    dim_head: int = Field(64, gt=0, le=1024)
    heads: int = Field(8, gt=0, le=256)
    ff_mult: float = Field(4, gt=0, le=64)
    norm_in: bool = False
    norm_out: bool = True
    final_proj: bool = True
    normformer: bool = False
    rotary_emb: bool = True


class ClipConfig(Part):
    """The CLIP that a network was trained with."""

    make: str
    model: str = ""
    base_model_kwargs: dict[str, Any] | None = None


class PriorConfig(Part):
    """The prior. Of the drop probabilities only matters whether they are zero: then guidance has nothing to lead away from."""

    net: PriorNetworkConfig
    image_embed_dim: int | None = Field(None, gt=0)
    timesteps: int = Field(1000, gt=0, le=10_000)
    sample_timesteps: int | None = Field(None, gt=0)
    cond_drop_prob: float = 0.0
    text_cond_drop_prob: float | None = None
    image_cond_drop_prob: float | None = None
    predict_x_start: bool = True
    predict_v: bool = False
    beta_schedule: str = "cosine"
    condition_on_text_encodings: bool = True
    sampling_clamp_l2norm: bool = False
    sampling_final_clamp_l2norm: bool = False
    init_image_embed_l2norm: bool = False
    image_embed_scale: float | None = None
    clip: ClipConfig | None = None

    @model_validator(mode="after")
    def check_width(self) -> "PriorConfig":
        if self.image_embed_dim not in (None, self.net.dim):
            raise ValueError(f"image_embed_dim must be net.dim, {self.net.dim}, not {self.image_embed_dim}")
        return self

    @property
    def can_be_guided(self) -> bool:
        """Whether conditions were dropped in training."""
        drops = (self.text_cond_drop_prob, self.image_cond_drop_prob)
        return all((self.cond_drop_prob if drop is None else drop) > 0 for drop in drops)


class UnetConfig(Part):
    """Arguments of `Unet`."""

    dim: int = Field(gt=0, le=8192)
    dim_mults: list[int] = Field(min_length=1, max_length=12)
    image_embed_dim: int | None = Field(None, gt=0, le=8192)
    text_embed_dim: int | None = Field(None, gt=0, le=8192)
    cond_on_text_encodings: bool | None = None
    cond_dim: int | None = Field(None, gt=0, le=8192)
    num_image_tokens: int = Field(4, gt=0, le=256)
    num_time_tokens: int = Field(2, gt=0, le=256)
    channels: int = Field(3, gt=0, le=64)
    self_attn: bool | list[bool] = False
    attn_dim_head: int = Field(32, gt=0, le=1024)
    attn_heads: int = Field(16, gt=0, le=256)
    self_cond: bool = False
    sparse_attn: bool = False
    cosine_sim_cross_attn: bool = False
    cosine_sim_self_attn: bool = False
    attend_at_middle: bool = True
    max_text_len: int = Field(256, gt=0, le=4096)
    add_image_embeds_to_time: bool = True
    init_dim: int | None = Field(None, gt=0, le=8192)
    init_conv_kernel_size: int = Field(7, gt=0, le=63)
    resnet_groups: int | list[int] = 8
    resnet_weight_standardization: bool = False
    num_resnet_blocks: int | list[int] = 2
    init_cross_embed: bool = True
    init_cross_embed_kernel_sizes: list[int] = Field([3, 7, 15], min_length=1)
    cross_embed_downsample: bool = False
    cross_embed_downsample_kernel_sizes: list[int] = Field([2, 4], min_length=1)
    memory_efficient: bool = False
    scale_skip_connection: bool = False
    pixel_shuffle_upsample: bool = True
    nearest_upsample: bool = False
    final_conv_kernel_size: int | None = Field(None, gt=0, le=63)
    combine_upsample_fmaps: bool = False


class DecoderConfig(Part):
    """The cascade. Settings that may differ between unets are given once for all or once for each."""

    unets: list[UnetConfig] = Field(min_length=1, max_length=8)
    image_size: int | None = Field(None, gt=0, le=8192)
    image_sizes: list[int] | None = None
    timesteps: int = Field(1000, gt=0, le=10_000)
    sample_timesteps: int | list[int | None] | None = None
    image_cond_drop_prob: float = 0.1
    text_cond_drop_prob: float = 0.5
    beta_schedule: str | list[str] | None = None
    predict_x_start: bool | list[bool] = False
    predict_v: bool | list[bool] = False
    use_noise_for_lowres_cond: bool | list[bool] = False
    lowres_noise_sample_level: float = Field(0.2, ge=0, lt=1)
    learned_variance: bool | list[bool] = True
    learned_variance_constrain_frac: bool = False
    unconditional: bool = False
    use_dynamic_thres: bool = False
    dynamic_thres_percentile: float | None = Field(None, gt=0, le=1)
    ddim_sampling_eta: float | None = Field(None, ge=0, le=1)
    clip: ClipConfig | None = None

    @model_validator(mode="after")
    def check_sides(self) -> "DecoderConfig":
        if len(self.sides) != len(self.unets):
            raise ValueError(f"image_sizes must name one size per unet: {len(self.unets)}, not {self.sides}")
        return self

    @property
    def sides(self) -> list[int]:
        """Side of every unet's pictures in pixels, the smallest first."""
        return sorted({*(self.image_sizes or []), *([self.image_size] if self.image_size else [])})

    def one_per_unet(self, value: Any) -> list[Any]:
        """Repeat a single setting for every unet.

        Raises:
            ValueError: a list has another length than there are unets.
        """
        values = list(value) if isinstance(value, list) else [value] * len(self.unets)
        if len(values) != len(self.unets):
            raise ValueError(f"{values} holds {len(values)} values for {len(self.unets)} unets")
        return values

    @property
    def learns_variance(self) -> list[bool]:
        """Whether each unet's answer has a variance beside it; where fewer are named than there are unets, the others have none."""
        values = self.learned_variance if isinstance(self.learned_variance, list) else [self.learned_variance]
        return [*values, *[False] * (len(self.unets) - len(values))][: len(self.unets)]

    @property
    def noises_lowres(self) -> list[bool]:
        """Whether each unet is given a noised smaller picture; the first has none."""
        value = self.use_noise_for_lowres_cond
        values = value if isinstance(value, list) else [value] * (len(self.unets) - 1)
        return ([False, *values] if len(values) < len(self.unets) else values)[: len(self.unets)]

    @property
    def can_be_guided(self) -> bool:
        """Whether conditions were dropped in training."""
        return self.image_cond_drop_prob > 0 or self.text_cond_drop_prob > 0


P = TypeVar("P", bound=Part)


def read_part(kind: type[P], name: str, config: object, source: Path) -> P:
    """Read the `name` part of a train config that was found in `source`.

    Raises:
        Misconfigured: there is no such part, or one of its values is not what it must be.
    """
    part = config.get(name) if isinstance(config, Mapping) else None
    if not isinstance(part, Mapping):
        raise Misconfigured(f"{source} holds no '{name}' object. Point load_config_from to a train config of dalle2-pytorch.")
    try:
        return kind.model_validate(without_none(part))
    except ValidationError as error:
        raise Misconfigured(f"{source}: {name}.{first_mistake(error)}. Mend that key and start again.") from None


def without_none(value: Any) -> Any:
    """Leave out what a trainer wrote down as None: it means that the default holds."""
    if isinstance(value, Mapping):
        return {key: without_none(inner) for key, inner in value.items() if inner is not None}
    return [without_none(inner) for inner in value] if isinstance(value, (list, tuple)) else value
