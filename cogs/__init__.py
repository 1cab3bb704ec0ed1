"""What people can do in Discord: one module per feature; a leading underscore marks a part that features share."""

EXTENSIONS = (
    "cogs.dream",
    "cogs.variations",
    "cogs.inpaint",
    "cogs.mix",
    "cogs.explore",
    "cogs.verify",
    "cogs.paint",
    "cogs.card",
    "cogs.replies",
    "cogs.queue",
    "cogs.history",
    "cogs.gallery",
    "cogs.settings",
    "cogs.moderation",
    "cogs.mydata",
)
