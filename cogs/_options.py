"""Options that several commands have, with their ranges, choices and descriptions."""

from discord import app_commands

from cogs._language import mark
from engine.jobs import COUNT_LIMIT, GUIDANCE_LIMIT, PROMPT_LIMIT, SEED_LIMIT, STEPS_LIMIT, Preset

Prompt = app_commands.Range[str, 1, PROMPT_LIMIT]
Count = app_commands.Range[int, 1, COUNT_LIMIT]
Seed = app_commands.Range[int, 0, SEED_LIMIT - 1]
Steps = app_commands.Range[int, 1, STEPS_LIMIT]
Share = app_commands.Range[float, 0.0, 1.0]
Guidance = app_commands.Range[float, 0.0, GUIDANCE_LIMIT]
PRESET_NAMES: dict[str, str] = {Preset.FAST: mark("fast"), Preset.BALANCED: mark("balanced"), Preset.BEST: mark("best")}
PRESETS = [app_commands.Choice(name=name, value=preset) for preset, name in PRESET_NAMES.items()]
WHOSE = [app_commands.Choice(name=mark("mine"), value="mine"), app_commands.Choice(name=mark("the server's"), value="server")]
DESCRIPTIONS = {
    "count": "How many pictures",
    "seed": "Paint an earlier picture again: equal seeds give equal pictures",
    "steps": "Denoising steps: more take longer and are finer",
    "guidance": "How strictly to follow the prompt; 1 is not at all strict",
    "preset": "How much work a picture is worth",
    "spoiler": "Hide the pictures until somebody clicks on them",
}
OF_FIXED_COUNT = {name: text for name, text in DESCRIPTIONS.items() if name != "count"}
"""Where as many pictures come as there must be."""
