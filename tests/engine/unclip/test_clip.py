"""Every CLIP that a config can name, against the library's adapters around the same weights. Tiny random models; tolerance 1e-5."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import dalle2_pytorch.dalle2_pytorch as library
import open_clip
import packaging.version
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from x_clip import CLIP as XClipModel

from engine.errors import InvalidRequest, Misconfigured
from engine.unclip import clip as module
from engine.unclip.clip import OpenClip, load_clip, usual_tag
from engine.unclip.config import ClipSource

# OpenAI's package looks for a module that setuptools has dropped.
sys.modules.setdefault("pkg_resources", types.SimpleNamespace(packaging=packaging))  # type: ignore[arg-type]  # has all that is looked for
from clip.model import CLIP as OpenAiModel  # noqa: E402
from clip.simple_tokenizer import SimpleTokenizer as OpenAiTokenizer  # noqa: E402

TOLERANCE = 1e-5
OPENAI_TEXTS = ["a fox", "a big fox! on a hill, 1000 times", ""]
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PREPROCESS = {key: list(value) for key, value in module.IMAGENET_OF_CLIP.items()}


def load(make: str, model: str, folder: Path = Path("."), **options: Any) -> module.Clip:
    carried = options.pop("carried", None)
    dtype = options.pop("dtype", torch.float32)
    return load_clip(ClipSource(make=make, model=model, **options), folder, dtype=dtype, device="cpu", carried=carried)


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))
    return model.eval().float()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for the Hub: names, configs and weights of a tiny model."""
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: CONFIG)
    monkeypatch.setattr(module, "download_pretrained", lambda facts: str(tmp_path / "weights.safetensors"))
    return tmp_path / "weights.safetensors"


class Preprocess:
    """What openai's package returns beside a model, as far as the adapter looks at it."""

    def __init__(self) -> None:
        from torchvision.transforms import Normalize

        self.transforms = [Normalize(PREPROCESS["mean"], PREPROCESS["std"])]


def check_equal(ours: module.Clip, adapter: Any, tokens: torch.Tensor, pictures: torch.Tensor) -> None:
    with torch.no_grad():
        text, expected = ours.embed_text(tokens), adapter.embed_text(tokens)
        assert (text.embed - expected.text_embed).abs().max() < TOLERANCE
        assert (text.encodings - expected.text_encodings).abs().max() < TOLERANCE
        assert (ours.embed_image(pictures) - adapter.embed_image(pictures).image_embed).abs().max() < TOLERANCE
    assert text.encodings.std() > 0.01 and text.embed.std() > 0.01


def test_openais_models_answer_as_openais_package_does(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = randomised(OpenAiModel(16, 32, 2, 64, 16, 77, 49408, 32, 2, 2))
    monkeypatch.setattr("clip.load", lambda name: (theirs, Preprocess()))
    # OpenAI's vision tower has heads of 64, one here; ours has as many.
    monkeypatch.setitem(CONFIG["vision_cfg"], "head_width", 64)
    save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, hub)
    ours = load("openai", "ViT-L/14")
    tokens = ours.tokenize(["a fox", "a big fox on a hill"])
    check_equal(ours, library.OpenAIClipAdapter("ViT-L/14"), tokens, torch.rand(2, 3, 32, 32))
    assert (ours.width, ours.side) == (16, 32)


@pytest.mark.parametrize("name", ["ViT-H-14/laion2b_s32b_b79k", "ViT-H-14"])
def test_open_clips_models_answer_as_the_librarys_adapter_does(hub: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    theirs = randomised(open_clip.CLIP(**CONFIG))
    monkeypatch.setattr(open_clip, "create_model_and_transforms", lambda *names, **options: (theirs, None, Preprocess()))
    save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, hub)
    ours = load("open_clip", name)
    check_equal(ours, library.OpenClipAdapter(), ours.tokenize(["a fox", "a big fox on a hill"]), torch.rand(2, 3, 32, 32))


def test_a_folder_in_open_clips_format_is_relative_to_the_config(tmp_path: Path) -> None:
    theirs = randomised(open_clip.CLIP(**CONFIG))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": PREPROCESS}))
    save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, tmp_path / "mine" / "open_clip_model.safetensors")
    ours = load("open_clip", "local-dir:mine", tmp_path)
    tokens = ours.tokenize(["a fox"])
    with torch.no_grad():
        assert torch.equal(ours.embed_text(tokens).embed, torch.nn.functional.normalize(theirs.encode_text(tokens), dim=-1))
    half = load("open_clip", "local-dir:mine", tmp_path, dtype=torch.bfloat16)
    with torch.no_grad():
        assert (half.embed_text(tokens).embed - ours.embed_text(tokens).embed).abs().max() < 0.05
        assert half.embed_image(torch.rand(1, 3, 32, 32)).dtype == torch.float32


def test_an_x_clip_inside_of_a_checkpoint_answers_as_the_library_does() -> None:
    options = {
        "dim_text": 16, "dim_image": 16, "dim_latent": 16, "num_text_tokens": 49408, "text_enc_depth": 1, "text_seq_len": 12, "text_heads": 2,
        "visual_enc_depth": 1, "visual_heads": 2, "visual_image_size": 32, "visual_patch_size": 16, "visual_patch_dropout": 0.0,
    }  # fmt: skip
    theirs = randomised(XClipModel(**options))
    carried = {f"clip.{key}": value for key, value in theirs.state_dict().items()}
    ours = load("x-clip", "", base_model_kwargs=options, carried=carried)
    check_equal(ours, library.XClipAdapter(theirs), ours.tokenize(["a fox", "a big fox on a hill"]), torch.rand(2, 3, 32, 32))
    with pytest.raises(Misconfigured, match="another one than"):
        load("x-clip", "", base_model_kwargs=options | {"dim_latent": 8}, carried=carried)
    with pytest.raises(Misconfigured, match="describe no x-clip"):
        load("x-clip", "", base_model_kwargs={"visual_image_size": "large"}, carried=carried)


def test_a_coca_inside_of_a_checkpoint_reads_text_only() -> None:
    from coca_pytorch.coca_pytorch import CoCa as CoCaModel

    options = {"dim": 16, "num_tokens": 49408, "unimodal_depth": 1, "multimodal_depth": 1, "dim_head": 8, "heads": 2, "num_img_queries": 4}
    theirs = randomised(CoCaModel(**options))
    ours = load("coca", "", base_model_kwargs=options, carried={f"clip.{key}": value for key, value in theirs.state_dict().items()})
    tokens = ours.tokenize(["a fox", "a big fox on a hill"])
    adapter = library.CoCaAdapter(theirs, max_text_len=256, image_size=32, image_channels=3)
    with torch.no_grad():
        text, expected = ours.embed_text(tokens), adapter.embed_text(tokens)
    assert (text.embed - torch.nn.functional.normalize(expected.text_embed, dim=-1)).abs().max() < TOLERANCE
    assert (text.encodings - expected.text_encodings).abs().max() < TOLERANCE
    with pytest.raises(InvalidRequest, match="looks at pictures"):
        ours.embed_image(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("make", ["x-clip", "coca"])
def test_a_clip_that_no_checkpoint_carries_is_refused(make: str) -> None:
    with pytest.raises(Misconfigured, match="no checkpoint of this model carries"):
        load(make, "")


@pytest.mark.parametrize(
    ("make", "model", "says"),
    [
        ("openai", "ViT-L/15", "models with these weights are .*ViT-L-14"),
        ("open_clip", "ViT-L-14/nonsense", "its weights are .*laion2b"),
        ("open_clip", "nonsense", "not known"),
        ("open_clip", "local-dir:nowhere", "nowhere/open_clip_config.json is missing"),
    ],
)
def test_a_clip_that_nobody_knows_is_named(tmp_path: Path, make: str, model: str, says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        load(make, model, tmp_path)


@pytest.mark.parametrize(("make", "model"), [("openai", "ViT-L/14"), ("open_clip", "hf-hub:laion/CLIP-ViT-H-14")])
def test_a_clip_that_cannot_be_fetched_is_one_sentence(monkeypatch: pytest.MonkeyPatch, make: str, model: str) -> None:
    def unreachable(*ignored: object, **options: object) -> None:
        raise OSError("no network\nat all")

    monkeypatch.setattr(module, "download_pretrained", unreachable)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(Misconfigured, match="cannot be fetched: no network at all") as refused:
        load(make, model)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "tag"), [("ViT-L-14", "laion2b_s32b_b82k"), ("ViT-H-14", "laion2b_s32b_b79k"), ("ViT-B-32", "laion2b_s34b_b79k")])
def test_a_model_without_a_tag_has_laions_weights(name: str, tag: str) -> None:
    assert usual_tag(name) == tag


@pytest.fixture(scope="module")
def real_tokenizer() -> OpenClip:
    return OpenClip.from_config({"model_cfg": CONFIG, "preprocess_cfg": PREPROCESS}, Path("."))


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_has_the_tokens_that_openai_gives_it(real_tokenizer: OpenClip, text: str) -> None:
    theirs = OPENAI.encode(text)[:75]
    tokens = real_tokenizer.tokenize([text])[0].tolist()
    assert tokens == [49406, *theirs, 49407, *[0] * (75 - len(theirs))]


OPENAI = OpenAiTokenizer()


@pytest.mark.parametrize("text", ["a" * 10_000, "🦊" * 10_000, "\0" * 10_000, "!" * 10_000, " " * 10_000, "'" * 10_000, "a\u0301" * 5_000])
def test_long_texts_end_with_the_last_token_and_take_no_time(real_tokenizer: OpenClip, text: str) -> None:
    tokens = real_tokenizer.tokenize([text])[0]
    assert tokens[0] == 49406 and int(tokens.max()) == 49407
