"""CLIP: pictures and captions into one space."""

import json
import math
import re
import shutil
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from engine.errors import Misconfigured
from engine.training.configs import ClipRun
from engine.training.loop import Part
from engine.training.saving import write_tensors, write_whole
from engine.training.source import Batch
from engine.unclip.clip import OpenClip, filled_from, from_folder, load_clip
from engine.unclip.config import LOCAL_CLIP, read_json

LARGEST_LOGIT_SCALE = math.log(100)
"""Source: Radford et al. 2021, arXiv:2103.00020, section 2.5."""
MOST_WORDS = 3
"""Without meaning, that are put into a caption."""


class ClipTrainee:
    """A CLIP of open_clip's in training.

    One in a folder begins with random weights, one that open_clip knows or the Hub has with those, and either with a checkpoint's where the config
    names one.
    """

    def __init__(self, run: ClipRun, base: Path) -> None:
        """Build it; `base` is where the config lies.

        Raises:
            Misconfigured: it is no CLIP of open_clip, or its weights or the checkpoint's cannot be had.
        """
        self.run, self.folder = run, base / run.clip.model.removeprefix(LOCAL_CLIP)
        if run.clip.make not in ("open_clip", "openai"):
            raise Misconfigured(f"clip.make '{run.clip.make}' cannot be trained; open_clip and openai can.")
        if run.clip.model.startswith(LOCAL_CLIP):
            self.clip, _ = from_folder(self.folder)
        else:
            loaded = load_clip(run.clip, base, dtype=torch.float32, device="cpu")
            assert isinstance(loaded, OpenClip)
            self.clip = loaded
        if run.train.load_from is not None:
            filled_from(self.clip, Path(run.train.load_from), torch.float32, "cpu")
        model: Any = self.clip.model
        model.requires_grad_(True)
        if run.train.freeze_image:
            model.visual.requires_grad_(False)
        if run.train.freeze_text:
            for name, value in model.named_parameters():
                if not name.startswith("visual."):
                    value.requires_grad_(False)
        self.parts = {"clip": Part(self.clip, run.train.lr, run.train.wd)}

    def loss(self, name: str, batch: Batch) -> Tensor:
        """Contrast pictures with captions; every equal caption counts as a match, and confused ones are told apart.

        Source: Radford et al. 2021, arXiv:2103.00020, figure 3; hard negatives: Yuksekgonul et al. 2023, arXiv:2210.01936, section 4.
        """
        assert batch.pictures is not None
        model: Any = self.clip.model
        with torch.no_grad():
            model.logit_scale.clamp_(max=LARGEST_LOGIT_SCALE)
        rng, data = np.random.default_rng(int(torch.randint(2**31, ()))), self.run.data
        texts = batch.captions + list(filter(None, (confused(text, data.confusable, rng) for text in batch.captions)))
        return self.contrast(batch, texts, [wear(text, rng, data.typo_share, data.nonsense_share) for text in texts])[0]

    def contrast(self, batch: Batch, texts: list[str], worn: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, the likeness of every picture to every text, (B, T), and which are matches.

        The first B texts are the captions; `worn` is how the texts are read.
        """
        assert batch.pictures is not None
        model: Any = self.clip.model
        pictures = F.interpolate(batch.pictures, self.clip.side, mode="area") if batch.pictures.shape[-1] != self.clip.side else batch.pictures
        if self.clip.training and self.run.train.picture_noise:
            pictures = pictures + self.run.train.picture_noise * torch.randn(len(pictures), 3, 1, 1, device=pictures.device)
        text = self.clip.embed_text(self.clip.tokenize(worn).to(pictures.device)).embed
        logits = model.logit_scale.exp() * self.clip.embed_image(pictures) @ text.T
        matches = torch.tensor([[one == other for other in texts] for one in batch.captions], device=pictures.device).float()
        by_picture = F.cross_entropy(logits, matches / matches.sum(1, keepdim=True))
        own = matches[:, : len(batch)].T
        by_caption = F.cross_entropy(logits[:, : len(batch)].T, own / own.sum(1, keepdim=True))
        return (by_picture + by_caption) / 2, logits, matches

    def measure(self, batches: Iterator[Batch]) -> dict[str, float]:
        """Return the loss, how often a picture's nearest caption of a batch is its own, and how often it is nearer than the confused one."""
        losses, right, count = [], 0.0, 0
        rng, nearer = np.random.default_rng(0), []
        for batch in batches:
            if len(batch) < 2:
                continue
            others = [confused(text, self.run.data.confusable, rng) for text in batch.captions]
            texts = batch.captions + list(filter(None, others))
            loss, logits, matches = self.contrast(batch, texts, texts)
            losses.append(float(loss))
            right += float(matches.gather(1, logits[:, : len(batch)].argmax(1, keepdim=True)).sum())
            count += len(batch)
            asked = [place for place, other in enumerate(others) if other]
            nearer += [bool(logits[row, row] > logits[row, len(batch) + column]) for column, row in enumerate(asked)]
        told_apart = {"told_apart": float(np.mean(nearer))} if nearer else {}
        return {"loss": float(np.mean(losses)), "retrieval": right / count} | told_apart if losses else {}

    def show(self, batch: Batch) -> Image.Image | None:
        """There is nothing to see."""
        return None

    def write(self, folder: Path, name: str) -> None:
        """Write a folder in open_clip's format, which `local-dir:` names."""
        place = folder / name
        write_tensors(place / "open_clip_model.safetensors", self.clip.model.state_dict())
        if self.run.clip.model.startswith(LOCAL_CLIP):
            config = read_json(self.folder / "open_clip_config.json")
            tokenizer = config["model_cfg"]["text_cfg"].get("tokenizer_kwargs", {})
            if vocabulary := tokenizer.get("bpe_path"):
                tokenizer["bpe_path"] = Path(vocabulary).name
                shutil.copyfile(self.folder / vocabulary, place / tokenizer["bpe_path"])
            write_whole(place / "open_clip_config.json", lambda path: path.write_text(json.dumps(config, indent=2) + "\n"))


def confused(text: str, groups: Sequence[Sequence[str]], rng: np.random.Generator) -> str | None:
    """Put another phrase of its group in the place of one of a caption's, of any of the groups; None where it has none.

    Of phrases that overlap, that of the first group counts.
    """
    found: list[tuple[re.Match[str], Sequence[str]]] = []
    for group in groups:
        for phrase in group:
            match = re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text)
            if match and not any(match.start() < known.end() and known.start() < match.end() for known, _ in found):
                found.append((match, group))
    if not found:
        return None
    match, group = found[rng.integers(len(found))]
    others = [other for other in group if other != match.group()]
    return text[: match.start()] + others[rng.integers(len(others))] + text[match.end() :]


def wear(text: str, rng: np.random.Generator, typo_share: float, nonsense_share: float) -> str:
    """Misspell a word of a caption, sometimes, and put words of random letters into it, sometimes."""
    words = text.split()
    if rng.random() < typo_share:
        place = int(rng.integers(len(words)))
        words[place] = misspelt(words[place], rng)
    if rng.random() < nonsense_share:
        for _ in range(rng.integers(1, MOST_WORDS + 1)):
            word = "".join(rng.choice(list(string.ascii_lowercase), size=rng.integers(2, 9)))
            words.insert(int(rng.integers(len(words) + 1)), word)
    return " ".join(words)


def misspelt(word: str, rng: np.random.Generator) -> str:
    """Leave a letter out, double it, swap it with the next one, or take another one for it; words of three letters stay."""
    if len(word) < 4:
        return word
    at = int(rng.integers(1, len(word) - 1))
    match rng.integers(4):
        case 0:
            return word[:at] + word[at + 1 :]
        case 1:
            return word[:at] + word[at] + word[at:]
        case 2:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        case _:
            return word[:at] + str(rng.choice(list(string.ascii_lowercase))) + word[at + 1 :]
