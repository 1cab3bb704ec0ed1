"""min-dalle's files into networks: what size they are, whether they belong together, and reading them when they are needed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from engine.errors import Misconfigured
from engine.mini.config import MiniConfig
from engine.mini.detokenizer import Detokenizer, Ladder
from engine.mini.networks import FUSED, Decoder, Encoder, Size
from engine.mini.tokenizer import Tokenizer
from engine.unclip.checkpoints import Checkpoint, differences, forget_pages
from engine.unclip.packing import pack

TRIMMED = ("embed_tokens.weight", "lm_head.weight")
"""Of the decoder: rows for codes that no detokenizer has colours for are not read."""

N = TypeVar("N", bound=nn.Module)


class Shelf(Generic[N]):
    """A network that is read from its file when it is needed, and let go when it is put back, unless it is to be kept.

    Raises:
        Misconfigured: the file is not that of such a network; told at once, before anything of it is read.
    """

    def __init__(self, build: Callable[[], N], source: Checkpoint, dtype: torch.dtype, device: torch.device) -> None:
        self._build, self._source, self._dtype, self._device = build, source, dtype, device
        self._network: N | None = None
        self._is_kept = False
        with torch.device("meta"):
            check(build(), source)

    @property
    def weights_bytes(self) -> int:
        """What the network takes in memory."""
        with torch.device("meta"):
            return sum(value.numel() for value in self._build().parameters()) * self._dtype.itemsize

    @property
    def is_loaded(self) -> bool:
        """Whether the network is in memory."""
        return self._network is not None

    def take(self) -> N:
        """Return the network.

        Raises:
            Misconfigured: its file holds values that are no numbers.
        """
        if self._network is None:
            with torch.device("meta"):
                network = self._build()
            fill(network, self._source, self._dtype, self._device)
            self._network = network
        return self._network

    def keep(self) -> None:
        """Read the network now, for good.

        Raises:
            Misconfigured: its file holds values that are no numbers.
        """
        self._is_kept = True
        self.take()

    def put_back(self) -> None:
        """Let the network go, unless it is kept."""
        if not self._is_kept:
            self._network = None


@dataclass(frozen=True, slots=True)
class Files:
    """A model's weights, memory-mapped, and the size that they all agree on."""

    size: Size
    ladder: Ladder
    encoder: Checkpoint
    decoder: Checkpoint
    detokenizer: Checkpoint


def agreed(config: MiniConfig, name: str, tokenizer: Tokenizer, encoder: Checkpoint, decoder: Checkpoint, detokenizer: Checkpoint) -> Files:
    """Read the size off the files and make sure that they, the config called `name` and the vocabulary are of one model.

    Raises:
        Misconfigured: they are not.
    """
    read, painted = encoder.weights, decoder.weights
    # An encoder's names are among a decoder's, so that one would be taken for the other.
    if "lm_head.weight" in read:
        raise Misconfigured(f"Weights {encoder.path} are those of a decoder; the encoder's belong there. Check the files in the model config.")
    try:
        ladder = Ladder.of(detokenizer.weights)
    except (KeyError, ValueError):
        raise Misconfigured(f"Weights {detokenizer.path} are no detokenizer of min-dalle's. Check the files in the model config.") from None
    for checkpoint in (encoder, decoder):
        layers, width = layers_of(checkpoint.weights), len(checkpoint.weights.get("final_ln.weight", ()))
        if (layers, width) != (config.layers, config.width):
            raise Misconfigured(
                f"Weights {checkpoint.path} have {layers} layers and are {width} wide, but model config {name} is for {config.layers} layers and "
                f"{config.width}. Name the files of one model, and its size."
            )
    try:
        size = Size(
            layers=config.layers,
            width=config.width,
            heads=config.heads,
            glu=len(painted["layers.0.glu.fc0.weight"]),
            texts=len(read["embed_tokens.weight"]),
            reads=len(read["embed_positions.weight"]),
            codes=ladder.codes,
            paints=len(painted["embed_positions.weight"]),
        )
    except KeyError as error:
        raise Misconfigured(f"Weights {encoder.path} or {decoder.path} lack {error.args[0]}. Restore the files.") from None
    if tokenizer.largest >= size.texts:
        raise Misconfigured(
            f"The vocabulary of model config {name} counts up to {tokenizer.largest}, but {encoder.path} knows {size.texts} ids. "
            "Name the files of one model."
        )
    if round(size.paints**0.5) ** 2 != size.paints or size.reads < 2:
        raise Misconfigured(f"Weights {decoder.path} paint {size.paints} codes, which are no square. Restore the file.")
    trimmed = {key: value[: size.codes] if key in TRIMMED else value for key, value in painted.items()}
    return Files(size, ladder, encoder, Checkpoint(decoder.path, trimmed, None, None), detokenizer)


def layers_of(weights: Mapping[str, Tensor]) -> int:
    """Count a transformer's layers."""
    return len({key.split(".")[1] for key in weights if key.startswith("layers.")})


def parts_of(key: str) -> tuple[str, ...]:
    """Return under which names a file has a tensor of ours, in the order of its rows."""
    fused = next((name for name in FUSED if f".{name}." in key), None)
    return (key,) if fused is None else tuple(key.replace(fused, part) for part in FUSED[fused])


def check(network: nn.Module, source: Checkpoint) -> None:
    """Make sure that a file holds what a network needs. Tensors that it does not need are no fault: min-dalle reads files that way.

    Raises:
        Misconfigured: it does not.
    """
    wanted: dict[str, tuple[int, ...]] = {}
    for key, value in network.state_dict().items():
        parts = parts_of(key)
        wanted |= dict.fromkeys(parts, (len(value) // len(parts), *value.shape[1:]))
    if findings := differences(wanted, source.weights, strict=False):
        raise Misconfigured(f"Weights {source.path} are those of another network: {findings}.")


def fill(network: nn.Module, source: Checkpoint, dtype: torch.dtype, device: torch.device) -> None:
    """Put a file's weights into a network on the meta device, tensor by tensor, so that no second copy of the file builds up.

    Raises:
        Misconfigured: a tensor holds what is no number.
    """
    filled = {}
    for key, value in network.state_dict().items():
        parts = parts_of(key)
        # Strides too are the network's.
        filled[key] = torch.empty_like(value, dtype=dtype, device=device)
        for rows, part in zip(filled[key].split(len(value) // len(parts)), parts, strict=True):
            stored = source.weights[part]
            rows.copy_(stored)
            if not torch.isfinite(rows).all():
                raise Misconfigured(f"Weights {source.path}: {part} holds values that are no numbers in {str(dtype).removeprefix('torch.')}.")
            forget_pages(stored)
    network.load_state_dict(filled, strict=True, assign=True)
    network.eval().requires_grad_(False)
    pack(network)


def shelves(
    files: Files, dtype: torch.dtype, device: torch.device, stays: Callable[[int], bool]
) -> tuple[Shelf[Encoder], Shelf[Decoder], Shelf[Detokenizer]]:
    """Set up the three networks; `stays` decides, by their bytes, whether they remain in memory, and if so they are read now.

    Raises:
        Misconfigured: a file is not that of its network.
    """
    # A CPU has no faster half precision for convolutions, and colours are what people look at.
    colours = dtype if device.type == "cuda" else torch.float32
    encoder = Shelf(lambda: Encoder(files.size), files.encoder, dtype, device)
    decoder = Shelf(lambda: Decoder(files.size), files.decoder, dtype, device)
    detokenizer = Shelf(lambda: Detokenizer(files.ladder).to(memory_format=torch.channels_last), files.detokenizer, colours, device)
    if stays(encoder.weights_bytes + decoder.weights_bytes + detokenizer.weights_bytes):
        encoder.keep()
        decoder.keep()
        detokenizer.keep()
    return encoder, decoder, detokenizer
