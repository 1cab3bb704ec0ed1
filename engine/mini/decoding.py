"""Pictures of different people, settings and ages, painted token by token in one batch.

A batch has slots, of which the first ones are taken. One step gives every sample its next token. Its work depends on a few numbers only, all rounded
up: how many slots there are (BUCKETS), how far the furthest sample is (STRETCH), how long the longest prompt is (PROMPT_STRETCH) and how many codes
may be drawn. So a GPU can record the work and play it back, and equal steps are equal to the bit.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engine.mini.networks import Decoder, Size, Texts
from engine.unclip.recording import RECORDINGS, record
from engine.unclip.sampling import noise_from_seeds

BUCKETS = (1, 2, 3, 4, 6, 9, 12, 16, 24, 32, 48, 64)
"""Samples of a batch: slots beyond those taken are computed for nothing."""
STRETCH, PROMPT_STRETCH = 32, 16


@dataclass(frozen=True, slots=True)
class Drawing:
    """How the next token is chosen: among the `top_k` likeliest, `guidance` = supercondition factor.

    A low temperature prefers the likely ones.
    """

    temperature: float
    top_k: int
    guidance: float


@dataclass(eq=False, slots=True)
class Sample:
    """A picture on its way. `text` is what the decoder remembers of its prompt, (layers, T, 2, heads, depth); `given` are its first tokens.

    `position` is how many tokens it has, once it has joined a batch; `codes`, (paints,) int64, are all of them in the end.
    """

    text: Tensor = field(repr=False)
    seed: int
    drawing: Drawing
    given: tuple[int, ...] = ()
    position: int = 0
    codes: Tensor | None = field(default=None, repr=False)


class Recorder:
    """Plays a GPU's work back instead of asking for each part of it again; does it as usual where that cannot be had.

    Work of one key must read and write the same memory each time.
    """

    def __init__(self, is_on: bool) -> None:
        self.is_on = is_on and torch.cuda.is_available()
        self._seen: set[tuple[int, ...]] = set()
        self._recordings: dict[tuple[int, ...], torch.cuda.CUDAGraph] = {}
        self._pool: Any = None

    def forget(self) -> None:
        """Throw all recordings away, for the memory that they name is given back."""
        self._seen.clear()
        self._recordings.clear()

    def do(self, key: tuple[int, ...], work: Callable[[], None]) -> None:
        """Do some work: as usual when its key is new, which lets libraries set themselves up, then from a recording."""
        if not self.is_on:
            return work()
        if key not in self._seen:
            self._seen.add(key)
            return work()
        if key not in self._recordings:
            while len(self._recordings) >= RECORDINGS:
                self._recordings.pop(next(iter(self._recordings)))
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            if (graph := record(work, self._pool)) is None:
                self.is_on = False
                self.forget()
                return work()
            self._recordings[key] = graph
        self._recordings[key].replay()


class State:
    """Everything that a step reads and writes, for so many slots."""

    def __init__(self, size: Size, slots: int, dtype: torch.dtype, device: torch.device) -> None:
        memory = (2, size.heads, size.depth)
        self.slots = slots
        # Zeros, not whatever lies there: what is masked is multiplied by 0, which would not make a number of what is none.
        self.painted = torch.zeros(size.layers, slots, 2, size.paints, *memory, dtype=dtype, device=device)
        self.prompts = torch.zeros(size.layers, slots, size.reads, *memory, dtype=dtype, device=device)
        self.prompt_lengths = torch.ones(slots, dtype=torch.long, device=device)
        self.codes = torch.full((slots, size.paints), size.codes - 1, device=device)
        self.token = torch.full((slots,), size.codes - 1, device=device)
        self.position = torch.zeros(slots, dtype=torch.long, device=device)
        self.temperature = torch.ones(slots, device=device)
        self.top_k = torch.ones(slots, dtype=torch.long, device=device)
        self.guidance = torch.ones(slots, device=device)
        self.noise = torch.zeros(slots, size.paints, dtype=torch.float64, device=device)

    def rows(self, slot: int) -> list[Tensor]:
        """Return everything about a slot."""
        one_by_one = (self.prompt_lengths, self.codes, self.token, self.position, self.temperature, self.top_k, self.guidance, self.noise)
        return [self.painted[:, slot], self.prompts[:, slot], *(values[slot] for values in one_by_one)]

    def move(self, slot: int, other: "State", to: int) -> None:
        """Put everything about a slot into another one."""
        for mine, theirs in zip(self.rows(slot), other.rows(to), strict=True):
            theirs.copy_(mine)

    def texts(self, empty: Tensor, slots: int, length: int) -> Texts:
        """Return the prompts of the first slots, as far as the longest one goes."""
        mask = torch.arange(length, device=self.prompts.device) < self.prompt_lengths[:slots, None]
        return Texts(empty, self.prompts[:, :slots, :length], mask[:, None, None])


class Batch:
    """Samples that are painted beside each other; `empty` is what the decoder remembers of the empty prompt. All under `torch.inference_mode`."""

    def __init__(self, decoder: Decoder, empty: Tensor, graphs: bool = True) -> None:
        self.decoder, self.size = decoder, decoder.size
        self.samples: list[Sample] = []
        """By slots."""
        self._empty = empty[:, None]
        self._state = State(self.size, 0, empty.dtype, empty.device)
        self._recorder = Recorder(graphs and empty.device.type == "cuda")

    def join(self, sample: Sample) -> None:
        """Give a sample a slot, and read the tokens that it has already.

        Raises:
            torch.OutOfMemoryError: there is no room for it; all others are as they were.
        """
        slot = len(self.samples)
        self._make_room(slot + 1)
        state, given, length = self._state, list(sample.given), sample.text.shape[1]
        state.painted[:, slot] = 0
        state.prompts[:, slot] = 0
        state.prompts[:, slot, :length] = sample.text
        state.prompt_lengths[slot] = length
        state.codes[slot] = self.decoder.start
        state.position[slot] = len(given)
        state.token[slot] = given[-1] if given else self.decoder.start
        state.temperature[slot], state.top_k[slot], state.guidance[slot] = sample.drawing.temperature, sample.drawing.top_k, sample.drawing.guidance
        state.noise[slot] = chances(sample.seed, self.size.paints).to(state.noise)
        if given:
            self._read(slot, given, length)
        sample.position = len(given)
        self.samples.append(sample)

    def leave(self, sample: Sample) -> None:
        """Take a sample out; the last one takes its slot."""
        slot, last = self.samples.index(sample), len(self.samples) - 1
        if slot != last:
            self._state.move(last, self._state, slot)
            self.samples[slot] = self.samples[last]
        self.samples.pop()

    def step(self) -> list[Sample]:
        """Give every sample its next token; return those that have all of them now, which have left."""
        slots = bucket(len(self.samples))
        length = min(rounded(max(sample.position for sample in self.samples) + 1, STRETCH), self.size.paints)
        prompt = min(rounded(max(sample.text.shape[1] for sample in self.samples), PROMPT_STRETCH), self.size.reads)
        drawn = min(1 << (max(sample.drawing.top_k for sample in self.samples) - 1).bit_length(), self.size.codes)
        self._recorder.do((slots, length, prompt, drawn), partial(self._advance, slots, length, prompt, drawn))
        for sample in self.samples:
            sample.position += 1
        finished = [sample for sample in self.samples if sample.position == self.size.paints]
        for sample in finished:
            sample.codes = self.codes_of(sample)
            self.leave(sample)
        return finished

    def codes_of(self, sample: Sample) -> Tensor:
        """Return the tokens of a sample, (paints,) int64: the start token where there is none yet, one too large where none could be chosen."""
        return self._state.codes[self.samples.index(sample)].clone()

    def _make_room(self, samples: int) -> None:
        if samples <= self._state.slots:
            return
        roomier = State(self.size, bucket(samples), self._state.painted.dtype, self._state.painted.device)
        for slot in range(len(self.samples)):
            self._state.move(slot, roomier, slot)
        self._state = roomier
        self._recorder.forget()

    def _read(self, slot: int, given: list[int], prompt_length: int) -> None:
        """Remember the first tokens of a picture in one go."""
        state, device = self._state, self._state.codes.device
        tokens = torch.tensor([[self.decoder.start, *given[:-1]]], device=device)
        positions = torch.arange(len(given), device=device)[None]
        texts = Texts(
            self._empty, state.prompts[:, slot : slot + 1, :prompt_length], torch.ones(1, 1, 1, prompt_length, dtype=torch.bool, device=device)
        )
        self.decoder(tokens, positions, state.painted[:, slot], len(given), texts)
        state.codes[slot, : len(given)] = torch.tensor(given, device=device)

    def _advance(self, slots: int, length: int, prompt: int, drawn: int) -> None:
        """Work on the first slots, without looking at what the numbers are: a GPU's may not be there yet."""
        state = self._state
        # A slot that nobody sits in goes on to the end of the picture and stays there.
        position = state.position[:slots].clamp(max=length - 1)
        painted = state.painted[:, :slots].flatten(1, 2)
        hidden = self.decoder(state.token[:slots, None], position[:, None], painted, length, state.texts(self._empty, slots, prompt))
        logits = self.decoder.answer(hidden[:, 0], state.guidance[:slots])
        noise = state.noise[:slots].gather(1, position[:, None])[:, 0]
        chosen = choose(logits, noise, state.temperature[:slots], state.top_k[:slots], drawn)
        state.codes[:slots].scatter_(1, position[:, None], chosen[:, None])
        state.token[:slots] = chosen.clamp(max=self.size.codes - 1)
        state.position[:slots] = position + 1


def bucket(samples: int) -> int:
    """Return how many slots there are for so many samples."""
    return next((size for size in BUCKETS if size >= samples), rounded(samples, BUCKETS[-1]))


def rounded(value: int, stretch: int) -> int:
    """Round up."""
    return -(-value // stretch) * stretch


def chances(seed: int, count: int) -> Tensor:
    """Return a seed's random numbers, one for each token, (count,) float64 in (0, 1): its picture does not depend on who else is painted."""
    normal = noise_from_seeds([seed], (count,), torch.device("cpu"))()[0]
    return torch.special.ndtr(normal.double()).clamp(1e-9, 1 - 1e-9)


def choose(logits: Tensor, noise: Tensor, temperature: Tensor, top_k: Tensor, drawn: int) -> Tensor:
    """Draw a code for each sample among its likeliest ones, and all that are as likely as the last of these.

    Where a few sums come out a little differently, on other devices or in other batches, only draws on the very edge do too.

    Shapes:
        logits       (S, codes) float32
        noise        (S,) float64 in (0, 1): which part of the way through all chances, in the order of the codes
        temperature  (S,) float32
        top_k        (S,) int64, at most `drawn`
        returns      (S,) int64; `codes` where the logits are no numbers
    """
    best = logits.topk(drawn).values
    least = best.gather(1, top_k[:, None] - 1)
    is_kept = logits >= least
    weights = ((logits - best[:, :1]) / temperature[:, None]).exp() * is_kept
    # Whole numbers add up to the same sum in any order.
    sums = (weights.double() * 2**32).round().long().cumsum(1)
    is_reached = is_kept & (sums > noise[:, None] * sums[:, -1:])
    codes = torch.arange(logits.shape[1], device=logits.device)
    return torch.where(is_reached, codes, logits.shape[1]).amin(1)
