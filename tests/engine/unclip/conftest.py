from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.unclip import Painter

FOLDER = Path(__file__).parents[3] / "configs" / "picturebook"


@pytest.fixture(scope="module")
def painter() -> Painter:
    """The bundled model, with its real weights; where nothing else is asked for, it is quicker than it usually is."""
    model = Painter.from_config(FOLDER / "picturebook.json", device="cpu").parts
    return Painter(replace(model, prior_setting=replace(model.prior_setting, steps=12, candidates=1), drafts=1))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny tensors are slower on several threads, and far slower where other tests use the cores."""
    torch.set_num_threads(1)
