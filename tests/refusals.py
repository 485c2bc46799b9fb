"""What a refusal must say, to the letter; so it is one line, too."""

import re

import pytest


def refused(message):
    """Context in which a ValueError with exactly this message is raised."""
    assert "\n" not in message
    return pytest.raises(ValueError, match=rf"\A{re.escape(message)}\Z")
