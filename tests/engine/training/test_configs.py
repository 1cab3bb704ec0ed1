"""Train configs: those of dalle2-pytorch as they are, ours, and what is wrong with others."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import Misconfigured
from engine.training.clip import ClipTrainee
from engine.training.configs import ClipRun, DecoderRun, PriorRun, course_of, local_shards, preparation, read_run
from engine.training.library import build_decoder, build_prior
from tests.engine.training.training import clip_config, decoder_config, prior_config, write_json

OURS = Path(__file__).parents[3] / "configs" / "training"
LIMIT_BYTES = 30_000_000
"""Of the bundled model, in float16."""

# The shape of the library's example configs: its keys, and what may be null in them.
THEIR_DECODER: dict[str, Any] = {
    "decoder": {
        "unets": [{"dim": 16, "image_embed_dim": 32, "cond_dim": 8, "channels": 3, "dim_mults": [1, 2], "attn_dim_head": 8, "attn_heads": 2}],
        "image_sizes": [16],
        "channels": 3,
        "timesteps": 10,
        "loss_type": "l2",
        "beta_schedule": ["cosine"],
        "learned_variance": True,
    },
    "data": {
        "webdataset_base_url": "pipe:s3cmd get s3://bucket/path/{}.tar -",
        "img_embeddings_url": "s3://bucket/img_embeddings/path/",
        "num_workers": 4,
        "batch_size": 8,
        "start_shard": 0,
        "end_shard": 9999999,
        "shard_width": 6,
        "index_width": 4,
        "splits": {"train": 0.75, "val": 0.15, "test": 0.1},
        "shuffle_train": True,
        "resample_train": False,
        "preprocessing": {"RandomResizedCrop": {"size": [16, 16], "scale": [0.75, 1.0], "ratio": [1.0, 1.0]}, "ToTensor": True},
    },
    "train": {
        "epochs": 3,
        "lr": 1e-4,
        "wd": 0.01,
        "max_grad_norm": 0.5,
        "save_every_n_samples": 80,
        "n_sample_images": 6,
        "device": "cuda:0",
        "epoch_samples": None,
        "validation_samples": None,
        "use_ema": True,
        "ema_beta": 0.99,
        "amp": False,
        "unet_training_mask": [True],
    },
    "evaluate": {"n_evaluation_samples": 10, "FID": {"feature": 64}},
    "tracker": {
        "overwrite_data_path": True,
        "log": {"log_type": "wandb", "wandb_entity": "e", "wandb_project": "p", "verbose": True},
        "load": {"load_from": None},
        "save": [{"save_to": "wandb", "save_latest_to": "latest.pth"}, {"save_to": "huggingface", "huggingface_repo": "r", "save_type": "model"}],
    },
}


def test_the_librarys_configs_are_read_as_they_are(tmp_path: Path) -> None:
    run = read_run(DecoderRun, write_json(tmp_path / "t.json", THEIR_DECODER), {})
    course = course_of(run, lambda: 100)
    assert (course.steps, course.batch_size, course.ema, course.max_grad_norm, course.save_every_steps) == (39, 8, 0.99, 0.5, 10)
    assert run.data.splits.val == 0.15 and build_decoder(run.decoder.model_dump()).image_sizes == (16,)


UNETS = ("base", "enlarger", "upsampler")


def test_our_decoder_configs_describe_one_cascade() -> None:
    """Each trains its last unet, which enlarges what the run before it paints."""
    side = 0
    for number, name in enumerate(UNETS):
        run = read_run(DecoderRun, OURS / f"picturebook-{name}.json", {})
        assert run.train.unet_training_mask == [False] * bool(number) + [True]
        assert list(run.decoder.image_sizes)[:-1] == [side] * bool(number)
        side = run.decoder.image_sizes[-1]
    assert side == 128


def test_the_recipe_makes_a_model_that_is_small_enough() -> None:
    unets = [build_decoder(read_run(DecoderRun, OURS / f"picturebook-{name}.json", {}).decoder.model_dump()).unets[-1] for name in UNETS]
    prior = build_prior(read_run(PriorRun, OURS / "picturebook-prior.json", {}).prior.model_dump())
    clip = ClipTrainee(read_run(ClipRun, OURS / "picturebook-clip.json", {}), OURS)
    parameters = sum(value.numel() for net in (*unets, prior, clip.clip) for value in net.parameters())
    assert parameters * torch.float16.itemsize < LIMIT_BYTES


def test_the_command_line_comes_before_the_config(tmp_path: Path) -> None:
    path = write_json(tmp_path / "t.json", decoder_config(tmp_path))
    run = read_run(DecoderRun, path, {"data.webdataset_base_url": "elsewhere", "train.steps": 77})
    assert run.data.webdataset_base_url == "elsewhere" and course_of(run, lambda: 1).steps == 77


def test_a_key_that_nothing_reads_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_run(PriorRun, write_json(tmp_path / "t.json", prior_config(tmp_path, tmp_path, ema_update_after_step=5)), {})
    assert "train.ema_update_after_step is not known and is ignored" in caplog.text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"typo_shere": 1}, "typo_shere"), ({"batch_size": 1}, "batch_size"), ({"splits": {"train": 1.0, "val": 0.5}}, "must sum to 1")],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict, sentence: str) -> None:
    content = clip_config(tmp_path, tmp_path)
    content["data"] |= change
    with pytest.raises(Misconfigured, match=sentence):
        read_run(ClipRun, write_json(tmp_path / "t.json", content), {})
    with pytest.raises(Misconfigured, match="is no JSON object"):
        read_run(ClipRun, write_json(tmp_path / "l.json", [1]), {})  # type: ignore[arg-type]


def test_shards_are_found_as_the_library_names_them(tmp_path: Path) -> None:
    for number in (0, 1, 2, 5):
        (tmp_path / f"{number:06}.tar").touch()
    pattern = f"{tmp_path}/{{}}.tar"
    assert local_shards(pattern) == f"{tmp_path}/{{000000.tar,000001.tar,000002.tar,000005.tar}}"
    assert local_shards(pattern, 1, 2) == f"{tmp_path}/{{000001.tar,000002.tar}}"
    assert local_shards(pattern, 5) == f"{tmp_path}/000005.tar"
    assert local_shards(str(tmp_path)) == tmp_path
    with pytest.raises(Misconfigured, match="no shard lies at"):
        local_shards(pattern, 7)


def test_pictures_are_cropped_and_turned_as_preprocessing_says() -> None:
    picture = torch.arange(3 * 20 * 30, dtype=torch.uint8).reshape(3, 20, 30)
    assert torch.equal(preparation({"ToTensor": True})(picture), picture / 255)
    prepared = preparation({"RandomResizedCrop": {"size": [8, 8]}, "RandomHorizontalFlip": True})(picture)
    assert prepared.shape == (3, 8, 8) and 0 <= float(prepared.min()) and float(prepared.max()) <= 1
    with pytest.raises(Misconfigured, match="RandomResizedCrop"):
        preparation({"RandomResizedCrop": {"sise": 3}})
