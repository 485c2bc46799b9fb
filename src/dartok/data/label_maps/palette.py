"""Colours of classes that a data set gives none."""

from dartok.data.label_maps.pictures import Colour

__all__ = ["voc_colours"]

_BITS = 8


def voc_colours(count: int) -> tuple[Colour, ...]:
    """The palette of PASCAL VOC: `count` colours, black first, and any two of them differ.

    The bits of the index, from the lowest on, go in turn to red, green and blue, highest bit first:
    `colour[c] = sum_k bit(index, 3 k + c) * 2^(7 - k)`.

    Source: the development kit of PASCAL VOC.

    Args:
        count: From 0 to 2^24.
    Example:
        >>> voc_colours(4)
        ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    """
    return tuple((_level(i, 0), _level(i, 1), _level(i, 2)) for i in range(count))


def _level(index: int, channel: int) -> int:
    return sum((index >> (3 * k + channel) & 1) << (_BITS - 1 - k) for k in range(_BITS))
