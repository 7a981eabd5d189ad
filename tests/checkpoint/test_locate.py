"""Where names lead; what an adapter names as its base is not fetched on the adapter's word alone."""

import pytest

from florence_lite.checkpoint import find_base
from florence_lite.checkpoint.adapter_config import AdapterBase


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What would be fetched; nothing is in the cache."""
    names = []

    def download(name, revision=None, subfolder=None, local_files_only=False):
        if local_files_only:
            raise FileNotFoundError(f"{name} is not in the local cache")
        names.append((name, revision))
        return tmp_path

    monkeypatch.setattr("florence_lite.checkpoint.hub.download", download)
    return names


@pytest.mark.parametrize("revision", [None, "abc"])
def test_a_base_that_nobody_knows_is_not_fetched(asked, revision):
    message = r"adapter 'mine' names the base 'org/other'.*, which .*from_pretrained\('org/other', adapter='mine'\)"
    with pytest.raises(ValueError, match=message):
        find_base("mine", AdapterBase("org/other", revision))
    assert not asked


def test_a_base_that_a_card_names_is_fetched_and_checked(asked, tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr("florence_lite.cards.CheckpointCard.check_files", lambda card, folder: checked.append(folder))
    assert find_base("mine", AdapterBase("microsoft/Florence-2-base", None)).folder == tmp_path
    assert asked == [("microsoft/Florence-2-base", None)] and checked == [tmp_path]
    assert find_base("mine", AdapterBase("scenes-nano", None)).card.name == "scenes-nano"


def test_another_revision_than_the_card_knows_is_not_fetched(asked):
    with pytest.raises(ValueError, match="'microsoft/Florence-2-base' at revision 'refs/pr/9', .*say so"):
        find_base("mine", AdapterBase("microsoft/Florence-2-base", "refs/pr/9"))
    assert not asked


def test_a_base_that_is_here_is_taken(asked, tmp_path, monkeypatch):
    assert find_base("mine", AdapterBase(str(tmp_path), None)).folder == tmp_path
    monkeypatch.setattr("florence_lite.checkpoint.hub.download", lambda *args, local_files_only: tmp_path)
    assert find_base("mine", AdapterBase("org/cached", None)).folder == tmp_path
    assert not asked


def test_no_base(asked):
    with pytest.raises(ValueError, match=r"adapter 'mine' names no base: call from_pretrained\(BASE, adapter="):
        find_base("mine", None)
    with pytest.raises(FileNotFoundError, match="'nowhere' is neither a folder nor a Hub id"):
        find_base("mine", AdapterBase("nowhere", None))
