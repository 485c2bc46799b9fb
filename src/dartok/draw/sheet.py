"""Several pictures on one sheet, with captions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

__all__ = ["contact_sheet"]

_PAPER = (255, 255, 255)
_INK = (32, 33, 36)
_MIN_TEXT_PX = 14
_MIN_COLUMN_EM = 11
"""Width of a column in letter heights, at least: the captions of narrow pictures stay readable."""

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class _Cell(NamedTuple):
    """A picture and the lines of its caption."""

    picture: Image.Image
    lines: list[str]


class _Style(NamedTuple):
    """The font, and the lengths that follow from it."""

    font: _Font
    text_px: int

    @property
    def margin_px(self) -> int:
        return round(1.2 * self.text_px)

    @property
    def line_px(self) -> int:
        return round(1.35 * self.text_px)

    def width_px(self, text: str) -> int:
        return math.ceil(self.font.getlength(text))


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    captions: Sequence[Sequence[str]] | None = None,
    *,
    title: str = "",
) -> Image.Image:
    """Pictures in rows and columns on white paper, each over its caption, none of them resized.

    Captions are broken into lines that fit their column. Letters and margins grow with the
    pictures, so that a sheet reads the same at any size.

    Args:
        rows: The pictures of each row; rows may differ in length, pictures in size.
        captions: A caption for each picture, in the same rows; None for none.
        title: A heading over the whole sheet.
    Returns:
        One RGB picture.
    Raises:
        ValueError: If a row is empty, or captions and pictures do not match.
    Example:
        >>> picture = Image.new("RGB", (320, 200))
        >>> contact_sheet([[picture, picture]]).size
        (691, 234)
    """
    if not rows or not all(rows):
        raise ValueError("rows must hold at least one picture each, got an empty row or none")
    texts = [[""] * len(row) for row in rows] if captions is None else captions
    counts, text_counts = [len(row) for row in rows], [len(row) for row in texts]
    if counts != text_counts:
        raise ValueError(f"captions must be {counts} per row as the pictures, got {text_counts}")
    style = _style([picture for row in rows for picture in row])
    widths = _column_widths(rows, style)
    cells = [
        [
            _Cell(picture, _wrap(text, style, width))
            for picture, text, width in zip(row, line, widths, strict=False)
        ]
        for row, line in zip(rows, texts, strict=True)
    ]
    total_width = sum(widths) + style.margin_px * (len(widths) + 1)
    heading = _wrap(title, style, total_width - 2 * style.margin_px)
    return _paint(cells, widths, heading, style)


def _style(pictures: Sequence[Image.Image]) -> _Style:
    """Letters one 26th of the side of a typical picture, and at least 14 px."""
    sides = sorted(math.sqrt(picture.width * picture.height) for picture in pictures)
    text_px = max(_MIN_TEXT_PX, round(sides[len(sides) // 2] / 26))
    return _Style(ImageFont.load_default(text_px), text_px)


def _column_widths(rows: Sequence[Sequence[Image.Image]], style: _Style) -> list[int]:
    columns = range(max(len(row) for row in rows))
    least = _MIN_COLUMN_EM * style.text_px
    return [max([least, *(row[i].width for row in rows if i < len(row))]) for i in columns]


def _wrap(text: str, style: _Style, width_px: int) -> list[str]:
    """Lines of at most `width_px`; a word longer than a line is cut, so that nothing is clipped."""
    lines: list[str] = []
    for word in text.split():
        candidate = f"{lines[-1]} {word}" if lines else word
        if lines and style.width_px(candidate) <= width_px:
            lines[-1] = candidate
        else:
            lines.extend(_cut(word, style, width_px))
    return lines


def _cut(word: str, style: _Style, width_px: int) -> list[str]:
    parts = [""]
    for letter in word:
        if parts[-1] and style.width_px(parts[-1] + letter) > width_px:
            parts.append("")
        parts[-1] += letter
    return parts


def _row_heights(row: Sequence[_Cell], style: _Style) -> tuple[int, int]:
    """Height of the pictures of a row, and of the captions below them."""
    num_lines = max(len(cell.lines) for cell in row)
    gap = style.text_px // 2 if num_lines else 0
    return max(cell.picture.height for cell in row), gap + num_lines * style.line_px


def _paint(
    cells: Sequence[Sequence[_Cell]], widths: Sequence[int], heading: list[str], style: _Style
) -> Image.Image:
    margin = style.margin_px
    heights = [_row_heights(row, style) for row in cells]
    top = margin + (len(heading) * style.line_px + style.text_px // 2 if heading else 0)
    size = (
        sum(widths) + margin * (len(widths) + 1),
        top + sum(picture + caption + margin for picture, caption in heights),
    )
    sheet = Image.new("RGB", size, _PAPER)
    _write(sheet, heading, (margin, margin), size[0] - 2 * margin, style)
    for row, (picture_px, caption_px) in zip(cells, heights, strict=True):
        left = margin
        for cell, width in zip(row, widths, strict=False):
            middle = (width - cell.picture.width) // 2
            sheet.paste(cell.picture, (left + middle, top + picture_px - cell.picture.height))
            caption_top = top + picture_px + style.text_px // 2
            _write(sheet, cell.lines, (left, caption_top), width, style)
            left += width + margin
        top += picture_px + caption_px + margin
    return sheet


def _write(
    sheet: Image.Image, lines: list[str], corner: tuple[int, int], width_px: int, style: _Style
) -> None:
    pen = ImageDraw.Draw(sheet)
    for index, line in enumerate(lines):
        left = corner[0] + (width_px - style.width_px(line)) // 2
        pen.text((left, corner[1] + index * style.line_px), line, fill=_INK, font=style.font)
