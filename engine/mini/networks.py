"""DALL·E Mini's two transformers, from the bottom up: what their layers share, the encoder of prompts, the decoder of pictures.

Numbers are checked against the original in `tests/engine/mini/test_oracle.py`. Tensors are named as in min-dalle's files; those that are multiplied
with the same input are kept as one (FUSED), which saves most of the calls.

S samples of a batch are decoded as R = 2 S rows: each without its prompt and then with it. Q tokens of each are read at a time, L are remembered.

Source: kuprel/min-dalle 0.4.11, `models/dalle_bart_encoder.py` and `dalle_bart_decoder.py`. What differs: keys and values of a prompt are computed
once and without padding; those of painted tokens are kept in the network's number format and read only as far as there are any; both answers of
guidance are mixed before the projection to the vocabulary, which is linear.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.unclip.packing import Linear

FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "encoder_attn.kv_proj": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "glu.fc01": ("glu.fc0", "glu.fc1"),
}
"""By our names, the parts as the files have them, in the order of their rows."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a model's files are: `texts` and `codes` are the lengths of both vocabularies, `reads` and `paints` those of a prompt and of a picture.

    The decoder's own vocabulary is a little longer than that of the detokenizer, which is what `codes` counts: the rest is never painted.
    """

    layers: int
    width: int
    heads: int
    glu: int
    texts: int
    reads: int
    codes: int
    paints: int

    @property
    def depth(self) -> int:
        """Numbers of a head."""
        return self.width // self.heads


class Glu(nn.Module):
    """The gated feed-forward layer, with its residual."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.ln0 = nn.LayerNorm(size.width)
        self.ln1 = nn.LayerNorm(size.glu)
        self.fc01 = Linear(size.width, 2 * size.glu)
        self.fc2 = Linear(size.glu, size.width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.fc01(self.ln0(x)).chunk(2, dim=-1)
        return x + self.fc2(self.ln1(F.gelu(gate) * value))


class SelfAttention(nn.Module):
    """The projections of tokens that look at each other."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.shape = (3, size.heads, size.depth)
        self.qkv_proj = Linear(size.width, 3 * size.width)
        self.out_proj = Linear(size.width, size.width)

    def project(self, x: Tensor) -> Tensor:
        """Return queries, keys and values, (..., 3, heads, depth)."""
        return self.qkv_proj(x).unflatten(-1, self.shape)


class CrossAttention(nn.Module):
    """The projections of picture tokens that look at a prompt."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.shape = (size.heads, size.depth)
        self.q_proj = Linear(size.width, size.width)
        self.kv_proj = Linear(size.width, 2 * size.width)
        self.out_proj = Linear(size.width, size.width)

    def project(self, x: Tensor) -> Tensor:
        """Return queries, (..., heads, depth)."""
        return self.q_proj(x).unflatten(-1, self.shape)

    def remember(self, states: Tensor) -> Tensor:
        """Return keys and values of a prompt, (..., 2, heads, depth)."""
        return self.kv_proj(states).unflatten(-1, (2, *self.shape))


def attend(queries: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
    """Let queries look at what is remembered.

    Shapes:
        queries  (B, Q, heads, depth)
        memory   (B, L, 2, heads, depth), keys and values
        mask     (B, 1, 1 or Q, L), True = seen; None = everything is
        returns  (B, Q, width)
    """
    keys, values = memory[:, :, 0].transpose(1, 2), memory[:, :, 1].transpose(1, 2)
    return F.scaled_dot_product_attention(queries.transpose(1, 2), keys, values, attn_mask=mask).transpose(1, 2).flatten(2)


class EncoderLayer(nn.Module):
    """Tokens of a prompt look at each other; norms stand on both sides of the attention."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.pre_self_attn_layer_norm = nn.LayerNorm(size.width)
        self.self_attn = SelfAttention(size)
        self.self_attn_layer_norm = nn.LayerNorm(size.width)
        self.glu = Glu(size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        qkv = self.self_attn.project(self.pre_self_attn_layer_norm(x))
        seen = attend(qkv[:, :, 0], qkv[:, :, 1:], mask)
        return self.glu(x + self.self_attn_layer_norm(self.self_attn.out_proj(seen)))


class Encoder(nn.Module):
    """Reads prompts."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(size.texts, size.width)
        self.embed_positions = nn.Embedding(size.reads, size.width)
        self.layers = nn.ModuleList(EncoderLayer(size) for _ in range(size.layers))
        self.layernorm_embedding = nn.LayerNorm(size.width)
        self.final_ln = nn.LayerNorm(size.width)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Read prompts of one length: the padding that training added behind them changes nothing and is left out.

        Shapes:
            ids      (B, T) int64
            mask     (B, T) bool, False where a token is not looked at
            returns  (B, T, width)
        """
        x = self.layernorm_embedding(self.embed_tokens(ids) + self.embed_positions.weight[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x, mask[:, None, None])
        return self.final_ln(x)


class DecoderLayer(nn.Module):
    """Picture tokens look at those before them, then at the prompt."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.pre_self_attn_layer_norm = nn.LayerNorm(size.width)
        self.self_attn = SelfAttention(size)
        self.self_attn_layer_norm = nn.LayerNorm(size.width)
        self.pre_encoder_attn_layer_norm = nn.LayerNorm(size.width)
        self.encoder_attn = CrossAttention(size)
        self.encoder_attn_layer_norm = nn.LayerNorm(size.width)
        self.glu = Glu(size)

    def forward(self, x: Tensor, painted: Tensor, place: tuple[Tensor, Tensor], mask: Tensor, texts: "Texts", layer: int) -> Tensor:
        """Work on R rows of Q tokens each; what they are to be remembered by is written into `painted`, (R, L, 2, heads, depth), at `place`."""
        qkv = self.self_attn.project(self.pre_self_attn_layer_norm(x))
        painted[place] = qkv[:, :, 1:]
        seen = attend(qkv[:, :, 0], painted[:, : mask.shape[-1]], mask)
        x = x + self.self_attn_layer_norm(self.self_attn.out_proj(seen))
        queries = self.encoder_attn.project(self.pre_encoder_attn_layer_norm(x))
        seen = texts.seen_by(queries, layer)
        x = x + self.encoder_attn_layer_norm(self.encoder_attn.out_proj(seen))
        return self.glu(x)


@dataclass(frozen=True, slots=True)
class Texts:
    """The prompts of a batch, as its layers remember them.

    Shapes:
        empty    (layers, 1, T', 2, heads, depth), the empty prompt, which all samples share
        prompts  (layers, S, T, 2, heads, depth)
        mask     (S, 1, 1, T) bool, False behind the end of a shorter prompt
    """

    empty: Tensor
    prompts: Tensor
    mask: Tensor

    def seen_by(self, queries: Tensor, layer: int) -> Tensor:
        """Let R rows of queries, (R, Q, heads, depth), look at the empty prompt and at their own in turn; return (R, Q, width)."""
        rows, length = queries.shape[:2]
        pairs = queries.unflatten(0, (rows // 2, 2))
        # One prompt for all samples: they ask it as if they were tokens of one.
        without = attend(pairs[:, 0].flatten(0, 1)[None], self.empty[layer], None).unflatten(1, (rows // 2, length))[0]
        own = attend(pairs[:, 1], self.prompts[layer], self.mask)
        return torch.stack([without, own], dim=1).flatten(0, 1)


class Decoder(nn.Module):
    """Paints pictures token by token."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.embed_tokens = nn.Embedding(size.codes, size.width)
        self.embed_positions = nn.Embedding(size.paints, size.width)
        self.layers = nn.ModuleList(DecoderLayer(size) for _ in range(size.layers))
        self.layernorm_embedding = nn.LayerNorm(size.width)
        self.final_ln = nn.LayerNorm(size.width)
        # Codes that are never painted need no answer.
        self.lm_head = Linear(size.width, size.codes)

    @property
    def start(self) -> int:
        """The token before the first one: the last code, which is how the files are used."""
        return self.size.codes - 1

    def remember(self, states: Tensor) -> Tensor:
        """Return what each layer remembers of a prompt, (layers, T, 2, heads, depth), from what the encoder says of it, (T, width)."""
        attentions = (layer.get_submodule("encoder_attn") for layer in self.layers)
        return torch.stack([attention.remember(states) for attention in attentions if isinstance(attention, CrossAttention)])

    def forward(self, tokens: Tensor, positions: Tensor, painted: Tensor, length: int, texts: Texts) -> Tensor:
        """Read tokens that stand before those to be painted.

        Shapes:
            tokens     (S, Q) int64
            positions  (S, Q) int64, of what comes after each token, from 0; below `length`
            painted    (layers, R, L, 2, heads, depth), read up to `length`; written at `positions`
            returns    (R, Q, width)
        """
        x = self.layernorm_embedding(self.embed_tokens(tokens) + self.embed_positions(positions)).repeat_interleave(2, dim=0)
        positions = positions.repeat_interleave(2, dim=0)
        place = (torch.arange(len(positions), device=positions.device)[:, None], positions)
        mask = (torch.arange(length, device=positions.device) <= positions[:, :, None])[:, None]
        for number, layer in enumerate(self.layers):
            x = layer(x, painted[number], place, mask, texts, number)
        return self.final_ln(x)

    def answer(self, hidden: Tensor, guidance: Tensor) -> Tensor:
        """Return the guided logits of the codes, (S, codes) float32.

        Shapes:
            hidden    (R, width)
            guidance  (S,) float32; 1 = the answer with the prompt
        """
        pairs = hidden.unflatten(0, (-1, 2)).float()
        scale = guidance[:, None]
        return self.lm_head((pairs[:, 0] * (1 - scale) + pairs[:, 1] * scale).to(hidden.dtype)).float()
