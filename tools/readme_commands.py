"""Print the commands of a named code block of README.md, so that what is tested is what is written.

A block is named by the HTML comment above it: `<!-- run: install -->`.
"""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def commands(name: str, text: str) -> str:
    """The block's text; exits with a message where there is no such block."""
    found = re.search(rf"<!-- run: {re.escape(name)} -->\s*```\w*\n(.*?)```", text, re.DOTALL)
    if found is None:
        sys.exit(f"README.md has no block marked <!-- run: {name} -->")
    return found[1]


if __name__ == "__main__":
    print(commands(sys.argv[1], README.read_text(encoding="utf-8")), end="")
