"""Elections and memberships as stories, from the first start to a healed partition.

Each file in `tests/transcripts/cluster/` has commands (see `tests/simulator/script.py`), a line
`----`, and what happens. After a change of the protocol write what happens now, and read the
difference, line by line:

    EXO_REWRITE_TRANSCRIPTS=1 pytest tests/p2p/test_transcripts.py
    git diff tests/transcripts/cluster
"""

import os
from pathlib import Path

import pytest

from tests.simulator.script import play

STORIES = sorted((Path(__file__).parent.parent / "transcripts" / "cluster").glob("*.txt"))
REWRITE = "EXO_REWRITE_TRANSCRIPTS" in os.environ


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_story_is_as_told(path: Path):
    script, _, told = path.read_text("utf-8").partition("----\n")
    happened = play(script)
    if REWRITE:
        path.write_text(f"{script.rstrip()}\n----\n{happened}", "utf-8")
        return
    assert happened == told


def test_there_are_stories():
    assert len(STORIES) > 10
