"""Images of every kind of source: listed, named, and read back."""

import io
import os
import tarfile
import tracemalloc

import pytest

from florence_lite.data.sources import ListedImage, count_images, list_images, read_source
from tests.tiny import noise_image

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    noise_image(seed, (12, 9)).save(stream, "PNG")
    return stream.getvalue()


PICTURES = [png(seed) for seed in range(6)]


@pytest.fixture
def folder(tmp_path):
    """Pictures 0–3 in a folder, one of them further down, beside files that are none."""
    top = tmp_path / "photos"
    (top / "more").mkdir(parents=True)
    for name, content in (("b.png", 1), ("a.PNG", 0), ("more/c.png", 2), ("d.png", 3)):
        (top / name).write_bytes(PICTURES[content])
    (top / "notes.txt").write_text("a.PNG")
    (top / ".hidden.png").write_bytes(PICTURES[4])
    return top


def tar_of(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def read_all(*asked, **more):
    """Names with contents; what is read by the entry is what is read by the name."""
    found = {}
    for image in list_images(list(asked), **more):
        found[image.name] = image.read()
        assert read_source(image.name) == found[image.name]
    return found


def test_a_folder_and_the_folders_in_it(folder):
    expected = {"a.PNG": 0, "b.png": 1, "d.png": 3, "more/c.png": 2}
    found = read_all(folder)
    assert found == {str(folder / name): PICTURES[n] for name, n in expected.items()}
    assert list(found) == [str(folder / name) for name in expected] and count_images(folder) == 4


def test_a_link_that_leads_in_a_circle_is_followed_once(folder):
    (folder / "more" / "up").symlink_to(folder, target_is_directory=True)
    assert count_images(folder) == 4


def test_what_the_data_engine_wrote_is_no_source(folder):
    out = folder / "answers"
    (out / "parts").mkdir(parents=True)
    (out / "run.json").write_text("{}")
    (out / "near.png").write_bytes(PICTURES[5])
    assert count_images(folder) == 4


def test_patterns_and_sequences(folder, tmp_path):
    assert [os.path.basename(name) for name in read_all(str(folder / "**" / "*.png"))] == ["b.png", "d.png", "c.png"]
    for number in range(9, 12):
        tar_of(tmp_path / f"shard-{number:03d}.tar", {"x.png": PICTURES[number - 8]})
    found = read_all(str(tmp_path / "shard-{009..011}.tar"))
    assert list(found) == [f"{tmp_path}/shard-{n:03d}.tar!x.png" for n in range(9, 12)]


def test_a_list_names_anything_and_what_is_missing_is_found_out_by_reading(folder, tmp_path):
    tar = tar_of(tmp_path / "s.tar", {"in/x.png": PICTURES[5]})
    (tmp_path / "list.txt").write_text(f"photos/a.PNG\n\n{tar}!in/x.png\nphotos/gone.png\n")
    images = list(list_images(tmp_path / "list.txt"))
    assert [image.read() for image in images[:2]] == [PICTURES[0], PICTURES[5]]
    with pytest.raises(FileNotFoundError, match="gone.png does not exist"):
        images[2].read()


@pytest.mark.parametrize(("ending", "mode"), [(".tar", "w"), (".tar.gz", "w:gz")])
def test_members_of_a_tar(tmp_path, ending, mode):
    members = {"1.png": PICTURES[1], "1.json": b"{}", "deep/2.png": PICTURES[2], "._1.png": b"junk"}
    path = tar_of(tmp_path / f"s{ending}", members, mode)
    expected = {f"{path}!1.png": PICTURES[1], f"{path}!deep/2.png": PICTURES[2]}
    assert read_all(path) == expected and count_images(path) == 2
    assert read_all(tmp_path) == expected  # a folder without images stands for its tars


@pytest.mark.parametrize("cut", [400, 1024 + 512, 3000, 10240 - 1])
def test_a_tar_that_is_cut_gives_what_is_whole_and_an_error(tmp_path, cut):
    path = tar_of(tmp_path / "s.tar", {f"{n}.png": PICTURES[n] for n in range(3)})
    whole = path.read_bytes()
    start_of_end = max(image.offset + image.size for image in list_images(path))
    path.write_bytes(whole[: min(cut, start_of_end - 1)])
    good, bad = [], []
    for image in list_images(tmp_path):
        try:
            good.append(image.read())
        except ValueError as error:
            bad.append(str(error))
    assert good == PICTURES[: len(good)] and bad and all(str(path) in each for each in bad)


def test_a_tar_that_ends_between_members_is_noticed(tmp_path):
    path = tar_of(tmp_path / "s.tar", {f"{n}.png": PICTURES[n] for n in range(3)})
    second = list(list_images(path))[1]
    path.write_bytes(path.read_bytes()[: second.offset + -(-second.size // 512) * 512])
    assert [image.error for image in list_images(path)][:2] == ["", ""]
    assert "no mark at its end" in list(list_images(path))[2].error


def test_a_tar_that_is_damaged_between_members_is_noticed(tmp_path):
    path = tar_of(tmp_path / "s.tar", {f"{n}.png": PICTURES[n] for n in range(3)})
    content = bytearray(path.read_bytes())
    content[content.index(b"1.png") + 150] ^= 0xFF  # of its check sum, where tarfile stops in silence
    path.write_bytes(content)
    first, last = list_images(path)
    assert not first.error and "what follows is damaged" in last.error


@pytest.mark.parametrize("source", ["", "b.png", "*.png", "../list.txt", "../shard.tar"])
def test_a_column_of_what_has_none_is_refused(folder, source):
    (folder.parent / "list.txt").write_text(f"{folder}/b.png")
    tar_of(folder.parent / "shard.tar", {"a.png": PICTURES[0]})
    with pytest.raises(ValueError, match="column is 'pic', but .* has no columns, which parquet files .* leave it out"):
        list_images(str(folder / source), "pic")


def test_a_column_of_some_sources_is_taken(folder, tmp_path):
    (tmp_path / "tables").mkdir()
    pq.write_table(pa.table({"pic": PICTURES[:2]}), tmp_path / "tables" / "a.parquet")
    for source, count in (([folder, tmp_path / "tables"], 6), (tmp_path / "tables", 2), (f"{tmp_path}/tables/*", 2)):
        assert len(list(list_images(source, "pic"))) == count


@pytest.mark.parametrize("column", [pa.array(PICTURES), pa.array([{"bytes": each, "path": None} for each in PICTURES])])
def test_bytes_in_a_parquet_file(tmp_path, column):
    table = pa.table({"id": list(range(6)), "photo": column})
    pq.write_table(table, tmp_path / "p.parquet", row_group_size=4)
    found = read_all(tmp_path / "p.parquet")
    assert found == {f"{tmp_path}/p.parquet!{n}/photo": PICTURES[n] for n in range(6)}
    assert count_images(tmp_path / "p.parquet") == 6


def test_paths_in_a_parquet_file_and_a_null(folder, tmp_path):
    table = pa.table({"text": ["x", "y"], "path": ["photos/a.PNG", None]})
    pq.write_table(table, tmp_path / "p.parquet")
    first, second = list_images(tmp_path / "p.parquet")
    assert first == ListedImage(str(folder / "a.PNG")) and "null" in second.error


def test_a_data_set_of_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"n": [0, 1], "image": [{"bytes": each, "path": None} for each in PICTURES[:2]]})
    rows = rows.cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "saved")
    found = read_all(tmp_path / "saved")
    assert list(found.values()) == PICTURES[:2] * 2 and count_images(tmp_path / "saved") == 4
    assert list(found)[2] == f"datasets:{tmp_path}/saved!test/0/image"
    rows.to_parquet(tmp_path / "plain" / "train.parquet")
    assert list(read_all(f"datasets:{tmp_path / 'plain'}").values()) == PICTURES[:2]


def test_a_name_that_is_no_utf8_is_an_error_of_its_own(folder):
    with open(os.fsencode(folder) + b"/\xff.png", "wb") as file:
        file.write(PICTURES[5])
    bad = [image for image in list_images(folder) if image.error]
    assert len(bad) == 1 and "rename it" in bad[0].error and bad[0].name.encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_listed_with_its_error(folder):
    (folder / "more").chmod(0)
    try:
        assert [image.error for image in list_images(folder)][-1] == (
            f"folder {folder / 'more'} cannot be read: Permission denied"
        )
    finally:
        (folder / "more").chmod(0o700)


def no_files(tmp_path):
    return tmp_path


def unknown_kind(tmp_path):
    (tmp_path / "a.docx").write_text("x")
    return tmp_path / "a.docx"


def no_parquet(tmp_path):
    (tmp_path / "a.parquet").write_text("x")
    return tmp_path / "a.parquet"


def no_column(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (no_files, ValueError, "holds no images"),
        (lambda tmp_path: tmp_path / "photoz", FileNotFoundError, r"looked in .*\)$"),
        (lambda tmp_path: "owner/photoz", FileNotFoundError, "is written datasets:owner/photoz"),
        (lambda tmp_path: r"C:\photos", FileNotFoundError, r"looked in .*\)$"),
        (lambda tmp_path: tmp_path / "*.jpg", FileNotFoundError, "no file matches"),
        (lambda tmp_path: [], ValueError, "there is no source"),
        (unknown_kind, ValueError, "of no known kind"),
        (no_parquet, ValueError, "is no parquet file"),
        (no_column, ValueError, r"no column that is known to hold images.*a \(int64\)"),
        (lambda tmp_path: f"datasets:{tmp_path}", ValueError, "cannot be loaded"),
    ],
)
def test_sources_that_are_none(tmp_path, make, error, message):
    with pytest.raises(error, match=message):
        list(list_images(make(tmp_path)))


@pytest.mark.parametrize("name", ["/gone.png", "/gone.tar!a.png", "{tmp}/s.tar!gone.png", "{tmp}/p.parquet!9/image"])
def test_names_that_lead_nowhere_are_named(tmp_path, name):
    tar_of(tmp_path / "s.tar", {"1.png": PICTURES[1]})
    pq.write_table(pa.table({"image": PICTURES}), tmp_path / "p.parquet")
    name = name.format(tmp=tmp_path)
    with pytest.raises(FileNotFoundError) as told:
        read_source(name)
    assert name in str(told.value)


def test_a_large_tar_and_parquet_file_are_never_in_memory(tmp_path):
    content = os.urandom(100_000)
    tar_of(tmp_path / "s.tar", {f"{n}.jpg": content for n in range(200)})
    pq.write_table(pa.table({"image": [content] * 200}), tmp_path / "p.parquet", compression="none")
    for path in ("s.tar", "p.parquet"):
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        highest = 0
        for image in list_images(tmp_path / path):
            assert len(image.read()) == 100_000
            highest = max(highest, pa.total_allocated_bytes() - before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak + highest < 12e6, path


def test_a_list_whose_paths_lead_from_elsewhere_is_refused(tmp_path, monkeypatch):
    (tmp_path / "lists").mkdir()
    (tmp_path / "a.png").write_bytes(b"picture")
    (tmp_path / "lists" / "all.txt").write_text("a.png\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"a.png is there from the working folder, but .* own folder, .*lists; write"):
        list_images("lists/all.txt")
