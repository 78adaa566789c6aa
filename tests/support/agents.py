"""The commands of docs/agents.md."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def documented(example, output):
    """The arguments of Python of an example as the page names them, but for where it writes."""
    page = (ROOT / "docs/agents.md").read_text("utf-8")
    (line,) = re.findall(rf"^\$ python (examples/{example}\.py .*)$", page, re.MULTILINE)
    return [str(output) if word == "said.wav" else word for word in line.split()]
