"""Draw the sprite sheet of the picture book.

Source: Noto Color Emoji (Google, SIL Open Font License 1.1), Debian's `fonts-noto-color-emoji`, bitmap strikes of 109 px.
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from engine.training.world import NAMES, SPRITE_SIDE, SPRITES

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
STRIKE = 109  # the only size that this bitmap font holds
COLUMNS = 8
EMOJI = "🍎🎈🍌🐝🐦⛵🦋🌵🍰🚗🥕🐱🍒🦀👑🐶🍩🐘🐟🌻🦊🐸👻🍇🎸🍔❤🏠🍋🦁🌙🍄🐙🦉🐼🐧🐷🍕🐰🚀⭐🍓🚂🌳🐢☂🍉🐳"


def main() -> None:
    """Write `sprites.png`, one tile per object in the order of NAMES."""
    sheet = Image.new("RGBA", (COLUMNS * SPRITE_SIDE, -(-len(NAMES) // COLUMNS) * SPRITE_SIDE))
    for index, emoji in enumerate(EMOJI):
        sheet.paste(draw(emoji), (index % COLUMNS * SPRITE_SIDE, index // COLUMNS * SPRITE_SIDE))
    sheet.save(SPRITES, optimize=True)


def draw(emoji: str) -> Image.Image:
    """Draw one emoji as a tile."""
    glyph = Image.new("RGBA", (2 * STRIKE, 2 * STRIKE))
    font = ImageFont.truetype(FONT, STRIKE)
    ImageDraw.Draw(glyph).text((STRIKE // 2, STRIKE // 2), emoji, font=font, embedded_color=True)
    glyph = glyph.crop(glyph.getbbox())
    side = max(glyph.size)
    tile = Image.new("RGBA", (side, side))
    tile.paste(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
    return tile.resize((SPRITE_SIDE, SPRITE_SIDE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
