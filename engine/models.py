"""Which kind of model a config describes, and what paints with it. Whoever loads this module need not have torch."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.mini.config import MiniConfig
    from engine.mini.painter import Painter as Mini
    from engine.unclip.config import ModelConfig
    from engine.unclip.painter import Painter as Unclip


def read_config(path: Path) -> "ModelConfig | MiniConfig":
    """Read the config of a model of any kind; this imports torch.

    Raises:
        Misconfigured: it cannot be read, or says something else than expected.
    """
    from engine.mini.config import is_mini, read_mini_config
    from engine.unclip.config import read_json, read_model_config

    return read_mini_config(path) if is_mini(read_json(path)) else read_model_config(path)


def load_painter(path: Path, device: str = "auto", dtype: str = "auto", memory: str = "auto") -> "Unclip | Mini":
    """Load the model that a config describes, fetching what is not here yet; this imports torch, on the thread that is to paint.

    Raises:
        Misconfigured: config or weights are missing, damaged or do not fit together, or there is no such device.
    """
    from engine.mini.config import is_mini
    from engine.mini.painter import Painter as Mini
    from engine.unclip.config import read_json
    from engine.unclip.painter import Painter as Unclip

    return (Mini if is_mini(read_json(path)) else Unclip).from_config(path, device, dtype, memory)
