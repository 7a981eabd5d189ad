"""Checkpoint cards: what they may say, and the files of embedded checkpoints."""

import hashlib
from dataclasses import replace

import pytest

from florence_lite import cards
from florence_lite.cards import CheckpointCard, checkpoint_card, tasks
from florence_lite.checkpoint import find_checkpoint

CHECKPOINT = CheckpointCard(
    name="tiny",
    summary="for tests",
    source="embedded",
    licence="MIT",
    image_size_wh=[32, 32],
    tasks=["<OD>"],
    sha256={"config.json": "0" * 64},
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "somewhere"}, "source = 'somewhere' must be 'embedded' or a Hub id"),
        ({"image_size_wh": (32,)}, r"image_size_wh = \(32,\) must be a width and a height in whole"),
        ({"image_size_wh": (0, 32)}, r"image_size_wh = \(0, 32\) must be a width and a height"),
        ({"mean": (0.5, 0.5)}, r"mean = \(0.5, 0.5\) must be three numbers"),
        ({"std": (0.5, 0.5, 0.0)}, r"std = \(0.5, 0.5, 0.0\) must be three numbers above 0"),
        ({"sha256": {}}, "sha256 is empty; an embedded checkpoint must name its files"),
        ({"sha256": {"config.json": "abc"}}, "sha256 has 'config.json' = 'abc'"),
        ({"sha256": {"config.json": "A" * 64}}, "sha256 has 'config.json'"),
        ({"sha256": {"../config.json": "0" * 64}}, "sha256 has '../config.json'; it must be the name of a file"),
        ({"decoding": {"beams": 3}}, "decoding has 'beams'; it may hold .*num_beams"),
        ({"metrics": {"ap": "good"}}, "metrics has 'ap' = 'good'; it must be a number"),
        ({"metrics": {"ap": 0.5}, "margins": {"ar": 0.1}}, "margins has 'ar', which metrics does not have"),
        ({"metrics": {"ap": 0.5}, "margins": {"ap": "wide"}}, "margins has 'ap' = 'wide'; it must be a number"),
        ({"decoding": {"num_beams": float("nan")}}, "decoding has 'num_beams' = nan"),
        ({"licence": " "}, "licence = ' '"),
        ({"for_photographs": "org/name"}, "trained_on = '' must be a string with something in it"),
        ({"for_photographs": " ", "trained_on": "drawings"}, "for_photographs = ' '"),
    ],
)
def test_checkpoint_card_names_the_faulty_field(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CHECKPOINT, **change)


def test_lists_of_a_card_become_tuples():
    assert (CHECKPOINT.image_size_wh, CHECKPOINT.tasks) == ((32, 32), ("<OD>",))
    assert hash(CHECKPOINT) == hash(replace(CHECKPOINT))


def test_files_of_a_checkpoint():
    with pytest.raises(FileNotFoundError, match="checkpoint tiny: .*config.json is missing"):
        CHECKPOINT.find_files()
    with pytest.raises(ValueError, match="tiny is not embedded; its files come from org/tiny"):
        replace(CHECKPOINT, source="org/tiny").find_files()


def test_a_damaged_file_is_told(tmp_path, monkeypatch):
    """One bit of the weights is another; the same files are right before."""
    monkeypatch.setattr(checkpoint_card, "card_folder", lambda kind: tmp_path)
    weights = tmp_path / "tiny" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(bytes(range(256)))
    card = replace(CHECKPOINT, sha256={"model.safetensors": hashlib.sha256(bytes(range(256))).hexdigest()})
    monkeypatch.setitem(checkpoint_card.CHECKPOINTS.by_name, "tiny", card)
    assert find_checkpoint("tiny").folder == weights.parent
    weights.write_bytes(bytes([1, *range(1, 256)]))
    with pytest.raises(ValueError, match="checkpoint tiny: .*model.safetensors is damaged, its sha256 is .*reinstall"):
        find_checkpoint("tiny")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "tokenizer.json", "added_tokens.json", "merges.txt"])
def test_a_file_without_a_digest_is_not_read(tmp_path, name):
    """Neither in a checkpoint of the package nor in one from the Hub."""
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "README.md").write_bytes(b"is not read")
    listed = {"config.json": hashlib.sha256(b"{}").hexdigest()}
    for source in ("embedded", "org/tiny"):
        card = replace(CHECKPOINT, source=source, sha256=listed)
        card.check_files(tmp_path)
        (tmp_path / name).write_bytes(b"{}")
        with pytest.raises(ValueError, match=f"checkpoint tiny: the card has no sha256 of {name} in"):
            card.check_files(tmp_path)
        (tmp_path / name).unlink()
    replace(CHECKPOINT, source="org/tiny", sha256={}).check_files(tmp_path)


def test_a_checkpoint_from_the_hub_is_compared_too(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_bytes(b"{}")
    card = replace(CHECKPOINT, name="hub-tiny", source="org/tiny", sha256={"config.json": "0" * 64})
    monkeypatch.setitem(checkpoint_card.CHECKPOINTS.by_name, "hub-tiny", card)
    monkeypatch.setattr("florence_lite.checkpoint.hub.download", lambda *args, **options: tmp_path)
    for name in ("hub-tiny", "org/tiny"):
        with pytest.raises(ValueError, match="checkpoint hub-tiny: .*config.json is damaged, its sha256 is"):
            find_checkpoint(name)
    assert find_checkpoint("org/tiny", revision="main").folder == tmp_path  # the card speaks of no other revision


def test_unknown_checkpoint():
    with pytest.raises(ValueError, match="unknown checkpoint 'no-such'; checkpoints: "):
        cards.checkpoint("no-such")


def test_shipped_checkpoints():
    known = {card.name for card in tasks()}
    for card in cards.checkpoints():
        assert cards.checkpoint(card.name) is card
        assert set(card.tasks) <= known
        if card.source == "embedded":
            assert {file.name for file in card.find_files().iterdir()} == set(card.sha256)


def test_a_checkpoint_without_photographs_names_one_with_them():
    public = [card for card in cards.checkpoints() if card.source != "embedded"]
    assert all(card.trained_on for card in cards.checkpoints())
    assert not any(card.for_photographs for card in public)
    [embedded] = [card for card in cards.checkpoints() if card.source == "embedded"]
    assert embedded.for_photographs in [card.source for card in public]
