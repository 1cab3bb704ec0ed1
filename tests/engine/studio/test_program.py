"""The program itself with --studio: a process of its own, the bundled model with its real weights, Discord on this machine."""

import asyncio
import io
import re
import signal
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

from engine.pictures import read_receipt
from tests.test_bot import PATIENCE_S, program, settings

KEY = "ann-has-this-key-alone"
FOX = {"prompt": "a fox on a blue background", "seed": 7}


async def opened(process: asyncio.subprocess.Process) -> str:
    """Read the studio's address off what the program prints."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        async for line in process.stdout:
            if found := re.search(r"studio is at +(http://127\.0\.0\.1:\d+)/", line.decode()):
                return found[1]
    raise AssertionError("the studio did not open")


async def ask(session: aiohttp.ClientSession, method: str, address: str, **more: Any) -> Any:
    async with asyncio.timeout(PATIENCE_S), session.request(method, address, headers={"Authorization": f"Bearer {KEY}"}, **more) as answer:
        told = await (answer.json() if answer.content_type == "application/json" else answer.read())
        assert answer.status == 200, told
        return told


async def test_the_bundled_model_embeds_paints_varies_repaints_and_enlarges_over_http(tmp_path: Path) -> None:
    config = settings(tmp_path, studio_port=0)
    async with program("--local", "--studio", "--config", str(config), STUDIO_KEYS=f"ann:{KEY}") as process, aiohttp.ClientSession() as session:
        address = await opened(process)
        told = await ask(session, "POST", f"{address}/predictions", json={"input": FOX | {"candidates": 2, "sample_timesteps": 8}})
        assert told["status"] == "succeeded", told
        vectors = {which: np.load(io.BytesIO(await ask(session, "GET", address + told["urls"][which]))) for which in told["output"]}
        assert all(np.allclose(vectors[which], told["output"][which]) and abs(np.linalg.norm(vectors[which]) - 1) < 1e-3 for which in vectors)
        # What the prior draws for a prompt is near to what CLIP reads in it.
        assert vectors["text_embedding"] @ vectors["image_embedding"] > 0.2
        dream = await ask(session, "POST", f"{address}/dream", json={"input": FOX | {"count": 2, "steps": 8}})
        assert dream["status"] == "succeeded", dream
        own = dream["output"]["pictures"][0]["url"]
        png = await ask(session, "GET", address + own)
        assert read_receipt(png)["prompt"] == FOX["prompt"] and read_receipt(png)["seed"] == "7"
        red, _, blue = np.median(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3), axis=0)
        assert blue > red + 60
        for kind, more in (
            ("variation", {"count": 1, "steps": 2}),
            ("inpaint", {"count": 1, "steps": 2, "region": "left", "prompt": "a fox on a red background"}),
            ("upscale", {"preset": "fast"}),
        ):
            done = await ask(session, "POST", f"{address}/{kind}", json={"input": {"image": own, "seed": 1} | more})
            assert done["status"] == "succeeded", done
            picture = Image.open(io.BytesIO(await ask(session, "GET", address + done["output"]["pictures"][0]["url"])))
            assert picture.size == (128, 128)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
        assert process.stderr is not None and b"Traceback" not in await process.stderr.read()


async def test_a_studio_that_others_could_use_without_a_key_does_not_open(tmp_path: Path) -> None:
    config = settings(tmp_path, studio_port=0, studio_address="0.0.0.0")
    async with program("--local", "--studio", "--config", str(config)) as process:
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    said = errors.decode().strip().splitlines()[-1]
    assert process.returncode == 1 and said.startswith("Anybody on the network could use") and "Traceback" not in errors.decode()
