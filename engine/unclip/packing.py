"""Projections of a few rows on a CPU, whose weights take longer to be read than to be multiplied."""

import torch
from torch import Tensor, nn


class Linear(nn.Linear):
    """A projection without bias.

    On a CPU its weights may be packed the way that oneDNN multiplies by few rows, which takes a half to a fourth of the time.
    """

    packed: Tensor | None = None

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out, bias=False)

    def pack(self) -> None:
        """Lay the weights out for this CPU, instead of as they are; where torch cannot, they stay."""
        try:
            packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach())
            multiply_packed(self.weight.new_zeros(1, self.in_features), packed)
        except (AttributeError, RuntimeError):
            # The operator is none of torch's public ones, and not every build and CPU has it for every number format.
            return
        self.packed = packed
        del self.weight

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.packed is None else multiply_packed(x, self.packed)


def multiply_packed(x: Tensor, packed: Tensor) -> Tensor:
    """Multiply by packed weights."""
    return torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def pack(network: nn.Module, least: int = 0) -> None:
    """Pack the projections of a network that is where it stays and is no longer trained: those on a CPU, of at least so many weights."""
    for module in network.modules():
        if isinstance(module, Linear) and module.weight.device.type == "cpu" and module.weight.numel() >= least:
            module.pack()
