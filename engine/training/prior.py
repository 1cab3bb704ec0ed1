"""The diffusion prior: from a caption to the embedding of its picture."""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from engine.errors import Misconfigured
from engine.training.configs import PriorRun
from engine.training.library import build_prior
from engine.training.loop import Part
from engine.training.saving import write_networks
from engine.training.source import Batch
from engine.training.start import fill_prior, weights_of
from engine.training.teacher import Teacher
from engine.unclip.clip import Clip
from engine.unclip.dialects import LATEST


class PriorTrainee:
    """The library's prior in training, on the text of a CLIP that stays as it is."""

    def __init__(self, run: PriorRun, clip: Clip, base: Path | None = None) -> None:
        """Build it, from a checkpoint where the config names one; `base` is the train config for one that carries none.

        Raises:
            Misconfigured: the config describes no prior, or the checkpoint or CLIP does not fit it.
        """
        self.run, self.clip = run, clip
        config = run.prior.model_dump()
        if run.prior.image_embed_dim != clip.width:
            raise Misconfigured(f"prior.image_embed_dim is {run.prior.image_embed_dim}, CLIP gives {clip.width}. They must be the same.")
        self.prior = build_prior(config)
        self.release = LATEST
        if run.train.load_from is not None:
            self.release = fill_prior(self.prior, Path(run.train.load_from), base)
        self.parts = {"prior": Part(self.prior, run.train.lr, run.train.wd)}
        self.teacher: Teacher | None = None

    def keep(self, new: frozenset[str]) -> None:
        """Learn what captions are new, and go on answering the others as now."""
        self.teacher = Teacher(self.prior.net, self.prior.noise_scheduler, new)

    def loss(self, name: str, batch: Batch) -> Tensor:
        """Predict the embeddings of pictures from their noise and captions. Source: Ramesh et al. 2022, arXiv:2204.06125, section 2.2."""
        assert batch.embeds is not None
        if self.teacher is not None:
            self.teacher.hear(batch.captions)
        loss: Tensor = self.prior(**self.read(batch), image_embed=batch.embeds.clone())
        return loss

    @torch.no_grad()
    def read(self, batch: Batch) -> dict[str, Tensor]:
        """Read the captions of a batch: what the library's prior is told of them."""
        assert batch.embeds is not None
        text = self.clip.embed_text(self.clip.tokenize(batch.captions).to(batch.embeds.device))
        return {"text_embed": text.embed, "text_encodings": text.encodings}

    def measure(self, batches: Iterator[Batch]) -> dict[str, float]:
        """Return the loss, and how like the drawn embeddings are to those of the pictures and of the captions."""
        losses: list[float] = []
        likeness: dict[str, float] = {}
        steps = min(self.run.train.eval_timesteps)
        for index, batch in enumerate(batches):
            assert batch.embeds is not None
            losses.append(float(self.loss("prior", batch)))
            if index == 0 and len(batch) > 1:
                text = self.read(batch)
                drawn = self.prior.p_sample_loop(batch.embeds.shape, text_cond=text, timesteps=steps)
                others = {"": batch.embeds, " to others": batch.embeds.roll(1, 0), " to caption": text["text_embed"]}
                likeness = {f"likeness{of}": float(F.cosine_similarity(drawn, embeds).mean()) for of, embeds in others.items()}
        return ({"loss": sum(losses) / len(losses)} if losses else {}) | likeness

    def show(self, batch: Batch) -> Image.Image | None:
        """There is nothing to see."""
        return None

    def write(self, folder: Path, name: str) -> None:
        """Write the prior as the library's trainer does."""
        write_networks(folder, name, weights_of(self.prior), self.run.model_dump(mode="json"), self.release)
