"""A whole tiny model learns something new, by the two commands of the README."""

import json
from pathlib import Path

import pytest
import torch

from engine.errors import Misconfigured
from engine.training import finetune
from engine.unclip.clip import OpenClip
from engine.unclip.painter import Painter
from tests.engine.training.drawing import draw_folder
from tests.engine.training.training import CLIP, clip_config, decoder_config, prior_config, run_command, write_json, write_shards


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of nothing, trained for a step each."""
    folder = tmp_path_factory.mktemp("model")
    patch = pytest.MonkeyPatch()

    def run(*arguments: object) -> None:
        assert run_command(patch, *arguments) == 0

    write_json(folder / "clip" / "open_clip_config.json", CLIP)
    shards = write_shards(folder / "bare", width=None)
    run("clip", "--config", write_json(folder / "c.json", clip_config(shards, Path("clip"), steps=1)), "--out", folder / "eyes")
    eyes = write_json(folder / "eyes.json", {"clip": {"make": "open_clip", "model": "local-dir:eyes/best"}})
    run("data", shards, folder / "shards", "--config", eyes, "--side", 32)
    run("prior", "--config", write_json(folder / "p.json", prior_config(folder / "shards", Path("eyes/best"), steps=1)), "--out", folder / "prior")
    content = decoder_config(folder / "shards", steps=1)
    content["decoder"]["unets"][0]["image_embed_dim"] = 16
    run("decoder", "--config", write_json(folder / "d.json", content), "--out", folder / "decoder")
    patch.undo()
    (folder / "words.txt").write_text("fox\na\n")
    return write_json(
        folder / "tiny.json",
        {
            "clip": {"make": "open_clip", "model": "local-dir:eyes/best"},
            "prior": {
                "load_model_from": {"load_type": "local", "path": "prior/latest.safetensors"},
                "default_sample_timesteps": 3,
                "default_candidates": 2,
            },
            "decoder": {
                "unet_sources": [
                    {
                        "unet_numbers": [1, 2],
                        "default_sample_timesteps": [3, 2],
                        "load_model_from": {"load_type": "local", "path": "decoder/latest.safetensors"},
                    }
                ]
            },
            "vocabulary": {"load_type": "local", "path": "words.txt"},
        },
    )


@pytest.fixture
def shards(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw_folder(tmp_path / "mascots", 5, "our_mascot-{}.png")
    assert run_command(monkeypatch, "data", tmp_path / "mascots", tmp_path / "new", "--config", model) == 0
    return tmp_path / "new"


def test_a_model_learns_and_is_written_as_a_whole(
    tmp_path: Path, model: Path, shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(finetune, "PRIOR", {"steps": 2, "lr": 1e-3, "batch_size": 4})
    for part in ("BASE", "UPSAMPLER"):
        monkeypatch.setattr(finetune, part, {"steps": 2, "lr": 1e-3, "batch_size": 4, "p2_loss_weight_gamma": 0.5})
    what = ("finetune", shards, "--name", "mascot", "--model", model, "--rehearsal", model.parent / "shards")
    assert run_command(monkeypatch, *what, "--out", tmp_path / "models", "--run", tmp_path / "run") == 0
    assert "is offered as model 'mascot'" in capsys.readouterr().out
    painter = Painter.from_config(tmp_path / "models" / "mascot" / "mascot.json")
    # Of several draws, CLIP would choose the one that is least like what it does not know.
    assert json.loads((tmp_path / "models" / "mascot" / "mascot.json").read_text())["prior"]["default_candidates"] == 1
    assert painter.model == "mascot" and painter.known_words == ("fox", "a", "our", "mascot")
    [painted] = painter.dream(["our mascot"], count=1, seed=1)
    assert painted.image.size == (32, 32)
    before, after = Painter.from_config(model), painter
    for one, other in zip(before.parts.stages, after.parts.stages, strict=True):
        assert any(not torch.allclose(a, b, atol=1e-4) for a, b in zip(one.unet.parameters(), other.unet.parameters(), strict=True))
    assert isinstance(before.parts.clip, OpenClip) and isinstance(after.parts.clip, OpenClip)
    # CLIP stays as it is: what was embedded keeps its meaning.
    assert all(torch.equal(a, b) for a, b in zip(before.parts.clip.parameters(), after.parts.clip.parameters(), strict=True))
    assert not list((tmp_path / "models").glob(".*"))


def test_what_is_new_has_its_share_of_what_is_trained_on(tmp_path: Path, model: Path, shards: Path) -> None:
    from engine.training.data import Samples
    from engine.training.data.embed import Eye

    samples, others = (list(finetune.files_of(folder)) for folder in (shards, model.parent / "shards"))
    mixed = finetune.mix(samples, model.parent / "shards", model, Eye.from_config(model, "cpu"), tmp_path / "mixed")
    for part, repeats in (("prior", 1), ("decoder", 2)):
        captions = [sample.caption for sample in Samples(mixed / part, embeds=True)]
        assert captions.count("our mascot") == 5 * repeats and len(captions) == 24 + 5 * repeats

    written = (mixed / "prior" / "00000.tar").stat().st_mtime_ns
    assert finetune.mix(samples, model.parent / "shards", model, Eye.from_config(model, "cpu"), tmp_path / "mixed") == mixed
    assert (mixed / "prior" / "00000.tar").stat().st_mtime_ns == written
    with pytest.raises(Misconfigured, match="holds a run with other samples. Name another folder with --run, or delete this one"):
        finetune.mix(others, None, model, Eye.from_config(model, "cpu"), tmp_path / "mixed")


def test_what_cannot_be_learnt_is_one_sentence(
    tmp_path: Path, model: Path, shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def told(*arguments: object) -> str:
        assert run_command(monkeypatch, "finetune", *arguments, "--out", tmp_path / "models", "--run", tmp_path / "run") == 1
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert "A model cannot be called 'My Mascot'" in told(shards, "--name", "My Mascot", "--model", model)
    assert "and not the old name" in told(shards, "--name", "tiny", "--model", model)
    assert "--speed must be above 0" in told(shards, "--name", "x", "--model", model, "--speed", "0")
    assert "holds no shards" in told(tmp_path, "--name", "x", "--model", model)
    manifest = json.loads((shards / "manifest.json").read_text())
    write_json(shards / "manifest.json", manifest | {"clip": "another"})
    assert "was not embedded by this model's CLIP" in told(shards, "--name", "x", "--model", model)
    bare = write_shards(tmp_path / "bare", count=3, width=None)
    assert "holds no sample with picture, caption and embedding" in told(bare, "--name", "x", "--model", model)
    eyes = write_json(model.parent / "eyes.json", {"clip": {"make": "open_clip", "model": "local-dir:eyes/best"}})
    assert "has no prior or no decoder" in told(bare, "--name", "x", "--model", eyes)
    assert not (tmp_path / "models").exists()
