"""What is trained, by the library's own modules: equal to them, loaded by them, and by `engine`."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dalle2_pytorch.train_configs import DecoderConfig, DiffusionPriorConfig
from PIL import Image
from safetensors.torch import load_file, save_file

from engine.errors import Misconfigured
from engine.training.clip import ClipTrainee, confused, misspelt, wear
from engine.training.configs import ClipRun, DecoderRun, read_run
from engine.training.curves import read_figures
from engine.training.decoder import DecoderTrainee, shrunk
from engine.training.library import build_prior
from engine.training.loop import seed_everything
from engine.training.saving import alone_in
from engine.training.source import Batch
from engine.training.start import by_drops, dropped, fill_prior, weights_of
from engine.unclip.clip import from_folder, load_clip
from engine.unclip.config import ClipSource
from engine.unclip.loading import load_decoder, load_prior
from tests.engine.training.training import CLIP, WIDTH, clip_config, decoder_config, prior_config, run_command, write_json, write_shards
from tests.engine.unclip.test_dialects import check_decoder, check_prior, fixture, models, state_dict


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


def a_batch(side: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(5)
    embeds = torch.nn.functional.normalize(torch.randn(4, WIDTH, generator=generator), dim=1)
    return Batch(torch.rand(4, 3, side, side, generator=generator), ["a"] * 4, embeds)


def trainee(tmp_path: Path, **train: Any) -> DecoderTrainee:
    return DecoderTrainee(read_run(DecoderRun, write_json(tmp_path / "train.json", decoder_config(tmp_path, **train)), {}), None)


def test_the_base_decoders_loss_is_the_librarys(tmp_path: Path) -> None:
    """At the size that the unet paints there is nothing to shrink; noise is drawn in the order in which pictures lie in memory."""
    ours, batch = trainee(tmp_path), a_batch(16)
    pictures = batch.pictures.contiguous(memory_format=torch.channels_last)
    seed_everything(1)
    expected = ours.decoder(pictures, image_embed=batch.embeds, unet_number=1)
    seed_everything(1)
    assert float(ours.loss("unet 1", batch).detach()) == pytest.approx(float(expected.detach()), abs=1e-6)


def test_pictures_are_shrunk_by_averaging_and_small_ones_refused() -> None:
    checks = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(4, 4)[None, None].expand(1, 3, 8, 8)
    assert torch.allclose(shrunk(checks, 4), torch.full((1, 3, 4, 4), 0.5))
    with pytest.raises(Misconfigured, match=r"The pictures are 8 × 8 px; the config paints 16\. Make shards with --side 16"):
        shrunk(checks, 16)


def test_an_upsampler_is_told_the_smaller_picture_with_as_much_noise_as_asked(tmp_path: Path) -> None:
    batch = a_batch()
    lowres, levels = trainee(tmp_path, lowres_noise_max=0.002).smaller(1, batch.pictures)
    expected = torch.nn.functional.interpolate(shrunk(batch.pictures, 16), 32)
    assert levels is not None and int(levels.max()) <= 1 and torch.allclose(lowres, expected, atol=0.1)
    _, levels = trainee(tmp_path).smaller(1, batch.pictures.repeat(50, 1, 1, 1))
    assert int(levels.max()) > 900


def test_every_second_embedding_gets_noise_of_any_length_up_to_the_one_asked(tmp_path: Path) -> None:
    seed_everything(0)
    embeds = 3 * torch.nn.functional.normalize(torch.randn(2000, 256), dim=1)
    assert trainee(tmp_path).noised(embeds) is embeds
    lengths = (trainee(tmp_path, embed_noise=0.8).noised(embeds) - embeds).norm(dim=1) / 3
    noised = lengths[lengths > 0]
    assert len(noised) / len(lengths) == pytest.approx(0.5, abs=0.05)
    assert float(noised.mean()) == pytest.approx(0.4, abs=0.03) and float(noised.max()) == pytest.approx(0.8, abs=0.15)


def test_upsamplers_learn_on_crops_that_fit_the_smaller_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = trainee(tmp_path)
    ours.decoder.random_crop_sizes = (None, 16)
    seen = {}
    monkeypatch.setattr(ours.decoder, "p_losses", lambda unet, x, times, **more: seen.update(x=x, **more) or torch.zeros(()))
    monkeypatch.setattr(ours.decoder.lowres_conds[1], "use_noise", False)
    for seed in range(20):
        seed_everything(seed)
        ours.loss("unet 2", a_batch())
        assert seen["x"].shape == seen["lowres_cond_img"].shape == (4, 3, 16, 16)
        assert torch.allclose(shrunk(seen["x"], 8), seen["lowres_cond_img"][..., ::2, ::2], atol=1e-6)


def test_a_decoder_is_trained_and_both_load_it(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    config = write_json(tmp_path / "train.json", decoder_config(shards))
    assert run_command(monkeypatch, "decoder", "--config", config, "--out", tmp_path / "run", "--threads", 1) == 0
    assert f"6 steps; {tmp_path / 'run' / 'best'} is the best so far" in capsys.readouterr().out
    stored = torch.load(tmp_path / "run" / "best.pth", weights_only=True)
    assert stored.keys() == {"model", "version", "config"} and stored["version"] == "1.15.6"

    theirs = DecoderConfig(**stored["config"]["decoder"]).create()
    theirs.load_state_dict(stored["model"], strict=True)
    batch = a_batch()
    for path in (tmp_path / "run" / "best.pth", tmp_path / "run" / "best.safetensors"):
        ours = load_decoder(path)
        x, times = torch.randn(4, 3, 16, 16), torch.tensor([3, 10, 20, 40])
        unet = ours.unets[0]
        mine = unet.predict(x, times, unet.condition(batch.embeds, None, None, batch=4, drop_image=False, drop_text=False))
        expected = theirs.unets[0](x, times, image_embed=batch.embeds, image_cond_drop_prob=0.0, text_cond_drop_prob=0.0)
        assert torch.allclose(mine, expected, atol=1e-4)
    with Image.open(tmp_path / "run" / "samples" / "0000006.png") as sheet:
        assert sheet.size == (2 * 36 - 4, 3 * 36 - 4)


def test_two_processes_do_not_train_in_one_folder(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    config = write_json(tmp_path / "train.json", decoder_config(shards, steps=1))
    with alone_in(tmp_path / "run"):
        assert run_command(monkeypatch, "decoder", "--config", config, "--out", tmp_path / "run") == 1
    assert f"Another run is writing to {tmp_path / 'run'}" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("*.pth"))
    assert run_command(monkeypatch, "decoder", "--config", config, "--out", tmp_path / "run") == 0


def test_only_the_unets_of_the_mask_are_trained(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_json(tmp_path / "train.json", decoder_config(shards, unet_training_mask=[False, True], steps=3))
    assert run_command(monkeypatch, "decoder", "--config", config, "--out", tmp_path / "one") == 0
    more = ("--from", tmp_path / "one" / "latest.safetensors", "--steps", 5)
    assert run_command(monkeypatch, "decoder", "--config", config, "--out", tmp_path / "two", *more) == 0
    one, two = (torch.load(tmp_path / name / "latest.pth", weights_only=True)["model"] for name in ("one", "two"))
    changed = {key.split(".")[1] for key in one if key.startswith("unets.") and not torch.equal(one[key], two[key])}
    assert changed == {"1"}


def test_a_compiled_unet_is_the_one_that_is_asked_and_learns_the_same(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Compiled(torch.nn.Module):
        def __init__(self, module: torch.nn.Module) -> None:
            super().__init__()
            self.module, self.self_cond = module, module.self_cond

        def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
            asked.append(len(args[0]))
            return self.module(*args, **kwargs)

    monkeypatch.setattr(torch, "compile", Compiled)
    for name in ("plain", "compiled"):
        config = write_json(tmp_path / f"{name}.json", decoder_config(shards, steps=2, unet_training_mask=[True, False], compile=name == "compiled"))
        assert run_command(monkeypatch, "decoder", "--config", config, "--out", tmp_path / name) == 0
        assert bool(asked) == (name == "compiled")
    plain, compiled = (load_file(tmp_path / name / "latest.safetensors") for name in ("plain", "compiled"))
    assert plain.keys() == compiled.keys() and all(torch.equal(plain[key], compiled[key]) for key in plain)


def test_a_decoder_that_learns_in_other_coordinates_is_written_for_embeddings_as_they_are(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = write_json(tmp_path / "plain.json", decoder_config(shards, steps=2))
    assert run_command(monkeypatch, "decoder", "--config", plain, "--out", tmp_path / "plain") == 0
    start = ("--from", tmp_path / "plain" / "latest.safetensors")
    still = write_json(tmp_path / "still.json", decoder_config(shards, steps=1, whiten_embeds=True, lr=1e-12))
    assert run_command(monkeypatch, "decoder", "--config", still, "--out", tmp_path / "still", *start) == 0
    before, after = (load_file(tmp_path / name / "latest.safetensors") for name in ("plain", "still"))
    assert before.keys() == after.keys() and all(torch.allclose(before[key], after[key], atol=1e-4) for key in before)
    moving = write_json(tmp_path / "moving.json", decoder_config(shards, steps=6, whiten_embeds=True))
    for name, steps in (("whole", (6,)), ("broken", (3, 6))):
        for count in steps:
            assert run_command(monkeypatch, "decoder", "--config", moving, "--out", tmp_path / name, *start, "--steps", count) == 0
    whole, broken = (load_file(tmp_path / name / "latest.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[key], broken[key]) for key in whole) and not torch.equal(
        whole["unets.0.to_image_hiddens.0.weight"], before["unets.0.to_image_hiddens.0.weight"]
    )


def test_a_clip_a_prior_and_their_shards(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """The whole way: a CLIP of nothing, embeddings by it, a prior on them; `engine` and the library load both."""
    write_json(tmp_path / "clip" / "open_clip_config.json", CLIP)
    assert (
        run_command(monkeypatch, "clip", "--config", write_json(tmp_path / "c.json", clip_config(shards, Path("clip"))), "--out", tmp_path / "run")
        == 0
    )
    assert {"loss/clip", "rate", "step", "validation/loss", "validation/retrieval"} <= set().union(*read_figures(tmp_path / "run" / "figures.jsonl"))
    model = write_json(tmp_path / "model.json", {"clip": {"make": "open_clip", "model": "local-dir:run/best"}})
    assert run_command(monkeypatch, "data", shards, tmp_path / "embedded", "--config", model, "--side", 16) == 0
    assert "embeddings 16 wide" in capsys.readouterr().out

    config = write_json(tmp_path / "p.json", prior_config(tmp_path / "embedded", Path("run/best")))
    assert run_command(monkeypatch, "prior", "--config", config, "--out", tmp_path / "prior") == 0
    stored = torch.load(tmp_path / "prior" / "best.pth", weights_only=True)
    theirs = DiffusionPriorConfig(**{**stored["config"]["prior"], "clip": None}).create()
    theirs.load_state_dict(stored["model"], strict=True)
    ours = load_prior(tmp_path / "prior" / "best.safetensors")
    own = load_clip(ClipSource(make="open_clip", model="local-dir:run/best"), tmp_path, dtype=torch.float32, device="cpu")
    text = own.embed_text(own.tokenize(["a red fox", "a blue one"]))
    theirs.eval()
    x, times = torch.randn(2, 16), torch.tensor([5, 30])
    expected = theirs.net(x, times, text_embed=text.embed, text_encodings=text.encodings)
    assert torch.allclose(ours.net(x, times, text_embed=text.embed, text_encodings=text.encodings), expected, atol=1e-4)


def test_a_clip_in_a_folder_begins_anew_or_with_the_checkpoint_that_is_named(tmp_path: Path, shards: Path) -> None:
    folder = write_json(tmp_path / "clip" / "open_clip_config.json", CLIP).parent
    first, second = (from_folder(folder)[0].model.state_dict() for _ in range(2))
    save_file(first, folder / "open_clip_model.safetensors")
    save_file(second, tmp_path / "other.safetensors")

    def start(**train: Any) -> dict[str, torch.Tensor]:
        return ClipTrainee(ClipRun.model_validate(clip_config(shards, folder, **train)), tmp_path).clip.model.state_dict()

    named = start(load_from=str(tmp_path / "other.safetensors"))
    assert all(torch.equal(value, second[key]) for key, value in named.items())
    assert not torch.equal(start()["token_embedding.weight"], first["token_embedding.weight"])
    save_file({"other": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(Misconfigured, match=r"wrong\.safetensors are those of another CLIP"):
        start(load_from=str(tmp_path / "wrong.safetensors"))


@pytest.mark.parametrize(("frozen", "kept"), [("freeze_image", "visual."), ("freeze_text", "token_embedding")])
def test_a_tower_that_is_frozen_learns_nothing(frozen: str, kept: str, tmp_path: Path, shards: Path) -> None:
    folder = write_json(tmp_path / "clip" / "open_clip_config.json", CLIP).parent
    trainee = ClipTrainee(ClipRun.model_validate(clip_config(shards, folder, **{frozen: True})), tmp_path)
    trainee.loss("clip", a_batch()).backward()
    learns = {name: value.grad is not None and bool(value.grad.any()) for name, value in trainee.clip.model.named_parameters()}
    assert not any(on for name, on in learns.items() if name.startswith(kept))
    assert any(on for name, on in learns.items() if name.startswith("visual.") != (kept == "visual."))


PHRASES = [["on the left side", "on the right side"], ["on the left", "on the right", "at the top"], ["cat", "dog"]]


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("a fox on the left side, red", {"a fox on the right side, red"}),
        ("a fox on the left", {"a fox on the right", "a fox at the top"}),
        ("a fox on the lefty", {None}),
        ("a fox", {None}),
        ("a cat on the left side", {"a cat on the right side", "a dog on the left side"}),
    ],
)
def test_a_caption_is_confused_with_its_like(text: str, others: set[str | None]) -> None:
    assert {confused(text, PHRASES, np.random.default_rng(seed)) for seed in range(20)} == others


def test_confused_captions_are_told_apart(tmp_path: Path, shards: Path) -> None:
    """Pictures are nearer to their captions than to the same ones with another place only where that is asked for."""
    folder = write_json(tmp_path / "clip" / "open_clip_config.json", CLIP).parent
    config = clip_config(shards, folder)
    config["data"] |= {"typo_share": 0.0, "nonsense_share": 0.0}
    losses = []
    batch = replace(a_batch(), captions=["a cat on the left", "a dog on the right", "a cat", "a dog at the top"])
    for groups in ([], PHRASES[:2]):
        config["data"]["confusable"] = groups
        torch.manual_seed(0)
        trainee = ClipTrainee(ClipRun.model_validate(config), tmp_path)
        with torch.no_grad():
            figures = trainee.measure(iter([batch]))
        assert ("told_apart" in figures) == bool(groups)
        torch.manual_seed(1)
        losses.append(trainee.loss("clip", batch).item())
    assert losses[1] > losses[0]


def test_words_are_worn_but_never_lost() -> None:
    rng = np.random.default_rng(0)
    assert {wear("a cat", rng, 0, 0) for _ in range(20)} == {"a cat"}
    assert {misspelt("cat", rng) for _ in range(20)} == {"cat"}
    slips = {misspelt("banana", rng) for _ in range(200)}
    assert len(slips) > 30 and all(5 <= len(slip) <= 7 and slip[0] == "b" and slip[-1] in "an" for slip in slips)
    assert {len(wear("a cat", rng, 0, 1).split()) for _ in range(50)} == {3, 4, 5}


def test_bad_data_is_one_sentence(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def told(content: dict, *more: object) -> str:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        assert run_command(monkeypatch, "decoder", "--config", write_json(tmp_path / "bad.json", content), "--out", tmp_path / "run", *more) == 1
        lines = capsys.readouterr().err.strip().splitlines()
        return lines[-1]

    good = decoder_config(shards)
    assert "is missing" in told(decoder_config(tmp_path / "nowhere.tar"))
    assert "holds no embeddings (.npy)" in told(decoder_config(write_shards(tmp_path / "bare", width=None)))
    assert "its embeddings are 9 wide, 8 are wanted" in told(decoder_config(write_shards(tmp_path / "wide", width=9)))
    assert "is not on this machine" in told(decoder_config("pipe:cat x/{}.tar"))  # type: ignore[arg-type]
    assert "no shard lies at" in told(decoder_config(tmp_path / "{}.tar"))
    small = json.loads(json.dumps(good))
    small["decoder"]["image_sizes"] = [64, 128]
    assert "× smaller than 128 pixels. Make the shards again" in told(small)
    for change, sentence in (
        ({"train": {**good["train"], "unet_training_mask": [False, False]}}, "leaves no unet to train"),
        ({"train": {**good["train"], "lr": [1e-3]}}, "holds 1 values for 2 unets"),
        ({"train": {**good["train"], "steps": 0}}, "train.steps"),
        ({"data": {**good["data"], "splits": {"train": 0.5, "val": 0.1, "test": 0.1}}}, "must sum to 1"),
        ({"data": {**good["data"], "preprocessing": {"Rotate": True}}}, "Rotate is not known"),
        ({"decoder": {**good["decoder"], "beta_schedule": ["noise", "noise"]}}, "describes no cascade"),
    ):
        assert sentence in told({**good, **change})
    assert "do not fit the config's unet 1" in told(good, "--from", other_decoder(tmp_path, monkeypatch, shards))
    assert "are missing" in told(good, "--from", tmp_path / "nothing.pth")


def other_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: Path) -> Path:
    content = decoder_config(shards, steps=1, validate_every_steps=1)
    content["decoder"]["unets"] = [{**unet, "dim": 16} for unet in content["decoder"]["unets"]]
    assert run_command(monkeypatch, "decoder", "--config", write_json(tmp_path / "o.json", content), "--out", tmp_path / "other") == 0
    return tmp_path / "other" / "latest.safetensors"


def test_one_picture_without_another_to_validate_with_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = decoder_config(write_shards(tmp_path / "one", count=1), steps=2)
    content["data"]["splits"] = {"train": 1.0, "val": 0.0, "test": 0.0}
    assert run_command(monkeypatch, "decoder", "--config", write_json(tmp_path / "t.json", content), "--out", tmp_path / "run") == 0
    assert (tmp_path / "run" / "latest.safetensors").exists() and not (tmp_path / "run" / "best.safetensors").exists()


@pytest.mark.parametrize("release", ["0.15.4", "1.1.0", "1.6.2", "1.10.3"])
def test_a_decoder_of_an_old_release_is_trained_further_as_one_of_it(release: str, tmp_path: Path, shards: Path) -> None:
    """With a rate of zero, what is written answers as the release did; with any other, otherwise."""
    name = next(name for kind, name in models("decoder") if kind == release)
    config = {**fixture(release)[0][name]["config"]["decoder"]}
    torch.save({"model": state_dict(release, name), "version": release, "config": {"decoder": config}}, tmp_path / "old.pth")
    run = decoder_config(shards, load_from=str(tmp_path / "old.pth"))
    run["decoder"] = config
    ours = DecoderTrainee(read_run(DecoderRun, write_json(tmp_path / "train.json", run), {}), None)
    ours.write(tmp_path, "same")
    before = load_decoder(tmp_path / "same.safetensors")
    assert {str(stage.release) for stage in before.stages} == {release}
    check_decoder(release, name, before.unets)
    side, width = config["image_sizes"][-1], config["unets"][0]["image_embed_dim"]
    batch = Batch(torch.rand(4, 3, side, side), ["a"] * 4, torch.nn.functional.normalize(torch.randn(4, width), dim=1))
    parts = [part for part in ours.parts if not ours.decoder.unets[int(part.split()[1]) - 1].cond_on_text_encodings]
    for part in parts:
        ours.loss(part, batch).backward()
        with torch.no_grad():
            for value in ours.parts[part].module.parameters():
                value -= 0.1 * (0 if value.grad is None else value.grad)
    ours.write(tmp_path, "trained")
    after = load_decoder(tmp_path / "trained.safetensors")
    changed = [
        any(not torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
        for one, other in zip(before.unets, after.unets, strict=True)
    ]
    assert sum(changed) == len(parts) > 0


@pytest.mark.parametrize("release", ["0.15.4", "1.1.0", "1.6.2", "1.15.6"])
def test_a_prior_of_an_old_release_is_trained_further_as_one_of_it(release: str, tmp_path: Path) -> None:
    name = next(name for kind, name in models("prior") if kind == release)
    config = fixture(release)[0][name]["config"]
    torch.save({"model": state_dict(release, name), "version": release, "config": config}, tmp_path / "old.pth")
    prior = build_prior({"image_size": 8, **config["prior"]})
    found = fill_prior(prior, tmp_path / "old.pth", None)
    torch.save({"model": weights_of(prior), "version": str(found), "config": config}, tmp_path / "new.pth")
    again = load_prior(tmp_path / "new.pth")
    assert str(again.release) == release
    check_prior(release, name, again.net)
    embed = torch.nn.functional.normalize(torch.randn(3, 32), dim=1)
    prior(text_embed=embed, text_encodings=torch.randn(3, 7, 32), image_embed=embed.clone()).backward()
    assert any(value.grad is not None and value.grad.abs().sum() > 0 for value in prior.parameters())


def test_each_sample_goes_without_its_conditions_by_itself() -> None:
    drop_image, drop_text = torch.tensor([True, False, True, False, False]), torch.tensor([False, False, True, True, False])
    x = torch.arange(5.0)
    answer = by_drops(drop_image, drop_text, lambda rows, image, text: x[rows] + 10 * image + 100 * text)
    assert answer.tolist() == [10, 1, 112, 103, 4]
    assert dropped(1000, 0.0, x.device).sum() == 0 and dropped(1000, 1.0, x.device).all()
