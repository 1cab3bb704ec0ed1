"""Permission bits that matter here, as in Discord's topics/permissions."""

ADMINISTRATOR = 1 << 3
ADD_REACTIONS = 1 << 6
VIEW_CHANNEL = 1 << 10
SEND_MESSAGES = 1 << 11
MANAGE_MESSAGES = 1 << 13
EMBED_LINKS = 1 << 14
ATTACH_FILES = 1 << 15
READ_MESSAGE_HISTORY = 1 << 16
MENTION_EVERYONE = 1 << 17
USE_EXTERNAL_EMOJIS = 1 << 18
USE_APPLICATION_COMMANDS = 1 << 31
CREATE_PUBLIC_THREADS = 1 << 35
SEND_MESSAGES_IN_THREADS = 1 << 38

EVERYONE = (
    ADD_REACTIONS
    | VIEW_CHANNEL
    | SEND_MESSAGES
    | EMBED_LINKS
    | ATTACH_FILES
    | READ_MESSAGE_HISTORY
    | USE_EXTERNAL_EMOJIS
    | USE_APPLICATION_COMMANDS
    | CREATE_PUBLIC_THREADS
    | SEND_MESSAGES_IN_THREADS
)
"""What the role @everyone of the guild grants, people and bot alike."""
ALL = (1 << 53) - 1
"""What the owner of the guild and its administrators may do, whatever their roles say."""
DIRECT_MESSAGE = EVERYONE & ~CREATE_PUBLIC_THREADS & ~SEND_MESSAGES_IN_THREADS
"""What everybody may do in a direct message."""
TOLD_OF_GROUP = EMBED_LINKS | ATTACH_FILES | MENTION_EVERYONE
"""What interactions from a group name as the bot's permissions: not that it may see the channel or write, for it may not."""
TOLD_OF_DIRECT_MESSAGE = TOLD_OF_GROUP | USE_EXTERNAL_EMOJIS
"""What interactions from a direct message name, without that it may see it and write there, though it may."""
