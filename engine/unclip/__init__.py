"""All the tensors of DALL-E 2.

from engine.unclip import Painter
Painter.from_config("configs/picturebook/picturebook.json").dream(["a fox on a red background"], count=4, seed=7)
"""

from engine.unclip.loading import load_decoder, load_prior
from engine.unclip.painter import Painter

__all__ = ["Painter", "load_decoder", "load_prior"]
