"""A config's files into what paints with them: the tokenizer, three networks, and what is used where nobody asks for anything else."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.files import fetch
from engine.mini.config import Usual, read_mini_config
from engine.mini.detokenizer import Detokenizer, detokenize
from engine.mini.loading import Shelf, agreed, shelves
from engine.mini.networks import Decoder, Encoder, Size
from engine.mini.tokenizer import PADDING, Tokenizer
from engine.unclip.checkpoints import read_checkpoint
from engine.unclip.memory import Room, choose_lodging
from engine.unclip.model import choose_device, choose_dtype


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model."""

    name: str
    tokenizer: Tokenizer
    encoder: Shelf[Encoder]
    decoder: Shelf[Decoder]
    detokenizer: Shelf[Detokenizer]
    size: Size
    side: int
    usual: Usual
    device: torch.device
    room: Room

    @classmethod
    def from_config(cls, path: Path, device: str = "auto", dtype: str = "auto", memory: str = "auto") -> "Model":
        """Load what a config names, fetching what is not here yet; for the arguments see `Painter.from_config`.

        Raises:
            Misconfigured: a file is missing, damaged or does not fit the others, or there is no such device.
        """
        config = read_mini_config(path)
        chosen = choose_device(device, config.devices)
        number_format = choose_dtype(config.dtype if dtype == "auto" else dtype, chosen)
        wanted = {"release": "offload"}.get(config.memory, config.memory) if memory == "auto" else memory
        vocabulary, merges, *weights = (fetch(file, path.parent) for file in config.files)
        tokenizer = Tokenizer.from_files(vocabulary, merges)
        files = agreed(config, path.name, tokenizer, *map(read_checkpoint, weights))
        networks = shelves(files, number_format, chosen, lambda needed: choose_lodging(chosen, needed, wanted).is_resident)
        side = round(files.size.paints**0.5) * 2 ** (len(files.ladder.channels) - 1)
        return cls(path.stem, tokenizer, *networks, files.size, side, config.usual, chosen, Room())

    def read(self, texts: Sequence[str]) -> list[Tensor]:
        """Return what the decoder remembers of each text, (layers, T, 2, heads, depth), of its own length."""
        encoder, decoder = self.encoder.take(), self.decoder.take()
        read = []
        for text in texts:
            ids = torch.tensor([self.tokenizer.read(text, self.size.reads)], device=self.device)
            seen = ids != PADDING
            # What is not looked at need not be remembered.
            read.append(decoder.remember(encoder(ids, seen)[seen]))
        self.encoder.put_back()
        return read

    def paint(self, codes: Tensor, columns: int = 0) -> Tensor:
        """Return pictures, (B, 3, H, W) float in [0, 1], from their tokens, (B, tokens) int64; see `detokenize`."""
        network = self.detokenizer.take()
        if columns:
            return detokenize(network, codes, columns)
        return self.room.fill(len(codes), lambda rows: detokenize(network, codes[rows]), self.device)
