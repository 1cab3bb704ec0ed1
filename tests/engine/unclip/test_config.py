"""Model configs: dalle2-laion's format with every key, and what is wrong with one that is not."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Misconfigured
from engine.unclip import Painter
from engine.unclip.config import ModelConfig, read_model_config
from engine.unclip.model import choose_device, choose_dtype
from engine.unclip.train_config import DecoderConfig, PriorConfig, read_part
from tests.engine.fileserver import Shelf, serving

ROOT = Path(__file__).parents[3]
FILE = {
    "load_type": "url",
    "path": "https://huggingface.co/a/b/resolve/main/c.pth",
    "checksum_file_path": "x",
    "cache_dir": "./m",
    "filename_override": "n",
}
EVERY_KEY: dict[str, Any] = {
    "decoder": {
        "unet_sources": [
            {
                "unet_numbers": [2, 1],
                "default_sample_timesteps": [20, 30],
                "default_cond_scale": [1.0, 1.7],
                "default_solver": ["dpm++", "ddim"],
                "load_model_from": FILE,
                "load_config_from": FILE,
            },
            {"unet_numbers": [3], "load_model_from": {"load_type": "local", "path": "x.pth"}},
        ],
        "default_drafts": 4,
    },
    "prior": {"default_sample_timesteps": 64, "default_cond_scale": 1.0, "load_model_from": FILE, "load_config_from": FILE},
    "clip": {"make": "openai", "model": "ViT-L/14", "base_model_kwargs": None},
    "devices": ["cuda:1", "cuda:0"],
    "load_on_cpu": False,
    "strict_loading": False,
}


@pytest.mark.parametrize("name", ["laion", "laion-variation", "laion-upsampler", "picturebook/picturebook"])
def test_shipped_configs_are_valid(name: str) -> None:
    config = read_model_config(ROOT / "configs" / f"{name}.json")
    assert config.decoder is not None
    assert (config.prior is None) == (name in ("laion-variation", "laion-upsampler"))


def test_every_key_of_dalle2_laion_is_read_and_ours(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(EVERY_KEY))
    config = read_model_config(tmp_path / "c.json")
    assert config.decoder is not None and config.prior is not None and config.clip is not None
    assert config.decoder.unet_sources[0].load_model_from.filename_override == "n"
    assert (config.devices, config.load_on_cpu, config.strict_loading) == (["cuda:1", "cuda:0"], False, False)
    assert config.prior.default_sample_timesteps == 64


def changed(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """Return the config with one value changed, or left out where it is None."""
    config = json.loads(json.dumps(EVERY_KEY))
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("decoder", "unet_sources", 1, "unet_numbers"), [2], "must cover 1 to n once; they are [1, 2, 2]"),
        (("decoder", "unet_sources", 1, "unet_numbers"), [4], "must cover 1 to n once; they are [1, 2, 4]"),
        (("decoder", "unet_sources", 0, "default_cond_scale"), [1.0], "default_cond_scale must hold one value per unet: 2, not 1"),
        (("decoder", "unet_sources", 0, "load_model_from"), None, "decoder.unet_sources.0.load_model_from: this key is missing"),
        (("prior", "load_model_from", "load_type"), "ftp", "prior.load_model_from.load_type: Input should be 'local' or 'url'"),
        (("prior", "defualt_cond_scale"), 1, "prior.defualt_cond_scale: this key is not known here"),
        (("clip", "make"), "siglip", "clip.make: Input should be 'openai', 'open_clip', 'x-clip' or 'coca'"),
        (("clip",), None, "a prior needs the clip"),
        (("prior", "default_sample_timesteps"), 1, "prior.default_sample_timesteps: Input should be greater than or equal to 2 (got 1)"),
        (("prior", "default_cond_scale"), -1.0, "prior.default_cond_scale: Input should be greater than or equal to 0 (got -1.0)"),
        (("decoder", "unet_sources", 0, "default_sample_timesteps"), [20, 0], "timesteps.1: Input should be greater than or equal to 1"),
        (
            ("decoder", "unet_sources", 0, "default_solver"),
            ["euler", "ddim"],
            "default_solver.0: Input should be 'ddpm', 'ddim', 'dpm++' or 'dpm++sde'",
        ),
        (("decoder", "unet_sources", 0, "default_solver"), ["ddim"], "default_solver must hold one value per unet: 2, not 1"),
        (("decoder", "default_drafts"), 17, "decoder.default_drafts: Input should be less than or equal to 16 (got 17)"),
        (("devices",), 3, "devices"),
        (("strict_loading",), "maybe", "strict_loading"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(tmp_path: Path, path: tuple[str | int, ...], value: object, says: str) -> None:
    (tmp_path / "c.json").write_text(json.dumps(changed(path, value)))
    with pytest.raises(Misconfigured) as refused:
        read_model_config(tmp_path / "c.json")
    assert str(tmp_path / "c.json") in str(refused.value) and says in str(refused.value) and "\n" not in str(refused.value)


KEYS = [*EVERY_KEY, "unets", "net", "dim", "unet_sources", "image_sizes", "dim_mults", "depth"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2000) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*EVERY_KEY, "unets", "net", "dim", "unet_sources"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_a_config_or_refused(value: object) -> None:
    for read in (
        lambda: ModelConfig.model_validate(value),
        lambda: read_part(PriorConfig, "prior", {"prior": value}, Path("p.json")),
        lambda: read_part(DecoderConfig, "decoder", {"decoder": value}, Path("p.json")),
    ):
        try:
            read()
        except (Misconfigured, ValueError) as error:
            assert str(error)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({}, "decoder.unets: this key is missing"),
        ({"unets": [{"dim": 8, "dim_mults": [1]}], "image_sizes": [8, 16]}, "image_sizes must name one size per unet: 1, not [8, 16]"),
        ({"unets": [{"dim": -8, "dim_mults": [1]}], "image_sizes": [8]}, "decoder.unets.0.dim"),
        ({"unets": [{"dim": 10**9, "dim_mults": [1]}], "image_sizes": [8]}, "decoder.unets.0.dim"),
        ({"unets": [], "image_sizes": []}, "decoder.unets"),
    ],
)
def test_a_train_config_that_makes_no_sense_is_named(part: dict[str, Any], says: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        read_part(DecoderConfig, "decoder", {"decoder": part}, Path("train.json"))
    assert says in str(refused.value) and "train.json" in str(refused.value)


def test_what_a_trainer_wrote_as_none_is_the_default() -> None:
    part = {
        "unets": [{"dim": 8, "dim_mults": (1, 2), "attn_heads": None, "cond_dim": None}],
        "image_size": None,
        "image_sizes": (8,),
        "beta_schedule": None,
    }
    config = read_part(DecoderConfig, "decoder", {"decoder": part}, Path("x"))
    assert config.unets[0].attn_heads == 16 and config.sides == [8]


def test_a_model_may_lie_on_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = ROOT / "configs" / "picturebook"
    shelf = Shelf(
        {f"/{name}": (folder / name).read_bytes() for name in ("prior.safetensors", "prior.json", "decoder.safetensors", "decoder.json", "words.txt")}
    )
    with serving(shelf):
        config = json.loads((folder / "picturebook.json").read_text())

        def served(value: Any) -> Any:
            if isinstance(value, dict) and value.get("load_type") == "local":
                return {"load_type": "url", "path": f"{shelf.address}/{value['path']}", "cache_dir": "kept"}
            if isinstance(value, dict):
                return {key: served(inner) for key, inner in value.items()}
            return [served(inner) for inner in value] if isinstance(value, list) else value

        config = served(config) | {"clip": {"make": "open_clip", "model": f"local-dir:{folder / 'clip'}"}}
        (tmp_path / "away.json").write_text(json.dumps(config))
        painter = Painter.from_config(tmp_path / "away.json")
    assert painter.known_words and painter.model == "away"
    assert Painter.from_config(tmp_path / "away.json").dream(["a fox"], count=1, seed=1, steps=1)
    assert len(shelf.asked) == 5


@pytest.mark.parametrize("name", ["cuda", "cuda:7", "tpu:x", "", "meta nonsense"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(Misconfigured, match="device"):
        choose_device(name)


def test_auto_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto", ["cuda:1"]).type == "cpu" and choose_device("auto", []).type == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert str(choose_device("auto", ["cuda:1", "cuda:0"])) == "cuda:1"
    assert str(choose_dtype("auto", choose_device("auto", "cuda:0"))) == "torch.bfloat16"
    with pytest.raises(Misconfigured, match="no such GPU"):
        choose_device("cuda:2")
    with pytest.raises(Misconfigured, match="dtype"):
        choose_dtype("int8", choose_device("cpu"))
