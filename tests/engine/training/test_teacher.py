"""What is not new is to be answered as before, what is new as its pictures say."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.training.configs import DecoderRun, read_run
from engine.training.decoder import DecoderTrainee
from engine.training.loop import seed_everything
from engine.training.source import Batch
from tests.engine.training.training import WIDTH, decoder_config, write_json

NEW = frozenset({"our mascot"})


@pytest.fixture
def trainee(tmp_path: Path) -> DecoderTrainee:
    """Base and upsampler; half of the samples go without their embedding."""
    config = decoder_config(tmp_path)
    config["decoder"]["image_cond_drop_prob"] = 0.5
    made = DecoderTrainee(read_run(DecoderRun, write_json(tmp_path / "train.json", config), {}), None)
    with torch.no_grad():  # new networks answer nothing, whatever they are told
        for value in made.decoder.parameters():
            value.add_(0.02 * torch.randn_like(value))
    made.keep(NEW)
    return made


def a_batch(*captions: str) -> Batch:
    generator = torch.Generator().manual_seed(5)
    embeds = torch.nn.functional.normalize(torch.randn(len(captions), WIDTH, generator=generator), dim=1)
    return Batch(torch.rand(len(captions), 3, 32, 32, generator=generator), list(captions), embeds)


def loss(trainee: DecoderTrainee, name: str, batch: Batch) -> Any:
    seed_everything(1)
    return trainee.loss(name, batch)


@pytest.mark.parametrize("name", ["unet 1", "unet 2"])
def test_a_network_that_has_not_changed_has_nothing_to_learn_from_what_is_old(trainee: DecoderTrainee, name: str) -> None:
    old = loss(trainee, name, a_batch(*["a fox"] * 16))
    assert float(old.detach()) == pytest.approx(0, abs=1e-9)
    old.backward()
    assert all(value.grad is None or value.grad.abs().max() < 1e-5 for value in trainee.parts[name].module.parameters())

    with torch.no_grad():
        for value in trainee.parts[name].module.parameters():
            value.add_(0.01 * torch.randn_like(value))
    assert float(loss(trainee, name, a_batch(*["a fox"] * 16)).detach()) > 1e-6


def test_what_is_new_is_learnt_from_its_pictures_and_each_sample_counts_alike(trainee: DecoderTrainee) -> None:
    def told(*captions: str) -> float:
        return float(loss(trainee, "unet 1", a_batch(*captions)).detach())

    whole = told("our mascot", "our mascot")
    first, second = told("our mascot", "a fox"), told("a fox", "our mascot")
    assert min(first, second) > 1e-3 and first + second == pytest.approx(whole, rel=1e-4)
    assert told("a fox", "a fox") == pytest.approx(0, abs=1e-9)


def test_the_teacher_is_neither_trained_nor_written(trainee: DecoderTrainee) -> None:
    before = {key: value.clone() for key, value in trainee.teachers["unet 1"].net.state_dict().items()}
    optimizer = torch.optim.SGD(trainee.parts["unet 1"].module.parameters(), lr=0.1)
    loss(trainee, "unet 1", a_batch("our mascot", "a fox")).backward()
    optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in trainee.teachers["unet 1"].net.state_dict().items())
    assert any(not torch.equal(value, before[key]) for key, value in trainee.parts["unet 1"].module.state_dict().items())
    names = {key.removeprefix("unets.0.") for key in trainee.weights if key.startswith("unets.0.")}
    assert names == before.keys()
