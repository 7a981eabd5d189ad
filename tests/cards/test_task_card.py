"""Task cards: the exact prompts, what a call may fill in, what may be registered, and how mistakes are answered."""

from dataclasses import replace

import pytest

from florence_lite.cards import TaskCard, own_rule, register_task, task, tasks
from florence_lite.geometry import quantize
from florence_lite.tokens import Codec

# task: (sentence, input, grammar); the sentences are those the public checkpoints were trained with.
FLORENCE_2 = {
    "<CAPTION>": ("What does the image describe?", "none", "text"),
    "<DETAILED_CAPTION>": ("Describe in detail what is shown in the image.", "none", "text"),
    "<MORE_DETAILED_CAPTION>": ("Describe with a paragraph what is shown in the image.", "none", "text"),
    "<OCR>": ("What is the text in the image?", "none", "text"),
    "<OCR_WITH_REGION>": ("What is the text in the image, with regions?", "none", "labelled_quads"),
    "<OD>": ("Locate the objects with category name in the image.", "none", "labelled_boxes"),
    "<DENSE_REGION_CAPTION>": (
        "Locate the objects in the image, with their descriptions.",
        "none",
        "labelled_boxes",
    ),
    "<REGION_PROPOSAL>": ("Locate the region proposals in the image.", "none", "boxes"),
    "<CAPTION_TO_PHRASE_GROUNDING>": ("Locate the phrases in the caption: {input}", "text", "labelled_boxes"),
    "<OPEN_VOCABULARY_DETECTION>": ("Locate {input} in the image.", "phrases", "labelled_boxes_or_polygons"),
    "<REFERRING_EXPRESSION_SEGMENTATION>": ("Locate {input} in the image with mask", "phrase", "polygons"),
    "<REGION_TO_SEGMENTATION>": ("What is the polygon mask of region {input}", "region", "polygons"),
    "<REGION_TO_CATEGORY>": ("What is the region {input}?", "region", "region_text"),
    "<REGION_TO_DESCRIPTION>": ("What does the region {input} describe?", "region", "region_text"),
    "<REGION_TO_OCR>": ("What text is in the region {input}?", "region", "region_text"),
}
PROSE = {"<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>", "<REGION_TO_DESCRIPTION>"}
BOX_GOAL = 'name = "<GOAL>"\nsummary = "the goal"\ntemplate = "Locate the goal."\ngrammar = "boxes"\n'


@pytest.mark.parametrize("name", FLORENCE_2)
def test_florence_2_prompts_byte_for_byte(name):
    card = task(name)
    assert (card.template, card.input, card.grammar) == FLORENCE_2[name]


def test_shipped_tasks_are_the_fifteen_and_three_more():
    assert {card.name for card in tasks()} >= {*FLORENCE_2, "<VQA>", "<INFILLING>", "<IMAGE_TEXT_MATCHING>"}


def test_only_prose_bans_repeated_ngrams():
    assert {card.name for card in tasks() if card.no_repeat_ngram_size} == PROSE


@pytest.mark.parametrize("name", [*FLORENCE_2, "<VQA>"])
def test_list_answers_are_scored_per_instance(name):
    card = task(name)
    assert card.scoring == ("text" if card.grammar in ("text", "region_text") else "instance")


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("<CAPTION>", {}, "What does the image describe?"),
        (
            "<CAPTION_TO_PHRASE_GROUNDING>",
            {"text": " A green car. \n"},
            "Locate the phrases in the caption: A green car.",
        ),
        ("<OPEN_VOCABULARY_DETECTION>", {"phrases": ["a car"]}, "Locate a car in the image."),
        ("<OPEN_VOCABULARY_DETECTION>", {"phrases": ("a car", " dog")}, "Locate a car<and>dog in the image."),
        ("<OPEN_VOCABULARY_DETECTION>", {"text": "a car"}, "Locate a car in the image."),
        ("<REFERRING_EXPRESSION_SEGMENTATION>", {"phrases": ["{input}"]}, "Locate {input} in the image with mask"),
        ("<VQA>", {"text": "Is 1 < 2?"}, "Is 1 < 2?"),
        (
            "<REGION_TO_OCR>",
            {"region": (0, 120, 640, 480), "size_wh": (640, 480)},
            "What text is in the region <loc_0><loc_250><loc_999><loc_999>?",
        ),
        (
            "<REGION_TO_SEGMENTATION>",
            {"region": [16.5, 0, 32, 8], "size_wh": (64, 16), "bins": 64},
            "What is the polygon mask of region <loc_16><loc_0><loc_32><loc_32>",
        ),
    ],
)
def test_prompt(name, given, sentence):
    assert task(name).prompt(**given) == sentence


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("<OD>", {"text": "car"}, '<OD> takes no input, but text="…" was given; tasks that take it: .*<VQA>'),
        ("<OD>", {"phrases": ["car"]}, r'phrases=\["…"\] was given; tasks that take it: .*<OPEN_VOCABULARY_DETECTION>'),
        ("<CAPTION>", {"region": (0, 0, 1, 1), "size_wh": (2, 2)}, "was given; tasks that take it: .*<REGION_TO_OCR>"),
        ("<REGION_TO_OCR>", {"text": "<loc_1><loc_2><loc_3><loc_4>"}, r"takes region=\(x0, y0, x1, y1\) in pixels"),
        ("<REGION_TO_OCR>", {}, r"<REGION_TO_OCR> needs region=\(x0, y0, x1, y1\) in pixels, but nothing was given"),
        ("<VQA>", {}, '<VQA> needs text="…", but nothing was given'),
        ("<VQA>", {"text": " \n"}, r"<VQA>: text=' \\n'"),
        ("<VQA>", {"phrases": ["car"]}, 'takes text="…", but phrases=.* was given'),
        ("<OPEN_VOCABULARY_DETECTION>", {}, r'needs phrases=\["…"\], but nothing was given'),
        ("<OPEN_VOCABULARY_DETECTION>", {"phrases": []}, "phrases=.. is empty"),
        ("<OPEN_VOCABULARY_DETECTION>", {"phrases": "car"}, "phrases='car' must be a list"),
        ("<OPEN_VOCABULARY_DETECTION>", {"phrases": ["car", " "]}, r"phrases\[1\]=' '"),
        ("<OPEN_VOCABULARY_DETECTION>", {"phrases": [7]}, r"phrases\[0\]=7"),
        ("<OPEN_VOCABULARY_DETECTION>", {"phrases": ["a<and>b"]}, "give what <and> joins as several"),
        ("<OPEN_VOCABULARY_DETECTION>", {"phrases": ["a"], "text": "a"}, "both text=.* and phrases=.* were given"),
        ("<REFERRING_EXPRESSION_SEGMENTATION>", {"phrases": ["a", "b"]}, "one phrase at a time, but 2 were given"),
        ("<REFERRING_EXPRESSION_SEGMENTATION>", {"phrases": [""]}, r"phrases\[0\]=''"),
    ],
)
def test_prompt_refuses(name, given, message):
    with pytest.raises(ValueError, match=message):
        task(name).prompt(**given)


@pytest.mark.parametrize(
    "region",
    [
        (-1, 0, 10, 10),
        (0, 0, 101, 10),
        (0, 0, 10, 50.5),
        (10, 0, 10, 10),
        (20, 0, 10, 10),
        (0, 10, 10, 5),
        (float("nan"), 0, 10, 10),
        (0, 0, float("inf"), 10),
    ],
)
def test_region_must_lie_in_the_image(region):
    with pytest.raises(
        ValueError,
        match="<REGION_TO_OCR>: region=.* must (lie in the image of 100×50|have 0 <= x0 < x1 and 0 <= y0 < y1)",
    ):
        task("<REGION_TO_OCR>").prompt(region=region, size_wh=(100, 50))


@pytest.mark.parametrize("region", [(0, 0, 10), (0, 0, 10, 10, 10), "0 0 10 10", 5, (0, 0, "wide", 10)])
def test_region_must_be_four_numbers(region):
    with pytest.raises(ValueError, match=r"region=.* must be \(x0, y0, x1, y1\)"):
        task("<REGION_TO_OCR>").prompt(region=region, size_wh=(100, 50))


def test_region_needs_the_size_of_its_image():
    with pytest.raises(ValueError, match="needs size_wh"):
        task("<REGION_TO_OCR>").prompt(region=(0, 0, 1, 1))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("<ODD>", "unknown task '<ODD>'; did you mean '<OD>'"),
        ("<od>", "did you mean '<OD>'"),
        ("OD", "unknown task 'OD'; did you mean '<OD>'"),
        ("<CAPTION", "did you mean '<CAPTION>'"),
        (" <OCR> ", "did you mean '<OCR>'"),
        ("<CAPTION_TO_GROUNDING>", "did you mean '<CAPTION_TO_PHRASE_GROUNDING>'"),
        ("<ZZZZ>", "unknown task '<ZZZZ>'; tasks: .*<CAPTION>, .*<OD>, .*<VQA>"),
        ("<OD>car", "'<OD>car': <OD> goes alone, with no input beside it"),
        ("<REGION_TO_OCR><loc_1><loc_2>", r"<REGION_TO_OCR> goes alone, with region=\(x0, y0, x1, y1\) in pixels"),
        ("", "a task is a marker or a sentence, not ''"),
        (None, "not None; tasks: "),
    ],
)
def test_unknown_task(name, message):
    with pytest.raises(ValueError, match=message):
        task(name)


@pytest.mark.parametrize(
    "sentence",
    [
        "How many cars?",
        "<DocVQA>What is the total?",
        "is 1 < 2 or 3 > 2",
        "  x",
        "What does {input} mean?",
        "{input} {input}",
        "{input}",
        "<DocVQA>{input}",
        "{} {0}",
    ],
)
def test_free_prompt_passes_through(sentence):
    card = task(sentence)
    assert (card.name, card.prompt(), card.grammar) == (sentence, sentence, "text")
    with pytest.raises(ValueError, match="takes no input, but text=.* was given"):
        card.prompt(text="more")


def test_new_task_is_one_file(tmp_path, own_tasks):
    file = tmp_path / "goal.toml"
    file.write_text(BOX_GOAL, encoding="utf-8")
    card = register_task(file)
    assert task("<GOAL>") is card
    assert tasks()[-1] is card
    assert card.prompt() == "Locate the goal."
    assert card.order == "given"


def test_new_task_is_one_call(own_tasks):
    card = register_task(TaskCard("<GOAL>", "the goal of a player", "Goal of {input}?", "boxes", input="phrase"))
    assert task("<GOAL>").prompt(phrases=["player 7"]) == "Goal of player 7?"
    with pytest.raises(ValueError, match="task <GOAL> is registered already"):
        register_task(card)


def test_a_function_may_come_with_a_task(own_tasks):
    def rule(annotation):
        return ()

    card = register_task(TaskCard("<GOAL>", "the goal", "Locate the goal.", "boxes"), rule)
    assert own_rule("<GOAL>") is rule and task("<GOAL>") is card
    assert own_rule("<OD>") is None
    named = TaskCard("<SHOT>", "the shot", "Locate the shot.", "boxes", rule="detection.proposals")
    with pytest.raises(
        ValueError, match="task <SHOT>: its card names the rule 'detection.proposals'; give no function"
    ):
        register_task(named, rule)
    with pytest.raises(ValueError, match="task <SHOT>: rule is 'detection.proposals'; give a function, or name a rule"):
        register_task(replace(named, rule=""), "detection.proposals")
    assert register_task(named) is task("<SHOT>")


def test_regions_of_prompts_have_the_bins_of_answers(toy_tokenizer):
    """Also where a division by the size of a bin and a multiplication would differ."""
    codec = Codec(toy_tokenizer)
    for size_wh in ((1920, 1080), (333, 77), (7, 1001)):
        width, height = size_wh
        for share in (0.1, 0.29, 0.3, 0.57, 0.7, 0.999):
            box = (share * width / 2, share * height / 3, share * width, share * height)
            written = task("<REGION_TO_OCR>").prompt(region=box, size_wh=size_wh)
            bins = [toy_tokenizer.vocabulary.bin(id) for id in codec._loc_ids(box, size_wh)]
            assert "".join(f"<loc_{bin}>" for bin in bins) in written
            assert bins == quantize([box[:2], box[2:]], size_wh, 1000).ravel().tolist()


def test_registering_refuses(tmp_path, own_tasks):
    with pytest.raises(ValueError, match="task <OD> is registered already"):
        register_task(task("<OD>"))
    with pytest.raises(ValueError, match="'How many\\?' must be called by a marker"):
        register_task(task("How many?"))
    with pytest.raises(FileNotFoundError, match="absent.toml"):
        register_task(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOX_GOAL + 'gramar = "text"', "goal.toml: unknown field 'gramar'; did you mean 'grammar'"),
        ('name = "<GOAL>"', "goal.toml: missing summary, template, grammar"),
        (BOX_GOAL + 'order = "top down"', "goal.toml: order = 'top down' must be one of given, left to right"),
        (BOX_GOAL + "max_new_tokens = 0", "goal.toml: max_new_tokens = 0 must be .* at least 1"),
        (BOX_GOAL + "name = 3", "goal.toml is no valid TOML: Cannot overwrite a value"),
        (b"\xff\xfe", "goal.toml is no UTF-8 text .*utf-8"),
    ],
)
def test_faulty_task_file_is_named(tmp_path, content, message):
    file = tmp_path / "goal.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        register_task(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "OD"}, "name = 'OD'"),
        ({"name": "<A B>"}, "name = '<A B>'"),
        ({"summary": ""}, "summary = ''"),
        ({"template": "Locate {input}."}, "1 {input}; it must hold exactly one, or none where input is 'none'"),
        ({"input": "text"}, "0 {input}"),
        ({"input": "text", "template": "{input} {input}"}, "2 {input}"),
        ({"input": "image"}, "input = 'image' must be one of none, text, phrase, phrases, region"),
        ({"grammar": "json"}, "grammar = 'json' must be one of .*labelled_boxes"),
        ({"order": "right to left"}, "order = 'right to left' must be one of given, left to right"),
        ({"order": ["given"]}, r"order = \['given'\]"),
        ({"scoring": "mean"}, "scoring = 'mean' must be one of instance, text, none"),
        ({"max_new_tokens": 1.5}, "max_new_tokens = 1.5"),
        ({"num_beams": 0}, "num_beams = 0"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size = -1"),
        ({"metrics": "ap"}, "metrics = 'ap' must be a list"),
        ({"method": None}, "method = None"),
        ({"rule": None}, "rule = None"),
        ({"rule": ["captions.short"]}, r"rule = \['captions.short'\]"),
    ],
)
def test_task_card_names_the_faulty_field(change, message):
    with pytest.raises(ValueError, match=message):
        replace(task("<OD>"), **change)
