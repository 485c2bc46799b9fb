"""Lists of videos: every way in which data sets write them, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from dartok.data.clips.clip_list import read_clip_list


def listed(tmp_path, text, name="train.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return [tuple(video) for video in read_clip_list(path)]


@pytest.mark.parametrize("sign", [" ", ",", "\t", ", ", "  "])
def test_fields_are_parted_by_spaces_commas_or_tabs(tmp_path, sign):
    text = f"a/1.mp4{sign}3\n\n b/2.webm{sign}12 \n"
    assert listed(tmp_path, text) == [("a/1.mp4", 3), ("b/2.webm", 12)]


@pytest.mark.parametrize("sign", [" ", ",", "\t"])
def test_a_number_of_frames_between_is_passed_over(tmp_path, sign):
    assert listed(tmp_path, f"v/17{sign}48{sign}170\n") == [("v/17", 170)]


def test_labels_may_be_names(tmp_path):
    text = '1.mp4,riding a bike\n"a, b.mp4","sipping cup"\n'
    assert listed(tmp_path, text) == [("1.mp4", "riding a bike"), ("a, b.mp4", "sipping cup")]
    assert listed(tmp_path, "1.mp4 riding\n") == [("1.mp4", "riding")]


def test_a_path_between_spaces_may_hold_some(tmp_path):
    text = "my videos/a b.mp4 3\nmy videos/7 40 2\n"
    assert listed(tmp_path, text) == [("my videos/a b.mp4", 3), ("my videos/7", 2)]


@pytest.mark.parametrize("header", ["path,label", "video_path,num_frames,Label", "file,class"])
def test_a_first_line_that_names_the_columns_is_passed_over(tmp_path, header):
    assert listed(tmp_path, f"{header}\n1.mp4,0\n") == [("1.mp4", 0)]


def test_a_mark_of_the_byte_order_and_windows_ends_of_lines_do_no_harm(tmp_path):
    assert listed(tmp_path, "\ufeffa.mp4 1\r\nb.mp4 0\r\n") == [("a.mp4", 1), ("b.mp4", 0)]


def test_the_official_lists_of_kinetics_name_their_files(tmp_path):
    text = (
        "label,youtube_id,time_start,time_end,split,is_cc\n"
        "testifying,---QUuC4vJs,84,94,validate,0\n"
        '"eating, fast",--3ouPhoy2A,20,30,validate,0\n'
    )
    assert listed(tmp_path, text) == [
        ("---QUuC4vJs_000084_000094.mp4", "testifying"),
        ("--3ouPhoy2A_000020_000030.mp4", "eating, fast"),
    ]


NAMES = st.text(st.characters(categories=["L", "N"], include_characters="-_/."), min_size=1)


@given(st.lists(st.tuples(NAMES, st.integers(0, 999)), min_size=1), st.sampled_from(" ,\t"))
def test_what_is_written_is_read(tmp_path_factory, videos, sign):
    text = "".join(f"{name}{sign}{label}\n" for name, label in videos)
    assert listed(tmp_path_factory.mktemp("list"), text) == videos


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("text", "line", "got"),
    [
        ("a.mp4,1\nb.mp4\n", 2, "b.mp4"),
        ("\n\na.mp4\n", 3, "a.mp4"),
        ("a.mp4,1\nb.mp4,\n", 2, "b.mp4 | "),
        ("a.mp4,1\n,2\n", 2, " | 2"),
        ("a.mp4,1,2,3\n", 1, "a.mp4 | 1 | 2 | 3"),
        ("a.mp4,x,3\n", 1, "a.mp4 | x | 3"),
    ],
)
def test_a_line_without_path_and_label_is_refused(tmp_path, text, line, got):
    with refused(
        f"line {line} of list {tmp_path}/train.csv must be a path and a label, with a comma, tab "
        f"or space between them, got {got!r}; mend it"
    ):
        listed(tmp_path, text)


@pytest.mark.refuses
def test_a_line_of_kinetics_without_times_is_refused(tmp_path):
    text = "label,youtube_id,time_start,time_end\nabseiling,x,early,late\n"
    with refused(
        f"line 2 of list {tmp_path}/train.csv must be label, youtube_id, time_start, time_end, the "
        "times in whole seconds, got 'abseiling | x | early | late'; mend it"
    ):
        listed(tmp_path, text)


@pytest.mark.refuses
def test_what_is_no_list_is_refused(tmp_path):
    with refused(
        f"list {tmp_path}/a.csv cannot be read (No such file or directory); check the path"
    ):
        read_clip_list(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("\n \n")
    with refused(f"list {tmp_path}/a.csv must hold a path and a label a line, got no line"):
        read_clip_list(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"a\.csv must be text in UTF-8 \(.*\); save it so"):
        read_clip_list(tmp_path / "a.csv")
