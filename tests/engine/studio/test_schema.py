"""Every field of every operation is fuzzed by what the description says of it, right values and wrong ones."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

from tests.conftest import ScriptedPainter
from tests.engine.studio.conftest import ANN, Open

PATIENCE_S = 240.0
CONFIG = """
[[operations]]
include-path-regex = "^/(variation|inpaint|upscale|blend|morph|edit|explore|verify)$"
# No schema can say what is a picture: texts that are none are rightly refused.
checks.positive_data_acceptance.enabled = false
"""


async def test_schemathesis_finds_nothing(start: Open, painter: ScriptedPainter, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    async with start(webhook_hosts=("http://127.0.0.1:9",)) as house:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")),
            *("--config-file", str(tmp_path / "schemathesis.toml"), "run", f"{house.address}openapi.json"),
            *("--header", f"Authorization: Bearer {ANN}", "--seed", "1", "--max-examples", "8", "--max-failures", "5", "--no-color"),
            cwd=tmp_path,
            stdout=PIPE,
            stderr=STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        assert process.returncode == 0, output.decode()
        assert await house.ask("GET", "/health-check") == {"status": "READY"}
