"""The whole check, `python -m tests`: lint, format, types, tests. Other arguments go to pytest."""

import subprocess
import sys

CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("pytest", "-q", "-rs", *sys.argv[1:]),
)

sys.exit(any([subprocess.call([sys.executable, "-m", *check]) for check in CHECKS]))
