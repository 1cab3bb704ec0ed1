"""The documentation is held to the code."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import discord
import pytest

from cogs.settings import NAMES
from engine.__main__ import arguments
from engine.history import History
from engine.settings import Settings
from engine.unclip.commissions import Painted
from tests.cogs.conftest import featured

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
INVITED = discord.Permissions(
    view_channel=True,
    send_messages=True,
    send_messages_in_threads=True,
    embed_links=True,
    attach_files=True,
    read_message_history=True,
    add_reactions=True,
)


Offered = discord.app_commands.Command | discord.app_commands.Group | discord.app_commands.ContextMenu


@pytest.fixture
async def offered(history: History) -> list[Offered]:
    return list((await featured(history)).tree.get_commands())


@pytest.fixture
def commands(offered: list[Offered]) -> list[discord.app_commands.Command]:
    found = []
    for command in offered:
        if isinstance(command, discord.app_commands.Group):
            found += [one for one in command.walk_commands() if isinstance(one, discord.app_commands.Command)]
        elif isinstance(command, discord.app_commands.Command):
            found.append(command)
    return found


def rows(heading: str, level: str = "###") -> dict[str, str]:
    """Return the table below a heading of the README: first column (in backticks) → the rest of the row."""
    section = README.split(f"\n{level} {heading}\n", 1)[1].split("\n#", 1)[0]
    return dict(re.findall(r"^\| `/?([\w ]+)` \| (.*) \|$", section, re.MULTILINE))


async def test_the_command_table_is_that_of_the_code(commands: list[discord.app_commands.Command]) -> None:
    assert {command.qualified_name: command.description.rstrip(".") for command in commands} == {
        name: text.split(":")[0].rstrip(".") for name, text in rows("Commands").items()
    }


async def test_every_menu_is_named_in_the_readme(offered: list[Offered]) -> None:
    menus = [command.name for command in offered if isinstance(command, discord.app_commands.ContextMenu)]
    assert len(menus) == 6 and all(f"**{name}**" in README for name in menus)


async def test_every_option_is_described_and_named_in_the_readme(commands: list[discord.app_commands.Command]) -> None:
    for command in commands:
        for parameter in command.parameters:
            assert parameter.description != "…", f"/{command.qualified_name} {parameter.name}"
            assert f"`{parameter.display_name}`" in rows("Commands")[command.qualified_name]


def test_the_settings_table_is_that_of_the_file_and_of_the_code() -> None:
    values = tomllib.loads((ROOT / "configs" / "bot.toml").read_text())
    table = {key: json.loads(re.match(r"`(.*?)`", text)[1]) for key, text in rows("Settings").items()}
    assert table == values
    assert set(values) == set(Settings.model_fields) - {"token", "keys"}


def test_every_choice_of_the_panel_is_in_the_readme() -> None:
    section = README.split("\n### A server's own rules\n", 1)[1].split("\n### ", 1)[0]
    told = [name.strip() for names in re.findall(r"^\| ([^|]+) \| (?:person|channel|server)", section, re.MULTILINE) for name in names.split(",")]
    assert sorted(told) == sorted(NAMES.values())


def test_the_permission_integer_is_the_sum_of_the_permissions() -> None:
    assert f"**{INVITED.value}**" in README and f"permissions={INVITED.value}" in README


def test_every_file_and_link_in_the_readme_exists() -> None:
    for target in re.findall(r"!?\[[^\]]*\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
    for path in re.findall(r"`((?:engine|cogs|configs|loopback|tests)/[\w/.]*|bot\.py)`", README):
        assert (ROOT / path).exists(), path


def test_every_command_line_of_the_readme_is_understood() -> None:
    lines = re.findall(r"^\.venv/bin/python -m engine (.*)$", README, re.MULTILINE)
    assert {arguments(shlex.split(line)).command for line in lines} == set(rows("Without Discord", level="##"))


def test_the_python_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    made: dict[str, list[Painted]] = {}
    exec(compile(example, "README.md", "exec"), made)
    assert (tmp_path / "fox.png").exists() and len(made["others"]) == 4


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in re.findall(r"make (run|test|dream)", README))


def test_requirements_are_pinned() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith(("#", "-"))]
        assert lines and all("==" in line for line in lines)
