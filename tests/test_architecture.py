"""Which room may import what: one home per hazard, arrows that point one way."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TENSORS = ("engine/unclip/", "engine/training/", "engine/mini/")
HOMES = {
    # module: the only places that may import it
    "discord": ("cogs/", "bot.py"),
    "torch": TENSORS,
    "dalle2_pytorch": TENSORS,
    "open_clip": TENSORS,
    "engine.unclip": (*TENSORS, "engine/models.py", "engine/__main__.py", "bot.py"),
    "engine.mini": (*TENSORS, "engine/models.py", "engine/__main__.py"),
    "engine.training": ("engine/training/",),
    "engine.studio": ("engine/studio/", "bot.py"),
    "fastapi": ("engine/studio/",),
    "starlette": ("engine/studio/",),
    "uvicorn": ("engine/studio/",),
    "aiosqlite": ("engine/database.py",),
    "sqlite3": ("engine/database.py", "engine/history.py"),
    "threading": ("engine/worker.py",),
    "concurrent": ("engine/worker.py",),
    "dotenv": ("engine/settings.py",),
    "cogs": ("cogs/", "bot.py"),
    "loopback": ("loopback/", "bot.py"),
    "bot": (),
}
ENGINE_OF_UNCLIP = {"engine.errors", "engine.files", "engine.jobs", "engine.options", "engine.pictures", "engine.uploads", "engine.verdicts"}
SOURCES = sorted(path for room in ("bot.py", "cogs", "engine", "loopback") for path in (ROOT / room).rglob("*.py")) + [ROOT / "bot.py"]


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield every module that a file imports, also those named as attributes of packages."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module, names, 0) if module:
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom():
                pytest.fail(f"line {node.lineno}: imports here are absolute")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_hazard_stays_at_home(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    for module in imports(ast.parse(path.read_text())):
        for hazard, homes in HOMES.items():
            if module == hazard or module.startswith(hazard + "."):
                assert name.startswith(homes), f"{name} imports {module}"
        if name.startswith("engine/unclip/") and module.startswith("engine.") and not module.startswith("engine.unclip"):
            assert module.rsplit(".", 1)[0] in ENGINE_OF_UNCLIP or module in ENGINE_OF_UNCLIP, f"{name} imports {module}"
        if name.startswith("loopback/"):
            assert not module.startswith("engine"), f"{name} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_settings_read_the_environment_and_only_the_worker_starts_threads(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("environ", "getenv") or name in ("engine/settings.py", "loopback/contract.py"), f"{name}:{node.lineno}"
            assert node.attr not in ("to_thread",) or name == "engine/worker.py", f"{name}:{node.lineno}"


def test_the_bot_runs_without_what_only_the_studio_needs() -> None:
    script = "import sys, bot\nsys.exit(any(name in sys.modules for name in ('fastapi', 'starlette', 'uvicorn', 'engine.studio')))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=120).returncode == 0


def test_everything_but_the_tensors_loads_without_torch() -> None:
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES if not str(path.relative_to(ROOT)).startswith(TENSORS)]
    script = f"import sys, importlib\nfor name in {modules}:\n    importlib.import_module(name)\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=120).returncode == 0
