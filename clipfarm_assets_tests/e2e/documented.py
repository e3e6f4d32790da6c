"""The commands that docs/operating.md tells people to type.

A block marked ``console`` holds commands, each after ``$ ``, and may show what they print. One
marked ``python`` is run as it stands.
"""

import re
from dataclasses import dataclass

from clipfarm_assets_tests.e2e import kit

PAGE = kit.REPOSITORY / "docs" / "operating.md"
_BLOCK = re.compile(r"^(## [^\n]+|### [^\n]+)$|^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of the page: what kind, what it holds, and which ``##`` section it is in."""

    section: str
    kind: str
    text: str

    @property
    def lines(self) -> list[str]:
        """Its commands; one may go on below after a backslash."""
        joined = self.text.replace("\\\n", " ")
        return [line[2:].strip() for line in joined.splitlines() if line.startswith("$ ")]


def blocks() -> list[Block]:
    """All blocks of the page, in order."""
    found, section = [], ""
    for heading, kind, text in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if heading.startswith("## "):
            section = heading.removeprefix("## ")
        elif not heading:
            found.append(Block(section, kind, text))
    return found


def lines_of(section: str) -> list[str]:
    """The commands of a section."""
    found = [line for block in blocks() if block.section == section for line in block.lines]
    assert found, f"docs/operating.md has no section {section!r} with commands"
    return found
