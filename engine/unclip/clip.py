"""Text and pictures in one space: the CLIP that prior and decoder were trained on.

Dimensions: B batch, L tokens of the context, D embedding width, W text width, C = 3 channels, H = W = side of CLIP's own pictures.
"""

import contextlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.pretrained import download_pretrained
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from engine.errors import InvalidRequest, Misconfigured
from engine.unclip.checkpoints import differences, read_checkpoint
from engine.unclip.config import LOCAL_CLIP, ClipSource, read_json

HUB = "hf-hub:"
"""Before a name of open_clip's: a repository of the Hub in its format."""
KNOWN_PARTS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale", "init_logit_bias", "custom_text"}
"""Of a model config of open_clip; others belong to models that unCLIP was never trained on."""
IMAGENET_OF_CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
LAION_TAGS = ("laion2b", "laion400m")
"""Of open_clip's weights, those that unCLIP models were trained on are taken where the config names none, the last one first."""


@dataclass(frozen=True, slots=True)
class TextCondition:
    """What the prior is told about a prompt.

    Shapes:
        embed      (B, D) float, unit length
        encodings  (B, L, W) float, zero after the prompt's end
    """

    embed: Tensor
    encodings: Tensor


class Clip(nn.Module, ABC):
    """Any CLIP, behind the two questions that unCLIP asks."""

    tokenizer: SimpleTokenizer

    @property
    @abstractmethod
    def width(self) -> int:
        """D, the length of an embedding."""

    @property
    @abstractmethod
    def side(self) -> int:
        """Side of the pictures that it looks at, in pixels."""

    def tokenize(self, texts: list[str]) -> Tensor:
        """Turn texts into (B, L) int64, between a first and a last token; what does not fit into the context is cut off."""
        return self.tokenizer(texts)

    @abstractmethod
    def embed_text(self, tokens: Tensor) -> TextCondition:
        """Embed tokenized prompts, (B, L) int64."""

    @abstractmethod
    def embed_image(self, pictures: Tensor) -> Tensor:
        """Embed pictures, (B, C, H, W) float in [0, 1]: (B, D) float, unit length."""


class OpenClip(Clip):
    """An open_clip model with its own tokenizer, which OpenAI's models are too.

    Source: what `OpenClipAdapter` of dalle2-pytorch 1.15.6 hands to the prior, without its fixed vocabulary and its downloads.
    """

    def __init__(self, model_config: dict[str, Any], preprocess: dict[str, Any], folder: Path) -> None:
        super().__init__()
        text = dict(model_config["text_cfg"])
        tokenizer = dict(text.pop("tokenizer_kwargs", {}))
        if "bpe_path" in tokenizer:
            tokenizer["bpe_path"] = str(folder / tokenizer["bpe_path"])
        if unknown := [key for key in (*model_config.keys() - KNOWN_PARTS, *(key for key in text if key.startswith("hf_")))]:
            raise ValueError(f"{sorted(unknown)} belong to models that are no plain CLIP")
        self.tokenizer = SimpleTokenizer(context_length=text["context_length"], **tokenizer)
        if self.tokenizer.vocab_size != text["vocab_size"]:
            raise ValueError(f"the vocabulary has {self.tokenizer.vocab_size} tokens, vocab_size says {text['vocab_size']}")
        options = {key: model_config[key] for key in ("quick_gelu", "init_logit_scale", "init_logit_bias") if key in model_config}
        self.model = open_clip.CLIP(model_config["embed_dim"], model_config["vision_cfg"], text, **options)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(preprocess["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocess["std"]).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, config: dict[str, Any], folder: Path) -> "OpenClip":
        """Build the untrained model that an `open_clip_config.json` describes; `folder` is where it lies, and its vocabulary.

        Raises:
            Misconfigured: a part of the config is missing or not what open_clip expects, or the vocabulary cannot be read.
        """
        try:
            return cls(config["model_cfg"], config["preprocess_cfg"], folder)
        except (OSError, EOFError, zlib.error) as error:
            raise Misconfigured(f"The vocabulary that {folder / 'open_clip_config.json'} names as bpe_path cannot be read: {error}.") from None
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            raise Misconfigured(f"{folder / 'open_clip_config.json'} does not describe a CLIP of open_clip: {error!r}.") from None

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        return int(self.model.text_projection.shape[1])

    @property
    def side(self) -> int:
        """Side of the pictures that it looks at, in pixels."""
        size = self.model.visual.image_size
        return int(size if isinstance(size, int) else size[0])

    def embed_text(self, tokens: Tensor) -> TextCondition:
        """Embed tokenized prompts.

        Shapes:
            tokens  (B, L) int64

        Source: Radford et al. 2021, arXiv:2103.00020; masking as in dalle2-pytorch's CLIP adapters, so that padding is zero.
        """
        kept: list[Tensor] = []
        hook = self.model.ln_final.register_forward_hook(lambda module, inputs, output: kept.append(output))
        try:
            embed = F.normalize(self.model.encode_text(tokens).float(), dim=-1)
        finally:
            hook.remove()
        before_end = (tokens == self.tokenizer.eot_token_id).cumsum(dim=-1) == 0
        upto_end = F.pad(before_end, (1, -1), value=True) & (tokens != 0)
        return TextCondition(embed, kept[0].float() * upto_end[..., None])

    def embed_image(self, pictures: Tensor) -> Tensor:
        """Embed pictures.

        Shapes:
            pictures  (B, C, H, W) float in [0, 1]
            returns   (B, D) float, unit length
        """
        dtype = self.model.text_projection.dtype
        return F.normalize(self.model.encode_image(((pictures - self.mean) / self.std).to(dtype)).float(), dim=-1)


class FromLibrary(Clip):
    """A CLIP of another package, whose weights only a checkpoint that was trained with it carries."""

    def __init__(self, model: nn.Module, context_length: int) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = SimpleTokenizer(context_length=context_length)

    def tokenize(self, texts: list[str]) -> Tensor:
        """Turn texts into (B, L) int64 as the library does for these: without a first and a last token."""
        result = torch.zeros(len(texts), self.tokenizer.context_length, dtype=torch.long)
        for row, text in zip(result, texts, strict=True):
            tokens = self.tokenizer.encode(text)[: len(row)]
            row[: len(tokens)] = torch.tensor(tokens)
        return result


class XClip(FromLibrary):
    """lucidrains' x-clip. Source: dalle2-pytorch 1.15.6, `XClipAdapter`."""

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        model: Any = self.model
        return int(model.dim_latent)

    @property
    def side(self) -> int:
        """Side of the pictures that it looks at, in pixels."""
        model: Any = self.model
        return int(model.image_size)

    def embed_text(self, tokens: Tensor) -> TextCondition:
        """Embed tokenized prompts, (B, L) int64."""
        model: Any = self.model
        output = model.text_transformer(tokens)
        embed = F.normalize(model.to_text_latent(output[:, 0]).float(), dim=-1)
        return TextCondition(embed, output[:, 1:].float() * (tokens != 0)[..., None])

    def embed_image(self, pictures: Tensor) -> Tensor:
        """Embed pictures, (B, C, H, W) float in [0, 1]: (B, D) float, unit length."""
        model: Any = self.model
        output = model.visual_transformer(pictures.to(next(model.parameters()).dtype))
        return F.normalize(model.to_visual_latent(output[:, 0]).float(), dim=-1)


class CoCa(FromLibrary):
    """lucidrains' CoCa; a config cannot describe its picture encoder, so it reads text only. Source: dalle2-pytorch 1.15.6, `CoCaAdapter`."""

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        model: Any = self.model
        return int(model.text_cls_token.shape[0])

    @property
    def side(self) -> int:
        """No pictures are looked at."""
        return 0

    def embed_text(self, tokens: Tensor) -> TextCondition:
        """Embed tokenized prompts, (B, L) int64. Embeddings have unit length, which the library leaves undone here."""
        model: Any = self.model
        embed, encodings = model.embed_text(tokens)
        return TextCondition(F.normalize(embed.float(), dim=-1), encodings.float() * (tokens != 0)[..., None])

    def embed_image(self, pictures: Tensor) -> Tensor:
        """Refuse.

        Raises:
            InvalidRequest: always.
        """
        raise InvalidRequest("model", "have a CLIP that looks at pictures; CoCa's picture encoder cannot be described in a config")


def load_clip(source: ClipSource, folder: Path, *, dtype: torch.dtype, device: str, carried: Mapping[str, Tensor] | None = None) -> Clip:
    """Load the CLIP that a config names; `folder` is where the config lies.

    `carried` are the tensors of a checkpoint below `clip.`: x-clip and CoCa have no others.

    Raises:
        Misconfigured: no CLIP has this name, or its weights cannot be had.
    """
    match source.make:
        case "openai":
            name = source.model.replace("/", "-").replace("@", "-").removesuffix("px")
            clip, weights = published(name, "openai", source.model)
        case "open_clip" if source.model.startswith(LOCAL_CLIP):
            clip, weights = from_folder(folder / source.model.removeprefix(LOCAL_CLIP))
        case "open_clip" if source.model.startswith(HUB):
            clip, weights = from_hub(source.model.removeprefix(HUB))
        case "open_clip":
            name, _, tag = source.model.partition("/")
            clip, weights = published(name, tag or usual_tag(name), source.model)
        case _:
            return from_checkpoint(source, carried or {}, dtype, device)
    return filled_from(clip, weights, dtype, device)


def filled_from(clip: OpenClip, path: Path, dtype: torch.dtype, device: str) -> Clip:
    """Give a CLIP of open_clip's the weights of a file.

    Raises:
        Misconfigured: it cannot be read, or holds another CLIP.
    """
    saved = read_checkpoint(path).weights
    # What open_clip counts for itself is not always saved.
    wanted = {key: tuple(value.shape) for key, value in clip.model.state_dict().items()}
    if findings := differences(wanted, saved, strict=False):
        raise Misconfigured(f"Weights {path} are those of another CLIP: {findings}.")
    return filled(clip, {key: saved[key] for key in wanted}, path, dtype, device)


def filled(clip: Clip, weights: Mapping[str, Tensor], path: Path, dtype: torch.dtype, device: str) -> Clip:
    """Give a CLIP its weights and get it ready to look.

    Raises:
        Misconfigured: a tensor holds what is no number.
    """
    for key, value in weights.items():
        if not torch.isfinite(value).all():
            raise Misconfigured(f"Weights {path}: {key} holds values that are no numbers. Restore the file and start again.")
    model = clip.get_submodule("model")
    model.to(dtype).load_state_dict(dict(weights))
    return clip.eval().requires_grad_(False).to(device)


def from_folder(folder: Path) -> tuple[OpenClip, Path]:
    """Build the model of a folder in open_clip's format, and say where its weights are."""
    return OpenClip.from_config(read_json(folder / "open_clip_config.json"), folder), folder / "open_clip_model.safetensors"


def from_hub(repository: str) -> tuple[OpenClip, Path]:
    """Fetch a repository of the Hub in open_clip's format, build its model, and say where its weights are."""
    from huggingface_hub import hf_hub_download

    with plain_errors(f"CLIP {HUB}{repository}"):
        config = Path(hf_hub_download(repository, "open_clip_config.json"))
        weights = Path(hf_hub_download(repository, "open_clip_model.safetensors"))
    return OpenClip.from_config(read_json(config), config.parent), weights


def published(name: str, tag: str, asked: str) -> tuple[OpenClip, Path]:
    """Build a model that open_clip knows by name, fetch its weights, and say where they are.

    Raises:
        Misconfigured: open_clip knows no such model or weights, or they cannot be fetched.
    """
    tags = [known_tag for known_name, known_tag in open_clip.list_pretrained() if known_name == name]
    if tag not in tags:
        names = sorted({known_name for known_name, known_tag in open_clip.list_pretrained() if known_tag == tag})
        known = (
            f"its weights are {', '.join(tags)}" if tags else f"models with these weights are {', '.join(names[:20])}" if names else "see open_clip"
        )
        raise Misconfigured(f"clip.model '{asked:.60}' is not known: {known}.")
    facts = open_clip.get_pretrained_cfg(name, tag)
    config = dict(open_clip.get_model_config(name) or {})
    if facts.get("quick_gelu"):
        # OpenAI's models were trained with it, and so were those of its tag.
        config["quick_gelu"] = True
    preprocess = {key: facts.get(key, usual) for key, usual in IMAGENET_OF_CLIP.items()}
    clip = OpenClip.from_config({"model_cfg": config, "preprocess_cfg": preprocess}, Path(name))
    with plain_errors(f"CLIP {asked}"):
        return clip, Path(download_pretrained(facts))


def usual_tag(name: str) -> str:
    """Return which of open_clip's weights of a model are meant where a config names only the model.

    Source: dalle2-pytorch took the last of open_clip's list, which in 2022 were LAION's; today others stand behind them.
    """
    tags = [tag for known, tag in open_clip.list_pretrained() if known == name]
    return next((tag for start in LAION_TAGS for tag in reversed(tags) if tag.startswith(start)), tags[-1] if tags else "")


@contextlib.contextmanager
def plain_errors(what: str) -> Iterator[None]:
    """Turn whatever keeps a file of the Hub away into one sentence."""
    try:
        yield
    except Exception as error:
        # The Hub's client lets errors of the network, the disk and of its own through, of many kinds.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Misconfigured(f"{what} cannot be fetched: {reason:.200}. Check the name and the network; once fetched, it works offline.") from None


def from_checkpoint(source: ClipSource, carried: Mapping[str, Tensor], dtype: torch.dtype, device: str) -> Clip:
    """Build an x-clip or CoCa from its config and fill it with what a checkpoint carries.

    Raises:
        Misconfigured: the checkpoint carries none, the config does not describe it, or the package is not installed.
    """
    if not carried:
        raise Misconfigured(f"clip.make '{source.make}': no checkpoint of this model carries such a CLIP, and it is published nowhere else.")
    options = source.base_model_kwargs or {}
    try:
        clip: Clip
        if source.make == "x-clip":
            from x_clip import CLIP as XClipModel

            clip = XClip(XClipModel(**options), int(options.get("text_seq_len", 256)))
        else:
            from coca_pytorch.coca_pytorch import CoCa as CoCaModel

            clip = CoCa(CoCaModel(**options), 256)
    except ImportError:
        raise Misconfigured(f"clip.make '{source.make}' needs a package that is not installed: x-clip or CoCa-pytorch.") from None
    except (TypeError, ValueError, AssertionError, KeyError) as error:
        raise Misconfigured(f"clip.base_model_kwargs describe no {source.make}: {' '.join(str(error).split()):.160}.") from None
    weights = {key.removeprefix("clip."): value for key, value in carried.items()}
    wanted = {key: tuple(value.shape) for key, value in clip.get_submodule("model").state_dict().items()}
    if findings := differences(wanted, weights, strict=False):
        raise Misconfigured(f"The {source.make} that the checkpoint carries is another one than clip.base_model_kwargs describe: {findings}.")
    return filled(clip, {key: weights[key] for key in wanted}, Path("checkpoint"), dtype, device)
