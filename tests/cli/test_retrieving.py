"""`florence-lite match`, `rank` and `find` on a tiny checkpoint, and closed answers and masked words of `run`."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from florence_lite import Florence, Result
from florence_lite.cards import checkpoints
from florence_lite.cli import running
from florence_lite.inference.retrieval import MATCHING

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXTS = ["a red apple", "the dog"]
ASKED = ["--text", TEXTS[0], "--text", TEXTS[1]]


def records(out):
    return [json.loads(line) for line in out.splitlines()]


def rows(out):
    return [line.split(maxsplit=1) for line in out.splitlines() if line.startswith(" ")]


# ---- match


def test_match_gives_a_probability_for_each_pair(command, tiny, photos):
    code, out, err = command("match", *photos[:2], *ASKED, "--checkpoint", tiny, "--json")
    assert (code, err) == (0, "")
    expected = Florence.from_pretrained(tiny).match(photos[:2], TEXTS).tolist()
    assert [record["image"] for record in records(out)] == photos[:2]
    assert [list(each["probabilities"]) for each in records(out)] == [TEXTS, TEXTS]
    assert [list(each["probabilities"].values()) for each in records(out)] == [pytest.approx(row) for row in expected]
    code, out, _ = command("match", photos[0], *ASKED, "--checkpoint", tiny)
    best = sorted(zip(expected[0], TEXTS, strict=True), reverse=True)
    assert code == 0 and out.splitlines()[0] == photos[0]
    assert rows(out) == [[f"{probability:.2f}", text] for probability, text in best]


def test_match_refuses_a_checkpoint_that_did_not_learn_it(command, tiny, photos, monkeypatch):
    florence = SimpleNamespace(card=SimpleNamespace(tasks=("<CAPTION>",)), name="plain")
    monkeypatch.setattr("florence_lite.cli.retrieving.load", lambda *arguments: florence)
    code, out, err = command("match", photos[0], *ASKED)
    assert (code, out) == (2, "") and err.startswith(f"error: checkpoint 'plain' was not trained on {MATCHING}")


# ---- rank


def test_rank_orders_both_ways(command, tiny, photos):
    code, out, err = command("rank", *photos[:3], *ASKED, "--detail", "detailed", "--checkpoint", tiny, "--json")
    assert (code, err) == (0, "")
    ranking = Florence.from_pretrained(tiny).rank(photos[:3], TEXTS, detail="detailed")
    assert [record["image"] for record in records(out)] == photos[:3]
    for name in ("scores", "log_likelihoods"):
        values = [list(record[name].values()) for record in records(out)]
        assert values == [pytest.approx(row) for row in getattr(ranking, name).tolist()]
    _, out, _ = command("rank", *photos[:3], *ASKED, "--detail", "detailed", "--checkpoint", tiny)
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert heads == [*photos[:3], *TEXTS]
    listed = [name for _, name in rows(out)]
    expected = [TEXTS[text] for image in range(3) for text in ranking.texts_of(image)]
    assert listed == expected + [photos[image] for text in range(2) for image in ranking.images_of(text)]


@pytest.mark.parametrize("name", ["match", "rank"])
def test_unreadable_images_leave_the_others_answered(command, tiny, photos, name):
    given = [photos[3], photos[0], "missing.png", photos[1]]
    code, out, err = command(name, *given, *ASKED, "--checkpoint", tiny, "--json")
    assert code == 1 and [record["image"] for record in records(out)] == given
    assert ["error" in record for record in records(out)] == [True, False, True, False]
    assert err.splitlines() == [f"error: {record['error']}" for record in records(out) if "error" in record]
    answered = command(name, photos[0], photos[1], *ASKED, "--checkpoint", tiny, "--json")[1]
    for one, other in zip(records(out)[1::2], records(answered), strict=True):
        assert one.keys() == other.keys() and one["image"] == other["image"]
        assert all(one[key] == pytest.approx(other[key]) for key in one if key != "image")
    assert command(name, photos[3], "missing.png", *ASKED, "--checkpoint", tiny, "--json")[0] == 2


def test_one_image_that_can_be_read_cannot_be_ranked(command, tiny, photos):
    code, out, err = command("rank", photos[0], photos[3], *ASKED, "--checkpoint", tiny)
    assert (code, out) == (2, "") and [line[:6] for line in err.splitlines()] == ["error:"] * 2
    assert "rank compares at least two images" in err.splitlines()[1]


# ---- find


def test_find_lists_the_best_images_and_what_is_in_them(command, tiny, photos, tmp_path):
    picture = tmp_path / "out.png"
    options = ["--phrase", "the dog", "--top", 2, "--checkpoint", tiny, "--threshold", 0]
    code, out, err = command("find", *photos, *options, "--json", "--picture", picture)
    search = Florence.from_pretrained(tiny).find(photos, "the dog", top=2, threshold=0)
    *found, failed = records(out)
    assert code == 1 and err == f"error: {failed['error']}\n" and failed["image"] == photos[3]
    assert [record["image"] for record in found] == [each.name for each in search] and len(found) == 2
    assert [record["presence"] for record in found] == [pytest.approx({"the dog": each.presence}) for each in search]
    assert [len(record["instances"]) for record in found] == [len(each.result) for each in search]
    assert [record["picture"] for record in found] == [str(tmp_path / f"out-{number}.png") for number in (1, 2)]
    assert (tmp_path / "out-2.png").is_file() and not (tmp_path / "out-3.png").exists()
    code, out, _ = command("find", *photos[:3], *options)
    assert code == 0 and out.splitlines()[0] == "the dog  best of 3 images"
    best = Florence.from_pretrained(tiny).find(photos[:3], "the dog", top=2, threshold=0)
    assert rows(out)[:2] == [[f"{each.presence:.2f}", each.name] for each in best]
    assert out.splitlines()[3].startswith(f"{best[0].name}  <OPEN_VOCABULARY_DETECTION>  ")


def test_find_counts_the_images_without_the_phrase(command, tiny, photos):
    options = ["--phrase", "the dog", "--checkpoint", tiny]
    search = Florence.from_pretrained(tiny).find(photos[:3], "the dog", threshold=0)
    code, out, _ = command("find", *photos[:3], *options, "--threshold", search[0].presence - 1e-6)
    assert code == 0 and [name for _, name in rows(out)[:1]] == [search[0].name]
    assert out.splitlines()[-1].endswith(f": {sum(each.presence < search[0].presence - 1e-6 for each in search)}")
    code, out, _ = command("find", *photos[:3], *options, "--threshold", 1)
    assert (code, out) == (0, "the dog  nothing found in 3 images\n")
    assert command("find", *photos[:4], *options, "--threshold", 1)[0] == 1  # one cannot be read
    assert command("find", *photos[:3], *options, "--threshold", 1, "--json")[:2] == (0, "")


def test_find_without_readable_images(command, tiny, photos):
    code, out, err = command("find", photos[3], "--phrase", "the dog", "--checkpoint", tiny)
    assert (code, out) == (2, "") and err.count("\n") == 1 and photos[3] in err


# ---- closed answers and masked words


def test_choices_come_with_their_probabilities(command, tiny, photos):
    options = ["run", photos[0], "<VQA>", "--text", "what is it?", "--choice", "dog", "--choice", "a red apple"]
    code, out, err = command(*options, "--checkpoint", tiny, "--json")
    answer = json.loads(out)
    assert (code, err) == (0, "") and list(answer["choices"]) == ["dog", "a red apple"]
    assert sum(answer["choices"].values()) == pytest.approx(1) and answer["text"] in answer["choices"]
    _, out, _ = command(*options, "--checkpoint", tiny)
    likeliest = sorted(answer["choices"].items(), key=lambda each: -each[1])
    assert out.splitlines()[1:] == [f"  {choice:11}  {probability:.2f}" for choice, probability in likeliest]


def test_words_for_masks_and_the_whole_sentence(command, tiny, photos):
    options = ["run", photos[0], "<INFILLING>", "--text", "a <mask> on the <mask>", "--label", "dog", "--label", "cat"]
    answer = json.loads(command(*options, "--checkpoint", tiny, "--json")[1])
    words = [item["label"] for item in answer["instances"]]
    assert len(words) == 2 and answer["text"] == "a {} on the {}".format(*words)
    code, out, err = command(*options, "--checkpoint", tiny)
    sentence, *parts = (line.strip() for line in out.splitlines()[1:])
    assert (code, err, sentence) == (0, "", answer["text"]) and [part.split()[0] for part in parts] == words
    code, out, _ = command(*options, "--checkpoint", tiny, "--stream")
    *parts, last = (line.strip() for line in out.splitlines()[1:])
    assert code == 0 and [part.split()[0] for part in parts] == words and last == sentence


def test_choices_are_listed_likeliest_first():
    result = Result("<VQA>", (9, 9), "no", score=0.75, choices={"yes": 0.25, "no": 0.75})
    assert running.listing(result) == ["no   0.75", "yes  0.25"]


# ---- mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["match", "sample"], "Missing option '--text'"),
        (["match", "--text", "a dog"], "Missing argument 'IMAGE'"),
        (["match", "sample", "--text", " "], "error: --text ' ' must be a string with something in it"),
        (["match", "none*.png", "--text", "a dog"], "error: no file matches none*.png"),
        (["rank", "sample", "sample"], "Missing option '--text'"),
        (["rank", "sample", "sample", "--text", "a dog", "--text", ""], "error: --text '' must be a string"),
        (["rank", "sample", "--text", "a dog"], "error: rank compares at least two images; for several texts about"),
        (["rank", "sample", "sample", "--text", "a dog", "--detail", "long"], "error: detail is 'long'; choose one of"),
        (["find", "sample"], "Missing option '--phrase'"),
        (["find", "sample", "--phrase", ""], "error: task <OPEN_VOCABULARY_DETECTION>: --phrase '' must be a string"),
        (
            ["find", "sample", "--phrase", "a dog", "--phrase", "a cat"],
            "error: find looks for one phrase, but 2 --phrase were given: call it once for each",
        ),
        (["find", "sample", "--phrase", "a dog", "--top", 0], "error: --top 0 must be a whole number of at least 1"),
        (["find", "sample", "--phrase", "a dog", "--picture", "a.xyz"], "error: --picture a.xyz: the name must end in"),
        (
            ["run", "sample", "<VQA>", "--text", "?", "--choice", "yes"],
            "error: --choice 'yes' leaves nothing to choose",
        ),
        (
            ["run", "sample", "<VQA>", "--text", "?", "--choice", "yes", "--choice", ""],
            "error: --choice '' must be a string with something in it",
        ),
        (
            ["run", "sample", "<VQA>", "--text", "?", "--choice", "yes", "--choice", "yes"],
            "error: --choice 'yes' is given twice: leave one of them out",
        ),
        (
            ["run", "sample", "<OD>", "--choice", "yes", "--choice", "no"],
            "error: task <OD> does not answer in words alone: leave --choice … out",
        ),
        (
            ["run", "sample", "<CAPTION>", "--choice", "a dog", "--choice", "a cat", "--label", "a dog"],
            "error: --label … has no part in answers from choices: leave it out, or leave --choice … out",
        ),
        (
            ["run", "sample", "<CAPTION>", "--choice", "a dog", "--choice", "a cat", "--threshold", 0.5],
            "error: --threshold … has no part in answers from choices",
        ),
        (
            ["run", "sample", "<CAPTION>", "--choice", "a dog", "--choice", "a cat", "--stream"],
            "error: --stream prints an answer before all of it is known: leave --json, --choice, --nms and --tile out",
        ),
        (["run", "sample", "<INFILLING>", "--text", "a dog"], "error: --text 'a dog' has no <mask>: put one in"),
        (["run", "sample", "<INFILLING>", "--text", "a <mask><sep>"], "error: --text 'a <mask><sep>' holds <sep>"),
        (["run", "sample", "<OD>", "--label", "l<loc_2>"], "error: --label 'l<loc_2>' holds <loc_2>, which is no word"),
        (["run", "sample", "<INFILLING>"], 'error: task <INFILLING> needs --text "…", but nothing was given'),
    ],
)
def test_mistakes_are_told_in_the_words_of_the_command(command, tiny, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*arguments, "--checkpoint", tiny)
    assert (code, out) == (2, "") and message in err
    assert not err.startswith("error: ") or err.count("\n") == 1


@pytest.mark.skipif(
    all(card.source != "embedded" for card in checkpoints()), reason="no checkpoint is embedded in this installation"
)
@pytest.mark.parametrize("name", ["match", "rank"])
def test_unknown_words_are_told_once(command, name, recwarn):
    pictures = [EXAMPLES / "lions.png", EXAMPLES / "meadow.png"]
    code, _, err = command(name, *pictures, "--text", "a shoe", "--text", "a lion")
    assert code == 0 and err.count("was not trained on shoe, so that") == 1
    assert not [each for each in recwarn if "not trained" in str(each.message)]
