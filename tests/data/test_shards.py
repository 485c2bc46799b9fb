"""Tar shards: which are named, what is read of them, and what is refused."""

import functools
import http.server
import json
import pickle
import shutil
import sys
import tarfile
import threading

import pytest
from refusals import refused

from dartok.data.samples import SourceError
from dartok.data.shard_list import list_shards
from dartok.data.shards import ShardSource

from .conftest import add_member, png


def paths(folder):
    return [str(path) for path in sorted(folder.glob("*.tar"))]


def samples(source):
    return [sample for shard in range(source.num_shards) for sample in source.read_shard(shard)]


def write(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            add_member(tar, name, data)
    return str(path)


def test_pictures_come_with_their_label_in_the_order_of_the_shards(make_shards):
    source = ShardSource(paths(make_shards([2, 3])))
    assert source.class_names == ("ant", "bee", "cat")
    assert len(source) == 5
    assert [(s.name, s.label) for s in samples(source)] == [
        ("000.tar/000", 0),
        ("000.tar/001", 1),
        ("001.tar/002", 2),
        ("001.tar/003", 0),
        ("001.tar/004", 1),
    ]
    assert samples(source)[3].data == png(3)


@pytest.mark.parametrize("label", [str, lambda n: ("ant", "bee", "cat")[n]], ids=["number", "name"])
def test_labels_are_numbers_or_names(make_shards, label):
    folder = make_shards([6], label=lambda number: label(int(number)))
    expected = ShardSource(paths(folder), ("cat", "bee", "ant"))
    assert [sample.label for sample in samples(expected)] == [2, 1, 0] * 2


def test_without_classes_beside_them_shards_number_the_classes_of_a_model(make_shards):
    source = ShardSource(paths(make_shards([3], classes=None)), ("x", "y", "z"))
    assert [sample.label for sample in samples(source)] == [0, 1, 2]


def test_sizes_beside_the_shards_are_believed_and_a_given_number_more(make_shards):
    folder = make_shards([2, 3])
    (folder / "sizes.json").write_text(json.dumps({"000.tar": 20, "001.tar": 30}))
    assert len(ShardSource(paths(folder))) == 50
    assert len(ShardSource(paths(folder), num_samples=7)) == 7


def test_only_the_picture_and_the_label_are_read_and_nothing_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").write_text, ("!",))

    spoilt = {f"a.b/1.{suffix}": pickle.dumps(Trap()) for suffix in ("pyd", "pkl", "pth", "npy")}
    members = {"a.b/1.jpg": png(7), "a.b/1.seg.png": b"", **spoilt, "a.b/1.cls": b"1\n"}
    members |= {"._1.jpg": b"", "readme.txt": b"words", "a.b/2.JPEG": png(8), "a.b/2.cls": b"0"}
    source = ShardSource([write(tmp_path / "a.tar", members)], ("x", "y"))
    assert [(s.name, s.label, s.data) for s in samples(source)] == [
        ("a.tar/a.b/1", 1, png(7)),
        ("a.tar/a.b/2", 0, png(8)),
    ]
    assert len(source) == 2
    assert not (tmp_path / "sprung").exists()


def test_braces_stars_and_lists_name_shards(make_shards):
    folder = make_shards([1, 1, 1])
    everything = paths(folder)
    assert list_shards(f"{folder}/{{000..002}}.tar") == everything
    assert list_shards(f"{folder}/*.tar") == everything
    assert list_shards(everything[1]) == everything[1:2]
    listed = folder / "some.txt"
    listed.write_text("# two\n001.tar\n\nhttps://example.org/002.tar\n")
    assert list_shards(str(listed)) == [everything[1], "https://example.org/002.tar"]
    assert list_shards("http://x.org/{0..1}.tar") == ["http://x.org/0.tar", "http://x.org/1.tar"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset reads URLs with curl")
def test_shards_are_read_from_a_server(make_shards):
    folder = make_shards([2, 3])
    (folder / "sizes.json").write_text(json.dumps({"000.tar": 2, "001.tar": 3}))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        source = ShardSource(list_shards(url + "/{000..001}.tar"))
        assert (len(source), source.class_names) == (5, ("ant", "bee", "cat"))
        assert samples(source) == samples(ShardSource(paths(folder)))
        with pytest.raises(SourceError, match=r"shard http.*/9\.tar cannot be read") as error:
            samples(ShardSource([f"{url}/9.tar"], num_samples=1))
        assert "\n" not in str(error.value)
        server.shutdown()


def test_a_command_is_run_where_the_user_wrote_it(make_shards):
    folder = make_shards([2])
    shards = list_shards(f"pipe:cat {folder}/{{000..000}}.tar")
    source = ShardSource(shards, ("x", "y", "z"), num_samples=2)
    assert [sample.label for sample in samples(source)] == [0, 1]


@pytest.mark.refuses
@pytest.mark.parametrize(
    "entry", ["pipe:touch x", "PIPE:touch x", "pi\tpe:touch x", "s3://a/0.tar"]
)
def test_a_list_that_holds_a_command_is_refused(tmp_path, entry):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{entry}\n")
    with pytest.raises(ValueError, match=r"shards of .* must be paths or URLs of file, .*, got"):
        list_shards(str(listed))


@pytest.mark.refuses
@pytest.mark.parametrize("entry", ["https://x/'; touch y; '.tar", "http://x/$(y).tar"])
def test_an_address_that_a_shell_would_run_is_refused(tmp_path, entry):
    (tmp_path / "list.txt").write_text(entry + "\n")
    with pytest.raises(ValueError, match="must be URLs without spaces, .*percent-encode them"):
        list_shards(str(tmp_path / "list.txt"))


@pytest.mark.refuses
def test_missing_shards_are_refused(make_shards):
    folder = make_shards([1])
    data = f"{folder}/{{000..001}}.tar"
    with refused(f"shard {folder}/001.tar of {data} does not exist; check the path"):
        list_shards(data)
    with refused("data must close each of its braces, got 'a{0..1.tar'"):
        list_shards("a{0..1.tar")
    (folder / "none.txt").write_text("# nothing\n")
    with refused(f"list of shards {folder}/none.txt must hold a path or URL a line, got none"):
        list_shards(f"{folder}/none.txt")


@pytest.mark.refuses
def test_shards_of_unknown_classes_are_refused(make_shards):
    folder = make_shards([1], classes=None)
    with refused(
        f"classes of {folder}/000.tar are unknown: no classes.txt is beside it; name them in a "
        "file, one a line, and give it as --classes"
    ):
        ShardSource(paths(folder))


@pytest.mark.refuses
def test_distant_shards_of_unknown_number_are_refused(make_shards):
    url = f"file://{make_shards([1])}/000.tar"
    with refused(
        f"num-samples must be given: {url} is not counted, and no sizes.json beside it names it; "
        "give --num-samples, or --val-num-samples for what a run evaluates on"
    ):
        ShardSource([url])


@pytest.mark.refuses
@pytest.mark.parametrize("text", ["[1]", '{"000.tar": "many"}'])
def test_sizes_that_are_no_numbers_are_refused(make_shards, text):
    folder = make_shards([1])
    (folder / "sizes.json").write_text(text)
    with pytest.raises(ValueError, match=r"sizes\.json in .* must hold a whole number for each"):
        ShardSource(paths(folder))


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("members", "lacking"),
    [
        ({"1.jpg": b"", "2.cls": b"0", "2.jpg": b""}, "label (.cls)"),
        ({"1.cls": b"0"}, "picture (.jpg, .jpeg, .png, .webp)"),
    ],
)
def test_a_picture_without_a_label_and_the_other_way_round_are_refused(tmp_path, members, lacking):
    source = ShardSource([write(tmp_path / "a.tar", members)], ("x", "y"))
    with refused(
        f"a.tar/1 must be a picture and a label, got no {lacking}; add it or remove the other"
    ):
        samples(source)


@pytest.mark.refuses
def test_an_unknown_label_is_refused(make_shards):
    source = ShardSource(paths(make_shards([2], label=lambda number: f"dog{number}")))
    with refused(
        "label of 000.tar/000 must be one of the 3 classes, ant, bee, cat, or the number of one, "
        "got 'dog0'; mend or remove it"
    ):
        samples(source)


@pytest.mark.refuses
@pytest.mark.parametrize("content", [b"", b"<html>" * 200, None], ids=["empty", "text", "cut"])
def test_a_broken_shard_is_refused(make_shards, content):
    folder = make_shards([2])
    path = folder / "000.tar"
    path.write_bytes(path.read_bytes()[:552] if content is None else content)
    with pytest.raises(SourceError, match=r"shard .*000\.tar cannot be read \(.+\); ") as error:
        samples(ShardSource([str(path)], num_samples=2))
    assert "\n" not in str(error.value)


@pytest.mark.refuses
def test_without_webdataset_the_extra_is_named(make_shards, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ImportError, match=r"need webdataset: pip install 'dartok\[data\]'"):
        ShardSource(paths(make_shards([1])))
