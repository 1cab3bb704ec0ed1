"""Learning without forgetting: where nothing is new, a network goes on answering as it did.

What is rehearsed could be learnt from its pictures once more; but they are noisy, and a network that knows them already only wanders. Its own answers
from before it began say what to keep without any noise.

Source: Li and Hoiem 2016, arXiv:1606.09282.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

SEEDS = 2**31


class Teacher:
    """A network as it was, whose answers are the targets of samples that are not new."""

    def __init__(self, net: nn.Module, scheduler: Any, new: frozenset[str]) -> None:
        """Copy a network, and stand by where it is asked and where `scheduler`, the library's, compares; `new` are the captions of what is."""
        self.net, self.new, self.loss = copy.deepcopy(net).requires_grad_(False), new, scheduler.loss_fn
        self.seed = 0
        self.answer, self.is_new = torch.empty(0), torch.empty(0, dtype=torch.bool)
        scheduler.loss_fn = self.compare
        net.register_forward_pre_hook(self.note)
        net.register_forward_hook(self.repeat, with_kwargs=True)

    def hear(self, captions: Sequence[str]) -> None:
        """Take note of what a batch is of."""
        self.is_new = torch.tensor([caption in self.new for caption in captions])

    def note(self, net: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Let both draw the same, such as which conditions they go without."""
        self.seed = int(torch.randint(SEEDS, ()))
        torch.manual_seed(self.seed)

    def repeat(self, net: nn.Module, inputs: tuple[Any, ...], conditions: dict[str, Any], output: Tensor) -> None:
        """Answer the same question."""
        torch.manual_seed(self.seed)
        with torch.no_grad():
            self.answer = self.net.to(output.device)(*inputs, **conditions)

    def compare(self, output: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return the loss, with the answer from before as the target of what is not new; a variance beside it is none of it."""
        is_new = self.is_new.to(target.device).view(-1, *[1] * (target.ndim - 1))
        loss: Tensor = self.loss(output, torch.where(is_new, target, self.answer[:, : target.shape[1]]), **options)
        return loss
