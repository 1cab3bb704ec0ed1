"""Count how much GPU memory models of LAION's sizes take, without a GPU: python -m tests.benchmarks.memory [--count 4]

Weights and tensors of one guided step are counted on the meta device, where nothing is computed; attention is counted as if its matrix were
written out, which kernels of GPUs avoid. The allocator's slack and CUDA's own context (about 0.5 GB) come on top.
"""

import argparse
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from engine.unclip.dialects import Dialect, Release
from engine.unclip.prior import PriorNetwork
from engine.unclip.unet import Unet

GIB = 2**30
LAION = Dialect(Release(1, 1, 0))
CLIP_PARAMETERS = 427_616_513
"""Of ViT-L/14."""


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._users: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                self._note(tensor)
        return out

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._users:
            self._users[key] = 0
            self.now += size
            self.peak = max(self.peak, self.now)
        self._users[key] += 1
        weakref.finalize(tensor, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self.now -= size


def weights(module: nn.Module) -> int:
    """Return the bytes of a module's parameters in half precision."""
    return sum(parameter.numel() for parameter in module.parameters()) * 2


def tensors(step: Callable[[], object]) -> int:
    """Return the most bytes that one step has alive beside the weights."""
    with torch.no_grad(), Live() as live:
        step()
    return live.peak


def main() -> None:
    """Count prior, base and upsampler."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=4, help="pictures at once")
    count = parser.parse_args().count
    batch = 2 * count
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        prior = PriorNetwork(768, depth=24, heads=32, num_timesteps=1000, max_text_len=77, dialect=LAION)
        base = Unet(
            320, dim_mults=[1, 2, 3, 4], image_embed_dim=768, cond_dim=512, num_resnet_blocks=4, self_attn=[False, True, True, True],
            cond_on_image_embeds=True, memory_efficient=True, channels_out=6, dialect=LAION,
        )  # fmt: skip
        upsampler = Unet(192, dim_mults=[1, 2, 3, 4], cond_dim=512, num_resnet_blocks=2, memory_efficient=True, lowres_cond=True, dialect=LAION)
        text, encodings = torch.zeros(count, 768), torch.zeros(count, 77, 768)
        times, embeds = torch.zeros(batch, dtype=torch.long), torch.zeros(batch, 768)
        small, large = torch.zeros(batch, 3, 64, 64), torch.zeros(count, 3, 256, 256)
        parts = {
            "CLIP ViT-L/14": (CLIP_PARAMETERS * 2, 0),
            "prior, depth 24": (weights(prior), tensors(lambda: prior(text, times[:count], text_embed=text, text_encodings=encodings))),
            "base, 64 px": (weights(base), tensors(lambda: base(small, times, image_embed=embeds))),
            "upsampler, 256 px": (weights(upsampler), tensors(lambda: upsampler(large, times[:count], lowres_cond_img=large))),
        }
    print(f"{count} pictures, half precision, guidance on the base, GiB, counted")
    for name, (own, step) in parts.items():
        print(f"{name:18} weights {own / GIB:5.2f}   one step {step / GIB:5.2f}")
    resident = sum(own for own, _ in parts.values()) + max(step for _, step in parts.values())
    print(f"resident: {resident / GIB:.2f}   offloaded, one stage at a time: {max(own + step for own, step in parts.values()) / GIB:.2f}")


if __name__ == "__main__":
    main()
