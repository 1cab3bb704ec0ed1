"""Muon: matrices learn along an orthogonal direction, from fewer samples than with AdamW.

Source: Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024); the scale that makes its rates those of AdamW is of "Muon is
Scalable for LLM Training" (2025, arXiv 2502.16982).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial that draws singular values to about 1."""
SMALLEST = 16
"""Rows and columns that a matrix has at least: of a narrow one there is little to orthogonalise."""
RMS_OF_ADAMW = 0.2
EPSILON = 1e-8


def is_matrix(module: nn.Module, name: str, value: Tensor) -> bool:
    """Tell whether a parameter maps activations to activations, and is wide enough; embeddings and tokens that are learned do not."""
    maps = isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)) and name == "weight"
    return maps and min(value.shape[0], value[0].numel()) >= SMALLEST


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about U Vᵀ of a matrix U S Vᵀ, (N, M): its singular values come to lie between about 0.7 and 1.2.

    In float32, not in the paper's bfloat16, which CPUs emulate.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).float()
    x = x / x.norm().clamp(min=EPSILON)
    first, second, third = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=second, alpha=third), x, beta=first)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for the groups that say `orthogonal`, AdamW for the others. Kernels of convolutions learn as the matrix of their filters.

    Each group has its own `weight_decay`, decoupled; `lr` is set before each step.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "orthogonal": False, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Do one step with the gradients that are there; `closure` is for torch's signature and must be None."""
        assert closure is None
        for group in self.param_groups:
            for value in group["params"]:
                if value.grad is None:
                    continue
                value.mul_(1 - group["lr"] * group["weight_decay"])
                (self.step_muon if group["orthogonal"] else self.step_adamw)(value, value.grad, self.state[value], group)

    @staticmethod
    def step_muon(value: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Move a matrix along the orthogonalised mean of its gradients, looking one gradient ahead."""
        mean = state.setdefault("mean", torch.zeros_like(value))
        mean.lerp_(gradient, 1 - MOMENTUM)
        ahead = gradient.lerp(mean, MOMENTUM).flatten(1)
        scale = RMS_OF_ADAMW * max(ahead.shape) ** 0.5
        value.add_(orthogonal(ahead).reshape(value.shape).to(value.dtype), alpha=-group["lr"] * scale)

    @staticmethod
    def step_adamw(value: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Move a parameter as AdamW does."""
        first, second = group["betas"]
        mean, square = (state.setdefault(name, torch.zeros_like(value)) for name in ("mean", "square"))
        state["steps"] = steps = state.get("steps", 0) + 1
        mean.lerp_(gradient, 1 - first)
        square.lerp_(gradient.square(), 1 - second)
        value.addcdiv_(mean / (1 - first**steps), (square / (1 - second**steps)).sqrt_().add_(EPSILON), value=-group["lr"])
