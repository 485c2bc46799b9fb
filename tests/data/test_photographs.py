import re
import socket
import sys
from typing import get_args

import pytest

from dartok.data.photographs import PhotographName, load_photograph


@pytest.mark.parametrize("name", get_args(PhotographName))
def test_photographs_are_read_without_a_network(name, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a photograph reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    photograph = load_photograph(name)
    assert photograph.shape[0] == 3
    assert min(photograph.shape[1:]) >= 300
    assert 0 <= photograph.min() < 0.1
    assert 0.8 < photograph.max() <= 1


@pytest.mark.refuses
def test_an_unknown_photograph_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="one of astronaut, chelsea, coffee, rocket, got 'lena'"):
        load_photograph("lena")


@pytest.mark.refuses
def test_a_missing_package_is_answered_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'dartok[demo]'")):
        load_photograph("coffee")
