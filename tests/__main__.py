"""The whole check, `python -m tests`: lint, format, types, tests. Other arguments go to pytest."""

import os
import subprocess
import sys

CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    # Most tests wait for sockets and processes most of the time: two at a time take little more than half as long.
    ("pytest", "-q", "-rs", "--numprocesses=2", "--dist=worksteal", *sys.argv[1:]),
)
# Each of them computes on one core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.exit(any([subprocess.call([sys.executable, "-m", *check]) for check in CHECKS]))
