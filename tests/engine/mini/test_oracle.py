"""The same numbers as min-dalle 0.4.11, from the same files. These skip where the package is not installed; nothing of it runs elsewhere."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from engine.jobs import Request
from engine.mini import MiniSettings, Painter, decoding
from engine.mini.detokenizer import Detokenizer, Ladder, detokenize
from engine.mini.loading import check
from engine.mini.networks import Decoder, Encoder, Size
from engine.mini.painter import unpack
from engine.mini.tokenizer import Tokenizer
from engine.pictures import read_receipt
from engine.unclip.checkpoints import Checkpoint, read_checkpoint
from tests.engine.mini.conftest import EXTRA_CODES, SIZE, Package, files_of

CODES = 2**14
"""The package counts so many codes whatever its files hold."""
TRUE_LADDER = Ladder(CODES, 256, 512, (512, 256, 256, 128, 128), (True, False, False, False, False))
NARROW = Ladder(CODES, 256, 512, (512, 32, 32, 32, 32), (True, False, False, False, False))
"""The true one with fewer channels where it has many pixels. The others are written into the package."""
PROMPT = "the red cat, 3 dogs & 🦊"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with the true number of codes."""
    return files_of(tmp_path_factory.mktemp("oracle"), replace(SIZE, codes=CODES), NARROW).parent


@pytest.fixture(scope="module")
def ours(folder: Path) -> Painter:
    """That model in our hands."""
    return Painter.from_config(folder / "tiny.json", device="cpu", dtype="float32")


class Theirs:
    """That model in the package's hands."""

    def __init__(self, package: Package, folder: Path) -> None:
        vocabulary = json.loads((folder / "vocab.json").read_text())
        self.tokenizer = package.tokenizer.TextTokenizer(vocabulary, (folder / "merges.txt").read_text().split("\n")[1:-1])
        shape = {"embed_count": SIZE.width, "attention_head_count": SIZE.heads, "glu_embed_count": SIZE.glu, "layer_count": SIZE.layers}
        texts = {"text_vocab_count": SIZE.texts, "text_token_count": SIZE.reads}
        self.encoder = package.encoder.DalleBartEncoder(**shape, **texts, device="cpu").eval()
        self.decoder = package.decoder.DalleBartDecoder(image_vocab_count=CODES + EXTRA_CODES - 1, **shape, device="cpu").eval()
        self.detokenizer = narrowed(package.detokenizer)
        for network, name in ((self.encoder, "encoder"), (self.decoder, "decoder"), (self.detokenizer, "detoker")):
            network.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))

    def rows(self, prompt: str) -> Tensor:
        """Both rows of text: the empty prompt and the prompt."""
        ids = self.tokenizer.tokenize(prompt)
        rows = torch.ones(2, 64, dtype=torch.long)
        rows[0, :2] = torch.tensor([ids[0], ids[-1]])
        rows[1, : len(ids)] = torch.tensor(ids)
        return rows

    def paint(self, prompt: str, count: int, temperature: float, top_k: int, guidance: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield guided logits, (B, codes), and tokens, (B,), of each step."""
        rows = self.rows(prompt)
        pairs = [0] * count + [1] * count
        states, mask = self.encoder(rows)[pairs], rows[pairs].not_equal(1)[:, None, None, :]
        memory = torch.zeros(SIZE.layers, count * 4, 256, SIZE.width)
        tokens = torch.full((count, 257), CODES - 1)
        heard: list[Tensor] = []
        self.decoder.lm_head.register_forward_hook(lambda module, args, output: heard.append(output.clone()))
        for index in range(256):
            tokens[:, index + 1], memory = self.decoder.sample_tokens(
                settings=torch.tensor([temperature, top_k, guidance]),
                attention_mask=mask,
                encoder_state=states,
                attention_state=memory,
                prev_tokens=tokens[:, [index]],
                token_index=torch.tensor([index]),
            )
            logits = heard.pop()[:, -1, :CODES]
            yield logits[:count] * (1 - guidance) + logits[count:] * guidance, tokens[:, index + 1]


def narrowed(module: Any) -> Any:
    """The package's detokenizer with the channels of NARROW."""
    network = module.VQGanDetokenizer()
    levels = [module.UpsampleBlock(5, 5, False, index > 0) for index in range(3)]
    network.decoder.up = torch.nn.ModuleList([*levels, module.UpsampleBlock(9, 5, False, True), module.UpsampleBlock(9, 9, True, True)])
    network.decoder.norm_out = torch.nn.GroupNorm(32, 32)
    network.decoder.conv_out = torch.nn.Conv2d(32, 3, 3, padding=1)
    return network.eval()


@pytest.fixture(scope="module")
def theirs(package: Package, folder: Path) -> Theirs:
    """That model in the package's hands."""
    return Theirs(package, folder)


@st.composite
def chains(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Merges of what other merges join, the better ones not always first."""
    pieces, merges = ["a", "b", "c", "\u0120"], []
    for _ in range(draw(st.integers(1, 12))):
        left, right = draw(st.sampled_from(pieces)), draw(st.sampled_from(pieces))
        merges.append((left, right))
        pieces.append(left + right)
    return draw(st.permutations(merges)) if draw(st.booleans()) else merges


PIECES = st.text(alphabet="abc \u0120", min_size=1, max_size=3)
TEXTS = st.text(max_size=60) | st.text(alphabet="abc cat dog the \u0120\n-_🦊👩‍🚀❤️🇺🇳ÄßİK\ud83d\udc00", max_size=60) | st.emails()


@settings(deadline=None, max_examples=300)
@given(TEXTS)
def test_any_text_has_the_ids_of_the_package(theirs: Theirs, ours: Painter, text: str) -> None:
    ids = theirs.tokenizer.tokenize(text)
    assert ours.parts.tokenizer.tokenize(text) == ids
    assert ours.parts.tokenizer.read(text, 64) == (ids if len(ids) <= 64 else [*ids[:63], ids[-1]])


@settings(deadline=None, max_examples=300)
@given(merges=st.lists(st.tuples(PIECES, PIECES), max_size=25) | chains(), words=st.lists(st.text(alphabet="abc", max_size=30), max_size=4))
def test_any_merges_cut_words_as_the_package_does(package: Package, merges: list[tuple[str, str]], words: list[str]) -> None:
    # Also merges that no training would bring forth: better ones of what worse ones join, several of one pair, pieces with gaps.
    lines = [" ".join(merge) for merge in merges]
    pieces = {first + second for first, second in merges} | set("abc\u0120")
    vocabulary = {piece: number for number, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *sorted(pieces)])}
    text = " ".join(words)
    assert Tokenizer(vocabulary, lines).tokenize(text) == package.tokenizer.TextTokenizer(vocabulary, lines).tokenize(text)


@torch.inference_mode()
def test_a_prompt_is_read_like_by_the_package_and_without_its_padding(theirs: Theirs, ours: Painter) -> None:
    rows = theirs.rows(PROMPT)
    ids = rows[1][rows[1] != 1]
    states = ours.parts.encoder.take()(ids[None], torch.ones(1, len(ids), dtype=torch.bool))
    assert torch.allclose(states[0], theirs.encoder(rows)[1, : len(ids)], atol=1e-5)


@torch.inference_mode()
def test_the_logits_of_every_step_are_those_of_the_package(theirs: Theirs, ours: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = list(theirs.paint(PROMPT, 2, 1.0, 40, 16.0))
    heard = []

    def follow(logits: Tensor, *ignored: object) -> Tensor:
        """Take the package's token, and note what ours would be drawn from."""
        heard.append(logits)
        return steps[len(heard) - 1][1]

    monkeypatch.setattr(decoding, "choose", follow)
    batch = decoding.Batch(ours.parts.decoder.take(), ours.read(""))
    for seed in range(2):
        batch.join(decoding.Sample(ours.read(PROMPT), seed, decoding.Drawing(1.0, 40, 16.0)))
    while batch.samples:
        batch.step()
    assert len(heard) == 256
    worst = max(float((one - other).abs().max()) for one, (other, _) in zip(heard, steps, strict=True))
    assert worst < 1e-4, worst
    # They differ from each other, and from step to step: nothing here compares constants.
    assert float((steps[0][0] - steps[255][0]).abs().max()) > 1


@torch.inference_mode()
def test_the_likeliest_tokens_are_all_those_of_the_package(theirs: Theirs, ours: Painter) -> None:
    expected = [int(tokens[0]) for _, tokens in theirs.paint(PROMPT, 1, 1.0, 1, 16.0)]
    painting = ours.paint(Request(PROMPT, seed=5, count=2), settings=MiniSettings(top_k=1))
    for picture in painting.pictures:
        assert list(unpack(read_receipt(picture.png)["tokens"])) == expected
    assert len(set(expected)) > 20


@torch.inference_mode()
def test_codes_have_the_colours_of_the_package(theirs: Theirs, ours: Painter) -> None:
    codes = torch.randint(CODES, (4, 256), generator=torch.Generator().manual_seed(1))
    sheet = theirs.detokenizer(False, codes)
    painted = detokenize(ours.parts.detokenizer.take(), codes) * 255
    for index, picture in enumerate(painted):
        # The package lays its grid out column by column.
        row, column = index % 2, index // 2
        expected = sheet[row * 256 : (row + 1) * 256, column * 256 : (column + 1) * 256]
        assert (picture.permute(1, 2, 0) - expected).abs().max() <= 0.1
    assert sheet.std() > 10


@torch.inference_mode()
def test_a_grid_without_seams_is_that_of_the_package(theirs: Theirs, ours: Painter) -> None:
    codes = torch.randint(CODES, (4, 256), generator=torch.Generator().manual_seed(2))
    by_columns = codes.view(2, 2, 256).transpose(0, 1).flatten(0, 1)
    expected = theirs.detokenizer(True, by_columns)
    painted = detokenize(ours.parts.detokenizer.take(), codes, columns=2) * 255
    sheet = torch.cat([torch.cat([painted[0], painted[1]], 2), torch.cat([painted[2], painted[3]], 2)], 1).permute(1, 2, 0)
    assert (sheet - expected).abs().max() <= 0.1
    # By themselves the pictures would be others at the seams.
    assert (detokenize(ours.parts.detokenizer.take(), codes)[0] * 255 - painted[0]).abs().max() > 5


@torch.inference_mode()
def test_finished_pictures_are_those_of_the_package(theirs: Theirs, ours: Painter) -> None:
    [picture] = ours.paint(Request(PROMPT, seed=11, count=1)).pictures
    tokens = unpack(read_receipt(picture.png)["tokens"])
    expected = theirs.detokenizer(False, torch.tensor([tokens]))
    picture_of = ours.images([torch.tensor(tokens)])[0]
    assert np.abs(np.asarray(picture_of).astype(float) - expected.numpy()).max() <= 1
    assert Image.open(io.BytesIO(picture.png)).tobytes() == picture_of.tobytes()


@pytest.mark.parametrize(
    ("layers", "width", "heads", "glu", "texts", "codes"),
    [(12, 1024, 16, 2730, 50264, 16384), (24, 2048, 32, 4096, 50272, 16415)],
    ids=["mini", "mega"],
)
def test_files_of_the_true_sizes_are_those_that_we_ask_for(
    package: Package, layers: int, width: int, heads: int, glu: int, texts: int, codes: int
) -> None:
    shape = {"embed_count": width, "attention_head_count": heads, "glu_embed_count": glu, "layer_count": layers, "device": "meta"}
    with torch.device("meta"):
        encoder = package.encoder.DalleBartEncoder(**shape, text_vocab_count=texts, text_token_count=64).state_dict()
        decoder = package.decoder.DalleBartDecoder(**shape, image_vocab_count=codes).state_dict()
        detokenizer = package.detokenizer.VQGanDetokenizer().state_dict()
        size = Size(layers, width, heads, glu, texts, 64, CODES, 256)
        assert Ladder.of(detokenizer) == TRUE_LADDER
        trimmed = {key: value[:CODES] if key in ("embed_tokens.weight", "lm_head.weight") else value for key, value in decoder.items()}
        for network, weights in ((Encoder(size), encoder), (Decoder(size), trimmed), (Detokenizer(TRUE_LADDER), detokenizer)):
            check(network, Checkpoint(Path("weights.pt"), weights, None, None))
            rows = sum(value.numel() for value in network.state_dict().values())
            assert rows == sum(value.numel() for value in weights.values())


def test_the_package_s_own_files_are_read_without_running_code(folder: Path) -> None:
    checkpoint = read_checkpoint(folder / "decoder.pt")
    assert checkpoint.weights["lm_head.weight"].dtype is torch.float16
    assert len(checkpoint.weights["lm_head.weight"]) == CODES + EXTRA_CODES
