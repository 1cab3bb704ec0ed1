"""Checkpoints into networks: find the release that fits, build its networks, fill them.

Source of the file formats: dalle2-pytorch, releases 0.7.0 to 1.15.6, `trainer.py`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import Misconfigured
from engine.unclip.checkpoints import Checkpoint, differences, load_into, read_checkpoint, some
from engine.unclip.config import read_json
from engine.unclip.dialects import FIRST_DECODER, FIRST_PRIOR, LATEST, Dialect, Release, detect_decoder, detect_prior, rename_prior, rename_unet
from engine.unclip.prior import PriorNetwork
from engine.unclip.schedule import BETAS, alpha_bars
from engine.unclip.stages import Decoder, Prior, UnetStage
from engine.unclip.train_config import DecoderConfig, PriorConfig, read_part
from engine.unclip.unet import Unet

log = logging.getLogger(__name__)

NOT_READ = ("clip.", "vae.", "vaes.", "noise_scheduler.", "noise_schedulers.", "lowres_conds.", "to_lowres_cond.", "_dummy")
"""Tensors beside the networks' that inference does not need; of a noise schedule only the curve is read."""
SCHEDULE = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "p2_loss_weight",
)
"""A noise schedule as priors before 0.11 have it, without a name before it."""
CURVE_TOLERANCE = 1e-5
"""A stored schedule is float32; where it is that of the config, the config's float64 one is used."""


def load_prior(
    path: Path | str, config: Path | str | None = None, *, strict: bool = True, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Prior:
    """Load a diffusion prior of dalle2-pytorch, 0.7.0 to 1.15.6, with the behaviour of the release that it was trained with.

    `config` is a train config, `{"prior": …}`, for files that carry none. `strict` refuses tensors that are not known; missing ones are always
    refused.

    Raises:
        Misconfigured: file or config cannot be read, or do not fit together.
    """
    checkpoint = read_checkpoint(Path(path))
    settings = read_part(PriorConfig, "prior", *config_of(checkpoint, config))
    prefix = "net." if any(key.startswith("net.") for key in checkpoint.weights) else ""
    check_rest(checkpoint, (prefix,), strict)
    weights = {key.removeprefix(prefix): value for key, value in checkpoint.weights.items() if key.startswith(prefix)}
    if not prefix:
        weights = {key: value for key, value in weights.items() if not key.startswith(NOT_READ) and key not in SCHEDULE}

    def build(release: Release) -> tuple[PriorNetwork, dict[str, Tensor]]:
        named = {rename_prior(key): value for key, value in weights.items()}
        length = settings.net.max_text_len or (named["null_text_encodings"].shape[1] if "null_text_encodings" in named else 256)
        return PriorNetwork(**settings.net.model_dump() | {"max_text_len": length}, dialect=Dialect(release)), named

    release, net, named = fitting(checkpoint, build, [detect_prior(weights)], FIRST_PRIOR, strict)
    load_into(net, named, checkpoint.path, dtype=dtype, device=device, exact=lambda key: key.endswith(".freqs"))
    curve = curve_of(checkpoint, ("noise_scheduler.", ""), settings.beta_schedule, settings.timesteps)
    return Prior.of(net, release, settings, curve)


def load_decoder(
    path: Path | str,
    config: Path | str | None = None,
    *,
    unet_numbers: Sequence[int] | None = None,
    strict: bool = True,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Decoder:
    """Load a cascade of dalle2-pytorch, 0.11.0 to 1.15.6, with the behaviour of the release that it was trained with.

    `config` is a train config, `{"decoder": …}`, for files that carry none. `unet_numbers`, counted from 1, names the unets to load, all if
    None. `strict` refuses tensors that are not known; missing ones are always refused.

    Raises:
        Misconfigured: file or config cannot be read, or do not fit together.
    """
    checkpoint = read_checkpoint(Path(path))
    source = config_of(checkpoint, config)
    settings = read_part(DecoderConfig, "decoder", *source)
    numbers = list(range(1, len(settings.unets) + 1)) if unet_numbers is None else list(unet_numbers)
    if max(numbers) > len(settings.unets):
        raise Misconfigured(f"{source[1]} describes {len(settings.unets)} unets; unet_numbers asks for {numbers}.")
    wrapped = any(key.startswith("unets.") for key in checkpoint.weights)
    check_rest(checkpoint, tuple(f"unets.{index}." for index in range(len(settings.unets))) if wrapped else ("",), strict)
    parts = {index: part(checkpoint.weights, f"unets.{index}." if wrapped else "") for index in range(len(settings.unets))}
    detected = detect_decoder({key: tuple(value.shape) for key, value in weights.items()} for weights in parts.values())
    stages = []
    for number in numbers:
        index = number - 1

        def build(release: Release, index: int = index) -> tuple[Unet, dict[str, Tensor]]:
            dialect = Dialect(release)
            return build_unet(settings, index, dialect), {rename_unet(key, dialect): value for key, value in parts[index].items()}

        release, unet, named = fitting(checkpoint, build, detected, FIRST_DECODER, strict, of=f"unet {number}")
        load_into(unet, named, checkpoint.path, dtype=dtype, device=device)
        name, times = schedule_of(settings, index, release), settings.timesteps
        curve = curve_of(checkpoint, (f"noise_schedulers.{index}.", "noise_scheduler."), name, times)
        try:
            stages.append(UnetStage.of(unet, release, settings, index, curve))
        except ValueError as error:
            raise Misconfigured(f"{source[1]}: decoder: {error}.") from None
    return Decoder(tuple(stages))


def config_of(checkpoint: Checkpoint, config: Path | str | None) -> tuple[object, Path]:
    """Return the train config that belongs to a checkpoint, and the file that it comes from: its own one first.

    Raises:
        Misconfigured: the checkpoint carries none and none is named, or the named one cannot be read.
    """
    if checkpoint.config is not None:
        return checkpoint.config, checkpoint.path
    if config is None:
        raise Misconfigured(f"{checkpoint.path} carries no train config. Name one as load_config_from.")
    return read_json(Path(config)), Path(config)


def part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors below a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def check_rest(checkpoint: Checkpoint, known: tuple[str, ...], strict: bool) -> None:
    """Look at the tensors that lie outside of the networks.

    Raises:
        Misconfigured: `strict`, and there are some that no release wrote there.
    """
    rest = [key for key in checkpoint.weights if not key.startswith((*known, *NOT_READ)) and key not in SCHEDULE]
    if rest and strict:
        raise Misconfigured(
            f"{checkpoint.path} holds tensors that no release of dalle2-pytorch wrote there: {some(rest)}. "
            'Check the file, or set "strict_loading": false to ignore them.'
        )


def fitting(
    checkpoint: Checkpoint,
    build: Callable[[Release], tuple[Any, dict[str, Tensor]]],
    detected: Sequence[Release],
    first: Release,
    strict: bool,
    of: str = "network",
) -> tuple[Release, Any, dict[str, Tensor]]:
    """Build the network of the recorded release, or else of a detected one, whose tensors are those of the checkpoint.

    The network is returned on the meta device, without memory.

    Raises:
        Misconfigured: none fits; the message lists the keys that say so.
    """
    recorded = recorded_release(checkpoint, first)
    complaint = ""
    for release in dict.fromkeys(candidate for candidate in (recorded, *detected) if candidate is not None):
        try:
            with torch.device("meta"):
                net, named = build(release)
        except (ValueError, TypeError, RuntimeError, ZeroDivisionError, AssertionError) as error:
            complaint = complaint or f"the train config describes no {of} of {release}: {' '.join(str(error).split()):.200}"
            continue
        findings = differences({key: tuple(value.shape) for key, value in net.state_dict().items()}, named, strict=strict)
        if not findings:
            if recorded is not None and release != recorded:
                log.warning("%s says that it was trained with %s, but its tensors are those of %s, which is used", checkpoint.path, recorded, release)
            return release, net, named
        complaint = complaint or f"its {of} does not fit release {release}: {findings}"
    raise Misconfigured(f"{checkpoint.path} fits no release of dalle2-pytorch from {first} to {LATEST}: {complaint}. Check file and train config.")


def recorded_release(checkpoint: Checkpoint, first: Release) -> Release | None:
    """Return the release that a checkpoint names, None where it names none.

    Raises:
        Misconfigured: it names one that this program does not know.
    """
    if checkpoint.version is None:
        return None
    try:
        release = Release.parse(checkpoint.version)
    except ValueError:
        raise Misconfigured(f"{checkpoint.path} names '{checkpoint.version:.40}' as its release, which is none of dalle2-pytorch.") from None
    if not first <= release <= Release(LATEST.major, LATEST.minor, 10**9):
        raise Misconfigured(f"{checkpoint.path} was trained with dalle2-pytorch {release}; {first} to {LATEST} are known here.")
    return release


def build_unet(config: DecoderConfig, index: int, dialect: Dialect) -> Unet:
    """Build unet `index`, from 0, as the library's decoder would: what depends on the place in the cascade is set here."""
    unet = config.unets[index]
    return Unet(
        **unet.model_dump(),
        lowres_cond=index > 0,
        lowres_noise_cond=config.noises_lowres[index],
        cond_on_image_embeds=index == 0 and not config.unconditional,
        channels_out=unet.channels * (2 if config.learns_variance[index] else 1),
        dialect=dialect,
    )


def schedule_of(config: DecoderConfig, index: int, release: Release) -> str:
    """Name the noise schedule of unet `index`: cosine, but linear for the last of several unets from release 1.0.3 on."""
    if config.beta_schedule is not None:
        return str(config.one_per_unet(config.beta_schedule)[index])
    return "linear" if index and index == len(config.unets) - 1 and release >= Release(1, 0, 3) else "cosine"


def curve_of(checkpoint: Checkpoint, prefixes: Sequence[str], name: str, times: int) -> Tensor:
    """Return the signal variance left at each training time, (T,) float64: what the checkpoint stores, else what the config names.

    Raises:
        Misconfigured: no schedule has this name, or the stored one does not fall from 1 to 0.
    """
    curve = alpha_bars(name, times) if name in BETAS else None
    for prefix in prefixes:
        stored = checkpoint.weights.get(f"{prefix}alphas_cumprod")
        if stored is None:
            continue
        stored = stored.double().cpu()
        if curve is not None and curve.shape == stored.shape and torch.allclose(curve, stored, rtol=0, atol=CURVE_TOLERANCE):
            return curve
        if stored.ndim != 1 or not len(stored) or not ((stored >= 0) & (stored <= 1)).all() or (stored.diff() > 0).any():
            raise Misconfigured(f"{checkpoint.path}: {prefix}alphas_cumprod is no noise schedule. Restore the file.")
        return stored
    if curve is None:
        raise Misconfigured(f"{checkpoint.path}: beta_schedule '{name:.40}' is not known; known are {', '.join(BETAS)}.")
    return curve
