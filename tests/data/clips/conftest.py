"""A video of each kind."""

import pytest
from clip_files import KINDS, NUM_FRAMES, write_video


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A video of each kind."""
    folder = tmp_path_factory.mktemp("videos")
    return {kind: write_video(folder / kind, kind, num_frames=NUM_FRAMES) for kind in KINDS}
