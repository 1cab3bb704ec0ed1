"""All the tensors of DALL·E Mini and Mega: min-dalle's files, loaded as they are.

from engine.mini import Painter
Painter.from_config("configs/dalle-mini.json").dream(["a fox in the snow"], count=4, seed=7)
"""

from engine.mini.painter import Painter
from engine.mini.settings import MiniSettings

__all__ = ["MiniSettings", "Painter"]
