"""Make the fixtures of `test_dialects.py` with the old releases of dalle2-pytorch themselves.

    python -m tests.engine.unclip.make_dialects [RELEASE …]

Downloads each release (without dependencies), builds tiny networks of LAION's shape with it, asks them, and writes `dialects/RELEASE.npz`: configs,
names, shapes, buffers, inputs and answers. Weights are not stored: `weights_of` makes the same ones from their names.
"""

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "dialects"
RELEASES = (
    *("0.7.0", "0.10.1", "0.11.0", "0.12.4", "0.14.0", "0.14.1", "0.15.0", "0.15.2", "0.15.3", "0.15.4", "0.16.0", "0.16.1", "0.16.2"),
    *("0.20.1", "0.21.0", "0.21.1", "0.22.1", "0.22.3", "0.23.0", "0.23.2", "0.23.3", "0.23.5", "0.23.6", "0.23.9", "0.23.10", "0.24.0"),
    *("0.24.3", "0.25.0", "1.0.1", "1.0.3", "1.1.0", "1.2.0", "1.2.2", "1.4.0", "1.4.2", "1.4.3", "1.6.1", "1.6.2", "1.8.4", "1.9.0"),
    *("1.10.0", "1.10.3", "1.10.4", "1.11.1", "1.12.0", "1.12.1", "1.12.4", "1.14.2", "1.15.6"),
)
"""Both sides of every boundary in `engine/unclip/dialects.py`, and those that LAION's files name."""
FIRST_DECODER = (0, 11, 0)
BATCH, TIMES, SPREAD = 2, 20, 0.15
GUIDANCE = 2.5
PRIOR = {"dim": 32, "depth": 2, "heads": 2, "dim_head": 16, "num_timesteps": TIMES, "max_text_len": 8, "normformer": True}
PRIORS = {"plain": {}, "rich": {"num_time_embeds": 2, "num_image_embeds": 2, "num_text_embeds": 2}, "self": {"self_cond": True}}
UNET = {"dim": 8, "dim_mults": [1, 2], "cond_dim": 16, "attn_heads": 2, "attn_dim_head": 8, "num_resnet_blocks": 1}
DECODERS = {
    "laion": (
        {"image_embed_dim": 32, "self_attn": [False, True], "cond_on_text_encodings": True, "text_embed_dim": 12, "max_text_len": 8},
        {"memory_efficient": True, "scale_skip_connection": True, "combine_upsample_fmaps": True},
    ),
    "other": (
        {"image_embed_dim": 32, "sparse_attn": True, "cosine_sim_cross_attn": True, "resnet_weight_standardization": True},
        {"cross_embed_downsample": True, "pixel_shuffle_upsample": False, "nearest_upsample": True, "final_conv_kernel_size": 3, "self_attn": True},
    ),
}

BROKEN = {"pixel_shuffle_upsample": ((0, 21, 0), (0, 23, 5)), "sparse_attn": ((1, 4, 3), (1, 4, 3))}
"""Switches that releases from the first to the last one have, but cannot be built with."""


def weights_of(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the weights that a tensor of this name and shape has in every fixture: float32, uniform, the same for ever."""
    count = int(np.prod(shape))
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(count)
    values = ((np.atleast_1d(raw) >> np.uint64(11)).astype(np.float64) * 2.0**-53 - 0.5) * 2 * SPREAD
    # Factors of norms are near 1, as in a trained network.
    offset = 1.0 if name.endswith((".g", ".gamma", "norm.weight", "norm_cond.weight", "norm_mid_cond.weight")) else 0.0
    return (values + offset).astype(np.float32).reshape(shape)


def inputs(name: str, *shape: int) -> np.ndarray:
    """Return an input, float32, about as large as unit Gaussian noise."""
    return weights_of(f"input {name}", shape) / SPREAD * 1.7


def encodings(width: int, release: str) -> np.ndarray:
    """Return text encodings whose first text is shorter than the second; not for releases that turn zeros into NaN."""
    values = inputs("encodings", BATCH, 6, width)
    if not (0, 16, 2) <= tuple(map(int, release.split("."))) < (0, 23, 0):
        values[0, 4:] = 0
    return values


def text_mask() -> np.ndarray:
    """Return the mask of a text that is shorter than the other."""
    return np.arange(6) < np.array([[4], [6]])


def main() -> None:
    """Make all fixtures, or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("releases", nargs="*", default=RELEASES)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        write(options.inside)
        return
    FOLDER.mkdir(exist_ok=True)
    for release in options.releases:
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
            subprocess.run([*pip, f"dalle2-pytorch=={release}", "einops-exts"], check=True)
            environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{Path.cwd()}", "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-W", "ignore", "-m", "tests.engine.unclip.make_dialects", "--inside", release]
            subprocess.run(command, check=True, env=environment)
        print(FOLDER / f"{release}.npz")


def write(release: str) -> None:
    """Write the fixture of the release that is imported here."""
    found: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, changes in PRIORS.items():
        prior(name, changes, release, found, arrays)
    number = tuple(map(int, release.split(".")))
    broken = {key for key, (first, last) in BROKEN.items() if first <= number <= last}
    if number >= FIRST_DECODER:
        for name, unets in DECODERS.items():
            decoder(name, [{key: value for key, value in unet.items() if key not in broken} for unet in unets], release, found, arrays)
    np.savez_compressed(FOLDER / f"{release}.npz", facts=json.dumps({"release": release, "models": found}), **arrays)


def taken(function: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a function has, by the names of its release."""
    return {key: value for key, value in arguments.items() if key in inspect.signature(function).parameters}


def remember(module: Any, name: str, found: dict[str, Any], arrays: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    """Give a module its weights, and note names, shapes and what is no weight."""
    import torch

    parameters = dict(module.named_parameters(remove_duplicate=False))
    noted, unread = {}, []
    with torch.no_grad():
        for key, value in module.state_dict().items():
            noted[key] = list(value.shape)
            if key in parameters or key.endswith(".beta"):
                value.copy_(torch.from_numpy(weights_of(key, tuple(value.shape))))
            elif key.endswith("alphas_cumprod"):
                # All other buffers follow from this one, and inference reads none of them.
                arrays[f"{name}/buffer/{key}"] = value.numpy()
            else:
                unread.append(key)
        for key, value in parameters.items():
            if not np.array_equal(value.numpy(), weights_of(key, tuple(value.shape))):
                # Layers that share one tensor have the weights of the last one's name.
                arrays[f"{name}/buffer/{key}"] = value.numpy().copy()
    module.eval()
    found[name] = {"config": config, "tensors": noted, "unread": unread, "answers": []}


def ask(net: Any, name: str, call: str, x: Any, times: Any, keywords: dict[str, Any], found: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Note a network's answers under guidance; to the first question also without."""
    import torch

    first = not any(noted[1].split()[:2] == call.split()[:2] for noted in found[name]["answers"])
    for scale in (1.0, GUIDANCE) if first else (GUIDANCE,):
        with torch.no_grad():
            # Copied, because some releases write into the mask that they are given.
            answer = net.forward_with_cond_scale(x, times, cond_scale=scale, **{key: value.clone() for key, value in keywords.items()})
        key = f"{name}/{call}/{scale:g}"
        arrays[key] = answer.numpy()
        found[name]["answers"].append([key, call, scale])


def prior(name: str, changes: dict[str, Any], release: str, found: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Note a prior, where this release has what it needs."""
    import torch
    from dalle2_pytorch import DiffusionPrior, DiffusionPriorNetwork

    known = inspect.signature(DiffusionPriorNetwork).parameters
    if not changes.keys() <= known.keys():
        return
    config = {key: value for key, value in (PRIOR | changes).items() if key in known or key != "max_text_len"}
    own = {"image_embed_dim": PRIOR["dim"], "timesteps": TIMES, "cond_drop_prob": 0.1}
    model = DiffusionPrior(net=DiffusionPriorNetwork(**config), **own)
    name = f"prior/{name}"
    remember(model, name, found, arrays, {"prior": {"net": config, "image_size": 8, **own}})
    x, times = torch.from_numpy(inputs("embed", BATCH, 32)), torch.tensor([3, TIMES - 2])
    text = {"text_embed": torch.from_numpy(inputs("text", BATCH, 32))}
    encoded = torch.from_numpy(encodings(32, release))
    ask(model.net, name, "text", x, times, text | {"text_encodings": encoded}, found, arrays)
    ask(model.net, name, "no encodings", x, times, text, found, arrays)
    if "mask" in inspect.signature(model.net.forward).parameters:
        ask(model.net, name, "mask", x, times, text | {"text_encodings": encoded, "mask": torch.from_numpy(text_mask())}, found, arrays)
    if "self_cond" in changes:
        before = torch.from_numpy(inputs("before", BATCH, 32))
        ask(model.net, name, "self", x, times, text | {"text_encodings": encoded, "self_cond": before}, found, arrays)


def decoder(name: str, changes: list[dict[str, Any]], release: str, found: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Note a decoder, with as much of what it is to have as this release has."""
    import torch
    from dalle2_pytorch import Decoder, Unet

    configs = [taken(Unet, UNET | change) for change in changes]
    for config in configs:
        if isinstance(config.get("self_attn"), bool):
            config["self_attn"] = [True, False]
    own = taken(Decoder, {"image_sizes": [8, 16], "timesteps": TIMES, "condition_on_text_encodings": name == "laion", "learned_variance": True})
    model = Decoder(tuple(Unet(**config) for config in configs), **own)
    name = f"decoder/{name}"
    remember(model, name, found, arrays, {"decoder": {"unets": configs, **own}})
    times = torch.tensor([3, TIMES - 2])
    for number, unet in enumerate(model.unets, start=1):
        side = 8 * number
        x = torch.from_numpy(inputs(f"picture {number}", BATCH, 3, side, side))
        keywords = {"image_embed": torch.from_numpy(inputs("embed", BATCH, 32))}
        if number == 2:
            keywords["lowres_cond_img"] = torch.from_numpy(inputs("lowres", BATCH, 3, side, side))
        call = f"unet {number}"
        ask(unet, name, call, x, times, keywords, found, arrays)
        if unet.cond_on_text_encodings:
            keywords["text_encodings"] = torch.from_numpy(encodings(12, release))
            ask(unet, name, f"{call} text", x, times, keywords, found, arrays)
            if "text_mask" in inspect.signature(unet.forward).parameters:
                keywords["text_mask"] = torch.from_numpy(text_mask())
                ask(unet, name, f"{call} mask", x, times, keywords, found, arrays)
    conditioner = getattr(model, "to_lowres_cond", None)
    if conditioner is not None and not getattr(conditioner, "blur_prob", 0):
        arrays[f"{name}/enlarged"] = conditioner(torch.from_numpy(inputs("small", BATCH, 3, 8, 8)).clamp(0, 1), target_image_size=16).numpy()


if __name__ == "__main__":
    main()
