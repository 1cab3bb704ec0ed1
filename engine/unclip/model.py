"""A config's files into the parts that paint: CLIP, prior, cascade, and how each stage is walked where nobody asks for anything else."""

import hashlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import Misconfigured
from engine.files import File, fetch
from engine.options import ALWAYS, Solver
from engine.unclip.checkpoints import read_checkpoint
from engine.unclip.clip import Clip, load_clip
from engine.unclip.config import LOCAL_CLIP, DecoderSources, ModelConfig, PriorSource, UnetSource, read_model_config
from engine.unclip.loading import load_decoder, load_prior
from engine.unclip.memory import Lodging, choose_lodging
from engine.unclip.packing import pack
from engine.unclip.recording import Playback
from engine.unclip.stages import Prior, UnetStage

log = logging.getLogger(__name__)

DEFAULT_STEPS = 64
DEFAULT_GUIDANCE = 1.0
CLIP_PARAMETERS = 428_000_000
"""Of ViT-L/14, for estimates."""
CARRIED = ("x-clip", "coca")
"""Makes of CLIP whose weights are inside of the model's checkpoints."""
PACKED_WEIGHTS = 2**18
"""Of a prior's projections from which on packing them pays: those of 128 × 128 take twice as long then, those of 768 × 768 three quarters."""
FINGERPRINT_DIGITS = 16
PIECES, PIECE_BYTES = 64, 2**18
"""Of a file that its checksum is of: all of one below 16 MB."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Setting:
    """How a stage is walked; None is the usual solver.

    `interval` are the shares of the times between which an unet is guided, `candidates` the draws of a prior of which CLIP keeps the nearest.
    """

    steps: int
    guidance: float
    solver: Solver | None = None
    interval: tuple[float, float] = ALWAYS
    candidates: int = 1


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model, or the parts of one that its config names. `fingerprint` tells its weights from others, `dtype` is what they compute in.

    `drafts` are usually painted of a picture, for CLIP to choose from.
    """

    name: str
    known_words: tuple[str, ...]
    clip: Clip | None
    prior: Prior | None
    prior_setting: Setting
    stages: tuple[UnetStage, ...]
    settings: tuple[Setting, ...]
    lodging: Lodging
    space: str = ""
    fingerprint: str = ""
    dtype: torch.dtype = torch.float32
    drafts: int = 1

    @property
    def computed(self) -> str:
        """In which numbers, and on what, it computes: what others compute differs by rounding."""
        return f"{str(self.dtype).removeprefix('torch.')} on {self.lodging.device.type}"

    @classmethod
    def from_config(cls, path: Path, device: str = "auto", dtype: str = "auto", memory: str = "auto") -> "Model":
        """Load what a config names, fetching what is not here yet; for the arguments see `Painter.from_config`.

        Raises:
            Misconfigured: a file is missing, damaged or does not fit the others, or there is no such device.
        """
        config = read_model_config(path)
        if config.decoder is None and config.prior is None:
            raise Misconfigured(f"Model config {path}: a model that paints needs a decoder or a prior. Name one and start again.")
        chosen = choose_device(device, config.devices)
        number_format = choose_dtype(dtype, chosen)
        fetched = Files(config, path.parent)
        lodging = choose_lodging(chosen, fetched.weights_bytes(number_format), memory)
        home = str(lodging.home)
        clip = None
        if config.clip is not None:
            carried = fetched.clip_weights() if config.clip.make in CARRIED else None
            clip = load_clip(config.clip, path.parent, dtype=number_format, device=home, carried=carried)
        prior, prior_setting = None, Setting(DEFAULT_STEPS, DEFAULT_GUIDANCE)
        if config.prior is not None:
            source = config.prior
            prior = load_prior(*fetched.of(source), strict=config.strict_loading, dtype=number_format, device=home)
            if chosen.type == "cpu":
                pack(prior.net, PACKED_WEIGHTS)
            prior_setting = Setting(
                source.default_sample_timesteps or prior.steps or DEFAULT_STEPS,
                first_given(source.default_cond_scale, DEFAULT_GUIDANCE),
                source.default_solver,
                candidates=source.default_candidates,
            )
        stages: tuple[UnetStage, ...] = ()
        settings: tuple[Setting, ...] = ()
        if config.decoder is not None:
            stages, settings = load_cascade(config.decoder, fetched, config.strict_loading, number_format, home)
        check_fit(path, clip, prior, stages)
        # Weights that come and go are at another place each time: what was recorded would read where they are no longer.
        if config.cuda_graphs and chosen.type == "cuda" and lodging.is_resident:
            stages = tuple(replace(stage, playback=Playback(stage.unet.answer)) for stage in stages)
        words = read_vocabulary(config.vocabulary, path.parent)
        space, fingerprint = name_of_space(path, config), fingerprint_of(config, path.parent)
        drafts = config.decoder.default_drafts if config.decoder else 1
        return cls(path.stem, words, clip, prior, prior_setting, stages, settings, lodging, space, fingerprint, number_format, drafts)


class Files:
    """Every file of a config, fetched before anything is loaded: a missing one is told before minutes of work."""

    def __init__(self, config: ModelConfig, folder: Path) -> None:
        files = [file for source in config.sources for file in (source.load_model_from, source.load_config_from) if file is not None]
        self._paths = {file: fetch(file, folder) for file in files}
        self._weights = {self._paths[source.load_model_from] for source in config.sources}

    def of(self, source: PriorSource | UnetSource) -> tuple[Path, Path | None]:
        """Return where a source's weights and train config are."""
        config = source.load_config_from
        return self._paths[source.load_model_from], None if config is None else self._paths[config]

    def clip_weights(self) -> dict[str, Tensor]:
        """Return the CLIP that one of the checkpoints carries, if any does."""
        for path in self._weights:
            if found := {key.removeprefix("clip."): value for key, value in read_checkpoint(path).weights.items() if key.startswith("clip.")}:
                return found
        return {}

    def weights_bytes(self, dtype: torch.dtype) -> int:
        """Estimate how much memory the weights take in `dtype`: files are float32, CLIP is OpenAI's largest."""
        parameters = sum(path.stat().st_size for path in self._weights) // torch.float32.itemsize + CLIP_PARAMETERS
        return parameters * dtype.itemsize


def load_cascade(
    sources: DecoderSources, files: Files, strict: bool, dtype: torch.dtype, home: str
) -> tuple[tuple[UnetStage, ...], tuple[Setting, ...]]:
    """Load every unet of a cascade, from as many checkpoints as it takes, in the order of the cascade."""
    found: dict[int, tuple[UnetStage, Setting]] = {}
    for source in sources.unet_sources:
        numbers = source.unet_numbers
        decoder = load_decoder(*files.of(source), unet_numbers=numbers, strict=strict, dtype=dtype, device=home)
        nothing: list[None] = [None] * len(numbers)
        steps, guidance = source.default_sample_timesteps or nothing, source.default_cond_scale or nothing
        solvers = source.default_solver or nothing
        for number, stage, own_steps, own_guidance, solver in zip(numbers, decoder.stages, steps, guidance, solvers, strict=True):
            found[number] = stage, Setting(own_steps or stage.steps or DEFAULT_STEPS, first_given(own_guidance, DEFAULT_GUIDANCE), solver)
    ordered = [found[number] for number in sorted(found)]
    return tuple(stage for stage, _ in ordered), tuple(setting for _, setting in ordered)


def first_given(value: float | None, otherwise: float) -> float:
    """Return a value, or another one where it is None."""
    return otherwise if value is None else value


def name_of_space(path: Path, config: ModelConfig) -> str:
    """Name the space of a config's CLIP: the same for all configs that take a published one, its own for one that lies beside the config."""
    if config.clip is None:
        return ""
    own = config.clip.make in CARRIED or config.clip.model.startswith(LOCAL_CLIP)
    return f"{path.stem}/{config.clip.make}" if own else f"{config.clip.make}/{config.clip.model}"


def fingerprint_of(config: ModelConfig, folder: Path) -> str:
    """Tell a model's weights and train configs from others: hexadecimal digits. A published CLIP counts by its name."""
    digest = hashlib.sha256(b"" if config.clip is None else f"{config.clip.make}/{config.clip.model}".encode())
    for file in config.files:
        if file != config.vocabulary:
            digest.update(skim(fetch(file, folder)))
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


def skim(path: Path) -> bytes:
    """Return the checksum of a file's length and of pieces all over it: two trainings differ everywhere, and all of a large file takes seconds."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for piece in range(PIECES):
            file.seek(piece * max(size - PIECE_BYTES, 0) // (PIECES - 1))
            digest.update(file.read(PIECE_BYTES))
    return digest.digest()


def check_fit(path: Path, clip: Clip | None, prior: Prior | None, stages: tuple[UnetStage, ...]) -> None:
    """Make sure that the parts speak of embeddings of one width, and that each unet enlarges what the one before paints.

    Raises:
        Misconfigured: they do not.
    """
    if clip is not None and prior is not None and prior.net.dim != clip.width:
        raise Misconfigured(f"Model config {path}: the prior is {prior.net.dim} wide, CLIP {clip.width}. They must come from one training.")
    width = clip.width if clip is not None else prior.net.dim if prior is not None else None
    for number, stage in enumerate(stages, start=1):
        needs = stage.unet.image_embed_dim
        if width is not None and needs is not None and needs != width:
            raise Misconfigured(
                f"Model config {path}: unet {number} is told pictures in {needs} numbers, CLIP gives {width}. They must come from one training."
            )
    for number, (smaller, larger) in enumerate(zip(stages, stages[1:], strict=False), start=2):
        if larger.from_side != smaller.side:
            raise Misconfigured(
                f"Model config {path}: unet {number} enlarges from {larger.from_side} pixels, but unet {number - 1} paints {smaller.side}."
            )


def choose_device(name: str, configured: list[str] | str = "cuda:0") -> torch.device:
    """Find the device to paint on; "auto" is the config's first one where it is there, else the CPU.

    Raises:
        Misconfigured: CUDA is asked for and there is none, or no device has this name.
    """
    first = configured if isinstance(configured, str) else next(iter(configured), "cpu")
    wanted = first if name == "auto" else name
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise Misconfigured(f"'{wanted:.40}' is no device. Name cpu, cuda or cuda:0.") from None
    if device.type == "cpu":
        return device
    if device.type == "cuda" and torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count():
        return device
    if name == "auto":
        return torch.device("cpu")
    raise Misconfigured(f"device is '{wanted}', but torch sees no such GPU. Set device = \"auto\" or install the driver.")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Find the format that networks compute in; "auto" is bfloat16 on a GPU and float32 elsewhere.

    Raises:
        Misconfigured: no format has this name.
    """
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    if name not in DTYPES:
        raise Misconfigured(f"dtype is '{name:.40}'; it must be auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def read_vocabulary(file: File | None, folder: Path) -> tuple[str, ...]:
    """Read the words that a small model knows, one per line."""
    if file is None:
        return ()
    path = fetch(file, folder)
    try:
        return tuple(path.read_text(encoding="utf-8").split())
    except OSError as error:
        raise Misconfigured(f"Vocabulary {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"Vocabulary {path} is no text in UTF-8.") from None
