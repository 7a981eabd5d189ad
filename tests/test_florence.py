"""Class `Florence` on tiny random networks: whatever the answers are, they must be the same by every way of asking."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import florence_lite.checkpoint.hub as hub_module
import florence_lite.checkpoint.locate as sources_module
import florence_lite.inference.answering as answering_module
import florence_lite.inference.pipeline as pipeline_module
from florence_lite.cards import CheckpointCard, TaskCard, task, tasks
from florence_lite.checkpoint import save_checkpoint
from florence_lite.florence import Florence
from florence_lite.inference import Prompt
from florence_lite.inference.answering import joined
from florence_lite.inference.decoding import Decoding
from florence_lite.inference.scores import LOWEST
from florence_lite.model import FlorenceConfig, FlorenceModel, TextConfig
from florence_lite.tokens import Tokenizer
from tests.script import script
from tests.tiny import POSITIONS, SIDES, noise_image, tiny_config, tiny_florence
from tests.tokens.spelling import CLOSE, OPEN, spell

MIXED = [  # prompts of many lengths and every grammar
    Prompt("<OD>"),
    Prompt("<CAPTION>"),
    Prompt("<VQA>", text="what colour is the door?"),
    Prompt("<REGION_TO_CATEGORY>", region=(3, 4, 30, 40)),
    Prompt("<OPEN_VOCABULARY_DETECTION>", phrases=["traffic light", "dog"]),
    Prompt("<OCR_WITH_REGION>"),
    Prompt("<REFERRING_EXPRESSION_SEGMENTATION>", text="a cat"),
    Prompt("<REGION_PROPOSAL>"),
    Prompt("is there a wheel"),
]
REGION = (3.0, 4.0, 30.0, 40.0)


@pytest.fixture(scope="module", params=SIDES)
def florence(request, toy_tokenizer):
    return tiny_florence(toy_tokenizer, request.param)


@pytest.fixture(scope="module")
def answered(florence):
    """Every mixed prompt about three images, asked one by one: (image, prompt, result)."""
    images = [noise_image(seed, size) for seed, size in enumerate([(90, 70), (64, 48), (33, 120)])]
    return [(image, prompt, florence.run(image, prompt)) for image in images for prompt in MIXED]


@pytest.fixture
def sentences(florence, monkeypatch):
    """The prompts that reach the tokenizer, as they come."""
    sent = []
    encode = florence.tokenizer.encode_prompt
    monkeypatch.setattr(florence.tokenizer, "encode_prompt", lambda text: sent.append(text) or encode(text))
    return sent


@pytest.fixture
def looks(florence):
    """Batch sizes of the vision tower's calls."""
    sizes = []
    hook = florence.model.vision.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    yield sizes
    hook.remove()


def same(one, other):
    """Assert that two results say the same: ids exactly, probabilities and boxes within the noise of float32."""
    assert (one.task, one.size_wh, one.text, one.labels) == (other.task, other.size_wh, other.text, other.labels)
    assert one.token_ids == other.token_ids
    assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)
    assert one.scores == [None if s is None else pytest.approx(s, abs=1e-4) for s in other.scores]
    assert one.boxes_xyxy == pytest.approx(other.boxes_xyxy, abs=1e-3, nan_ok=True)
    assert [(i.quad, i.polygons, i.tokens, i.coords_at) for i in one.instances] == [
        (i.quad, i.polygons, i.tokens, i.coords_at) for i in other.instances
    ]
    assert (one.parse_errors, one.truncated) == (other.parse_errors, other.truncated)


# ---- the same answers by every way of asking


def test_answers_differ_enough_to_compare(answered):
    """Else every comparison below would hold by itself."""
    assert len({result.token_ids for _, _, result in answered}) >= 8
    assert len({len(result.token_ids) for _, _, result in answered}) >= 5
    assert any(result.instances for _, _, result in answered)


def test_batch_equals_single(florence, answered, monkeypatch):
    images, prompts, expected = zip(*answered, strict=True)
    monkeypatch.setattr(pipeline_module, "IMAGES_AT_ONCE", 5)
    for name, value in (("room", 7), ("row_bytes", lambda self, row: 1), ("source_bytes", lambda self, row: 0)):
        monkeypatch.setattr(Decoding, name, value)  # seven answers at a time
    for got, single in zip(florence.run(list(images), list(prompts)), expected, strict=True):
        same(got, single)


def test_order_of_a_batch_is_kept(florence, answered):
    images, prompts, expected = zip(*reversed(answered[:7]), strict=True)
    for got, single in zip(florence.run(images, prompts), expected, strict=True):
        same(got, single)


def test_prompts_of_several_scenes_may_alternate(florence, answered):
    """Prompts of one scene run together wherever they stand, and scenes with equally many prompts, too."""
    places = [0, 9, 1, 10, 20, 3, 22, 14]  # of images 0 1 0 1 2 0 2 1
    scenes = [florence.encode(answered[first][0]) for first in (0, 9, 18)]
    alternating = [scenes[place // 9] for place in places]
    got = florence.run(alternating, [answered[place][1] for place in places])
    for place, result in zip(places, got, strict=True):
        same(result, answered[place][2])


def test_beams_in_a_batch_equal_single_ones(florence):
    image = noise_image(5)
    prompts = ["<OD>", "<CAPTION>"]
    for prompt, got in zip(prompts, florence.run(image, prompts, num_beams=3), strict=True):
        same(got, florence.run(image, prompt, num_beams=3))


def test_forms_of_images_and_prompts(florence):
    image, other = noise_image(0), noise_image(1)
    single = florence.run(image, "<OD>")
    assert florence.run(image, ["<OD>"]) == [single]
    same(florence.run([image], "<OD>")[0], single)
    same(florence.run((other, image), ("<CAPTION>", Prompt("<OD>")))[1], single)
    assert [r.task for r in florence.run(image, ["<OD>", "<CAPTION>"])] == ["<OD>", "<CAPTION>"]
    assert [r.size_wh for r in florence.run([image, other.resize((50, 40))], "<OD>")] == [(90, 70), (50, 40)]
    assert florence.run([], "<OD>") == [] and florence.run(image, []) == [] and florence.run([], []) == []


def test_kinds_of_images(florence, tmp_path):
    image = noise_image(0)
    image.save(tmp_path / "photo.png")
    expected = florence.run(image, "<OD>")
    for source in (tmp_path / "photo.png", str(tmp_path / "photo.png"), np.asarray(image), florence.encode(image)):
        assert florence.run(source, "<OD>") == expected
    assert expected.image.size == (90, 70)


def test_scenes_may_stand_among_images(florence):
    images = [noise_image(seed) for seed in range(3)]
    scene = florence.encode(images[1])
    assert florence.encode(scene) is scene
    assert florence.encode([scene, images[0]])[0] is scene
    mixed = florence.run([images[0], scene, images[2]], "<OCR_WITH_REGION>")
    for got, single in zip(mixed, florence.run(images, "<OCR_WITH_REGION>"), strict=True):
        same(got, single)


def test_scene(florence):
    scene = florence.encode(noise_image(0))
    config = florence.model.config
    assert scene.size_wh == (90, 70)
    assert scene.features.shape == (config.image_tokens, config.text.d_model)
    assert (scene.hidden_states is None) == (config.prompt_side == "encoder")
    assert scene == scene and scene != florence.encode(noise_image(0))  # by identity, as tensors have no equality


def test_an_image_is_encoded_once(florence, looks):
    image = noise_image(0)
    florence.run(image, MIXED)
    florence.detect(image, phrases=["dog", "cat", "door"])
    assert looks == [1, 1]
    scene = florence.encode(image)
    florence.run(scene, MIXED)
    florence.detect(scene)
    assert looks == [1, 1, 1]
    florence.run([image, noise_image(1)], ["<OD>", "<CAPTION>"])
    assert looks == [1, 1, 1, 2]


# ---- prompts


def test_phrases(florence, sentences):
    """Each is a prompt of its own, once if it is given twice; compat=True joins them in one prompt for the encoder."""
    image = noise_image(0)
    given = {"prompts": "<OPEN_VOCABULARY_DETECTION>", "phrases": ["traffic light", "dog", " traffic light "]}
    together = florence.run(image, **given, threshold=0.3)
    alone = ["Locate traffic light in the image.", "Locate dog in the image."]
    assert sentences == alone
    parts = [florence.detect(image, phrases=[phrase], threshold=0.3) for phrase in ("traffic light", "dog")]
    same(together, joined(parts))
    assert together.presence == pytest.approx(parts[0].presence | parts[1].presence, abs=1e-4)
    sentences.clear()
    assert not florence.run(image, **given, compat=True).presence
    joint = ["Locate traffic light<and>dog<and>traffic light in the image."]
    assert sentences == (joint if florence.model.config.prompt_side == "encoder" else alone)


CALLS = [  # method, its arguments, the prompts it must ask
    ("detect", {}, [Prompt("<OD>")]),
    ("detect", {"phrases": ["dog"]}, [Prompt("<OPEN_VOCABULARY_DETECTION>", phrases=["dog"])]),
    (
        "detect",
        {"phrases": ("dog", "red car")},
        [Prompt("<OPEN_VOCABULARY_DETECTION>", phrases=[phrase]) for phrase in ("dog", "red car")],
    ),
    ("segment", {"region": REGION}, [Prompt("<REGION_TO_SEGMENTATION>", region=REGION)]),
    ("ground", {"caption": "a dog"}, [Prompt("<CAPTION_TO_PHRASE_GROUNDING>", text="a dog")]),
    ("caption", {}, [Prompt("<CAPTION>")]),
    ("caption", {"detail": "short"}, [Prompt("<CAPTION>")]),
    ("caption", {"detail": "detailed"}, [Prompt("<DETAILED_CAPTION>")]),
    ("caption", {"detail": "paragraph"}, [Prompt("<MORE_DETAILED_CAPTION>")]),
    ("ocr", {}, [Prompt("<OCR_WITH_REGION>")]),
    ("ocr", {"regions": False}, [Prompt("<OCR>")]),
    ("describe", {}, [Prompt("<DENSE_REGION_CAPTION>")]),
    ("describe", {"region": REGION}, [Prompt("<REGION_TO_DESCRIPTION>", region=REGION)]),
    ("describe", {"region": REGION, "what": "category"}, [Prompt("<REGION_TO_CATEGORY>", region=REGION)]),
    ("describe", {"region": REGION, "what": "text"}, [Prompt("<REGION_TO_OCR>", region=REGION)]),
    ("ask", {"question": "is it red?"}, [Prompt("<VQA>", text="is it red?")]),
]


@pytest.mark.parametrize(("method", "arguments", "prompts"), CALLS)
def test_methods(florence, sentences, method, arguments, prompts):
    images = [noise_image(0), noise_image(1)]
    result = getattr(florence, method)(images[0], **arguments, max_new_tokens=5)
    asked = [task(p.task).prompt(p.text, p.phrases, p.region, images[0].size) for p in prompts]
    assert sentences == asked
    assert result.task == prompts[0].task
    assert len(result.token_ids) <= 5 * len(prompts)
    both = getattr(florence, method)(images, **arguments, max_new_tokens=5)
    assert [r.task for r in both] == [result.task] * 2
    same(both[0], result)


def test_the_card_of_a_task_names_a_method():
    assert all(callable(getattr(Florence, card.method)) for card in tasks())


def test_free_prompts(florence, sentences):
    result = florence.run(noise_image(0), "What is odd here?", max_new_tokens=6)
    assert (result.task, sentences) == ("What is odd here?", ["What is odd here?"])
    assert not result.instances and (result.score is None) == (not result.text)


def test_shared_input_goes_to_every_string(florence, sentences):
    image = noise_image(0)
    florence.run(image, ["<REGION_TO_OCR>", "<REGION_TO_CATEGORY>", Prompt("<OD>")], region=REGION, max_new_tokens=3)
    assert sentences == [
        task(name).prompt(region=REGION, size_wh=image.size) for name in ("<REGION_TO_OCR>", "<REGION_TO_CATEGORY>")
    ] + [task("<OD>").template]


def golden_florence(folder) -> Florence:
    """The real tokenizer on a network of the same vocabulary."""
    tokenizer = Tokenizer.from_file(folder)
    text = TextConfig(
        vocab_size=tokenizer.vocabulary.size,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        heads=1,
        ffn_dim=8,
        positions=POSITIONS,
    )
    torch.manual_seed(0)
    return Florence(FlorenceModel(tiny_config("encoder", text=text)), tokenizer)


@pytest.mark.parametrize("folder", ["florence-2-large", "florence-2-base-ft-tuned"])
def test_golden_prompt_ids(plain_network, published, monkeypatch, folder):
    florence = golden_florence(published / folder)
    seen = []
    encode = florence.model.encode
    monkeypatch.setattr(
        florence.model, "encode", lambda f, ids, mask: seen.extend(ids.tolist()) or encode(f, ids, mask)
    )
    golden = json.loads((published / "florence2_golden.json").read_text())["prompt_ids"]
    image = florence.encode(noise_image(0))
    for prompt, expected in golden.items():
        marker, text = prompt.split(">", 1)
        florence.run(image, marker + ">", text=text or None, max_new_tokens=2)
        assert seen.pop() == expected, prompt
    assert not seen


# ---- mistakes

IMAGE = noise_image(0)
MISTAKES = [
    ({"prompts": "<OD>", "max_tokens": 5}, "unknown option 'max_tokens'; .*max_new_tokens"),
    ({"prompts": "<OD>", "num_beams": 0}, "num_beams = 0 must be a whole number of at least 1"),
    ({"prompts": "<OD>", "max_new_tokens": "5"}, "max_new_tokens = '5' must be a whole number"),
    ({"prompts": "<OBJECTS>"}, "unknown task '<OBJECTS>'.*<OD>"),
    ({"prompts": "od"}, "unknown task 'od'; did you mean '<OD>'"),
    ({"prompts": "<OD>car"}, "<OD> goes alone"),
    ({"prompts": ""}, "a task is a marker or a sentence, not ''"),
    ({"prompts": None}, "prompts is None; it must be a task marker"),
    ({"prompts": [3]}, "a task is a marker or a sentence, not 3"),
    ({"prompts": "<VQA>"}, 'task <VQA> needs text="…", but nothing was given'),
    ({"prompts": "<REGION_TO_OCR>"}, "task <REGION_TO_OCR> needs region=.* in pixels, but nothing was given"),
    ({"prompts": "<OD>", "text": "dog"}, 'task <OD> takes no input, but text="…" was given'),
    ({"prompts": "<OD>", "region": REGION}, "task <OD> takes no input, but region=.* was given"),
    ({"prompts": "<OPEN_VOCABULARY_DETECTION>", "phrases": "dog"}, "phrases='dog' must be a list of strings"),
    ({"prompts": "<OPEN_VOCABULARY_DETECTION>", "phrases": []}, "phrases=.. is empty"),
    ({"prompts": "<OPEN_VOCABULARY_DETECTION>", "phrases": ["dog", " "]}, r"phrases\[1\]=' '"),
    ({"prompts": Prompt("<OD>"), "text": "dog"}, "text, phrases and region belong to prompts given as strings"),
    ({"prompts": ["<OD>", Prompt("<VQA>")]}, "task <VQA> needs text"),
    ({"images": [IMAGE] * 2, "prompts": ["<OD>"] * 3}, "2 images and 3 prompts do not pair up"),
    ({"images": [IMAGE], "prompts": ["<OD>"] * 2}, "1 images and 2 prompts do not pair up"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_are_told_before_an_image_is_encoded(florence, looks, arguments, message):
    with pytest.raises(ValueError, match=message):
        florence.run(**{"images": IMAGE} | arguments)
    assert not looks


@pytest.mark.parametrize("region", [(-1, 0, 5, 5), (0, 0, 91, 5), (5, 5, 5, 9), (9, 9, 2, 2), (0, 0, 5)])
def test_region_outside(florence, region):
    with pytest.raises(ValueError, match="task <REGION_TO_OCR>.*region"):
        florence.run(IMAGE, "<REGION_TO_OCR>", region=region)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("detect", {"phrases": "dog"}, "phrases='dog' must be a list"),
        ("detect", {"phrases": []}, r"phrases=\[\] is empty; give at least one phrase"),
        ("caption", {"detail": "long"}, "detail is 'long'; choose one of short, detailed, paragraph"),
        ("describe", {"region": REGION, "what": "name"}, "what is 'name'; choose one of category, description, text"),
        ("describe", {"what": "text"}, "what is 'text', which needs a region"),
        ("ask", {"question": " "}, "task <VQA>: text=' '"),
        ("ask", {"question": ["is it red?", "why?"]}, r"run\(image, \[Prompt\('<VQA>', text='is it red\?'\), …\]\)"),
    ],
)
def test_mistakes_of_methods(florence, method, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(florence, method)(IMAGE, **arguments)


def test_bad_images(florence, tmp_path):
    letter = tmp_path / "letter.jpg"
    letter.write_text("Dear Sir or Madam")
    for images in (letter, [IMAGE, letter]):
        with pytest.raises(ValueError, match="letter.jpg holds no image"):
            florence.run(images, "<OD>")
    with pytest.raises(FileNotFoundError, match="nowhere.jpg does not exist"):
        florence.run(tmp_path / "nowhere.jpg", "<OD>")
    with pytest.raises(ValueError, match="not NoneType"):
        florence.encode(None)


# ---- results


def test_token_logprobs_are_the_networks(florence, answered):
    """Recomputed one image at a time, without cache and without padding."""
    model, config = florence.model, florence.model.config
    for image, prompt, result in answered:
        if len(prompt.phrases or ()) > 1:
            continue  # several answers in a row
        card = task(prompt.task)
        sentence = card.prompt(prompt.text, prompt.phrases, prompt.region, image.size)
        prompt_ids = florence.tokenizer.encode_prompt(sentence)
        with torch.inference_mode():
            features = model.encode_image(florence.preprocessor([image]))
            on_decoder = config.prompt_side == "decoder"
            states, _ = model.encode(features, None if on_decoder else torch.tensor([prompt_ids]))
            prefix = prompt_ids if on_decoder else [2]
            ids = torch.tensor([[*prefix, *result.token_ids[:-1]]])
            logprobs = model.logits(model.decode(ids, model.cross_cache(states))).log_softmax(-1)[0, len(prefix) - 1 :]
        expected = logprobs[torch.arange(len(result.token_ids)), list(result.token_ids)]
        assert result.token_logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_results_are_whole(answered):
    for image, prompt, result in answered:
        assert result.size_wh == image.size and result.image.size == image.size
        assert len(result.token_ids) == len(result.token_logprobs)
        assert result.token_ids[0] == 0 and result.token_ids[-1] == 2
        assert all(score is None or 0 < score < 1 for score in [*result.scores, result.score])
        json.dumps(result.to_dict(), allow_nan=False)
        scoring = task(prompt.task).scoring
        assert (result.score is not None) == (scoring == "text" and bool(result.text))
        assert all(item.score is not None for item in result.instances if item.label or scoring == "instance")


def test_instances_know_their_ids(florence, answered):
    codec = florence.answering.codec
    for image, prompt, result in answered:
        for instance in result.instances:
            start, end = instance.tokens
            own = codec.parse([*result.token_ids[start:end], 2], task(prompt.task).grammar, image.size)
            [spelled] = own.instances
            if instance.box is None:
                assert spelled.outlines == instance.outlines
            else:  # averaged near the bins that are written
                sides = np.array(image.size * 2)
                assert (np.abs(np.subtract(spelled.box, instance.box)) <= sides / 40 + 1e-6).all()
            if instance.coords_at is not None:
                opening = result.token_ids[instance.coords_at]
                assert florence.tokenizer.vocabulary.is_loc(opening)
                label = florence.tokenizer.decode(result.token_ids[start : instance.coords_at])
                assert not label or label == instance.label


def test_instances_of_joined_answers(florence, toy_tokenizer, monkeypatch):
    codec = florence.answering.codec
    """Boxes without words get the phrase that was asked for; positions count through all ids."""
    answers = [
        spell(toy_tokenizer, (1, 2, 3, 4), "hat", (5, 6, 7, 8)),
        [],
        spell(toy_tokenizer, OPEN, (0, 0, 9, 0, 9, 9), CLOSE, (7, 7)),
    ]
    script(monkeypatch, *answers)
    result = florence.detect(IMAGE, phrases=["dog", " cat ", "door"], threshold=0)
    assert result.labels == ["dog", "hat", "door"]
    assert result.token_ids == tuple(i for answer in answers for i in [0, *answer, 2])
    assert result.parse_errors == 1 and result.text == "" and not result.truncated
    for instance in result.instances:
        start, end = instance.tokens
        own = codec.parse([*result.token_ids[start:end], 2], "labelled_boxes_or_polygons", IMAGE.size)
        near = 0.026 * max(IMAGE.size)  # boxes lie at means near what was written
        assert np.abs(np.array(own.instances[0].outlines) - instance.outlines).max() <= near
        assert len(own.instances) == 1 and not own.parse_errors
    opened = [result.token_ids[i.coords_at] for i in result.instances]
    assert opened == [toy_tokenizer.vocabulary.loc(1), toy_tokenizer.vocabulary.loc(5), answers[2][0]]


def test_scores_of_instances(florence, toy_tokenizer, monkeypatch):
    """P(words) · P(any location) · P(all within tolerance), from the probabilities of the written ids."""
    label = spell(toy_tokenizer, "red apple")
    answer = [*label, *spell(toy_tokenizer, (1, 2, 30, 40), (5, 6, 70, 80))]
    script(monkeypatch, answer)
    result = florence.run(IMAGE, "<OD>")
    assert result.labels == ["red apple"] * 2 and result.score is None
    ids, model = [0, *answer, 2], florence.model
    prompt = florence.tokenizer.encode_prompt(task("<OD>").prompt())
    with torch.inference_mode():
        features = model.encode_image(florence.preprocessor([IMAGE]))
        on_decoder = model.config.prompt_side == "decoder"
        states, _ = model.encode(features, None if on_decoder else torch.tensor([prompt]))
        prefix = prompt if on_decoder else [2]
        hidden = model.decode(torch.tensor([prefix + ids[:-1]]), model.cross_cache(states))[0, len(prefix) - 1 :]
        probabilities = model.logits(hidden).softmax(-1)
    of_ids = sorted(probabilities[1 + place, id].item() for place, id in enumerate(label))
    of_label = np.mean(of_ids[: math.ceil(len(of_ids) / 2)])
    vocabulary = toy_tokenizer.vocabulary
    of_bins = probabilities[:, vocabulary.loc_first : vocabulary.loc_first + vocabulary.bins]
    within = vocabulary.bins // 40
    expected = []
    for first in (1 + len(label), 5 + len(label)):
        chosen = [id - vocabulary.loc_first for id in ids[first : first + 4]]
        sure = [
            bins[max(0, bin - within) : bin + within + 1].sum() / bins.sum()
            for bin, bins in zip(chosen, of_bins[first : first + 4], strict=True)
        ]
        expected.append(of_label * of_bins[first].sum().item() * math.prod(p.item() for p in sure))
    assert result.scores == pytest.approx(expected, rel=1e-4, abs=2 * LOWEST)


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({}, ["dog", "the image", "The image", "it"]),
        ({"compat": True}, ["dog", "The image"]),  # both processors tell capitals apart
        ({"general_phrases": False}, ["dog", "The image"]),
        ({"compat": True, "general_phrases": True}, ["dog", "the image", "The image", "it"]),
    ],
)
def test_phrases_that_point_at_nothing_in_particular(florence, toy_tokenizer, monkeypatch, options, labels):
    box = (1, 2, 3, 4)
    answer = spell(toy_tokenizer, "dog", box, "the image", box, "The image", box, " it", box)
    script(monkeypatch, answer)
    result = florence.ground(IMAGE, "the dog in the image", **options)
    assert [label.strip() for label in result.labels] == labels
    assert result.dropped == 4 - len(labels) and result.to_dict()["dropped"] == result.dropped
    assert len(result.token_ids) == len(answer) + 2
    assert not florence.run(IMAGE, "<OD>", general_phrases=False).dropped  # no card but that of grounding names any


def test_switches_are_true_or_false(florence):
    for name in ("compat", "general_phrases"):
        with pytest.raises(ValueError, match=f"{name} is 'no'; it must be True or False"):
            florence.run(IMAGE, "<OD>", **{name: "no"})


def test_score_of_prose(florence, toy_tokenizer, monkeypatch):
    """From what the network chose: not the forced first id, not an end token put by the limit; none of no words."""

    def expected(logprobs):
        return pytest.approx(np.exp(sorted(logprobs)[: math.ceil(len(logprobs) / 2)]).mean())

    answer = spell(toy_tokenizer, "a dog")
    script(monkeypatch, answer)
    whole = florence.run(IMAGE, "<CAPTION>")
    assert whole.text == "a dog" and not whole.truncated
    assert whole.score == expected(whole.token_logprobs[1:])
    script(monkeypatch, answer, truncated=True)
    cut = florence.run(IMAGE, "<CAPTION>")
    assert cut.text == "a dog" and cut.truncated
    assert cut.score == expected(cut.token_logprobs[1:-1])
    assert florence.run(IMAGE, "<CAPTION>", max_new_tokens=1).score is not None  # the script ignores the limit
    for prompt in ("<CAPTION>", "<OCR>"):
        script(monkeypatch, [])
        empty = florence.run(IMAGE, prompt)
        assert empty.text == "" and empty.score is None
    monkeypatch.undo()
    assert florence.run(IMAGE, "<CAPTION>", max_new_tokens=1).score is None  # nothing was chosen


@pytest.mark.parametrize("prompt", ["<REGION_TO_CATEGORY>", "<REGION_TO_DESCRIPTION>", "<REGION_TO_OCR>"])
@pytest.mark.parametrize("truncated", [False, True])
def test_the_answer_about_a_region_is_scored_by_its_words(florence, toy_tokenizer, monkeypatch, prompt, truncated):
    """Whatever region it repeats, and whether it repeats one at all."""
    words = spell(toy_tokenizer, "red")
    assert len(words) > 1
    found = []
    for echo in ([], [(1, 2, 30, 40)], [(500, 600, 700, 999)]):
        script(monkeypatch, words + spell(toy_tokenizer, *echo), truncated=truncated)
        result = florence.run(IMAGE, prompt, region=REGION)
        assert result.labels == ["red"] and result.scores == [result.score]
        logprobs = sorted(result.token_logprobs[1 : 1 + len(words)])
        expected = np.exp(logprobs[: math.ceil(len(words) / 2)]).mean()
        assert result.score == pytest.approx(max(expected, LOWEST))
        found.append(result.score)
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)
    script(monkeypatch, spell(toy_tokenizer, (1, 2, 30, 40)))
    assert florence.run(IMAGE, prompt, region=REGION).score is None


def test_truncated_answer_keeps_what_is_whole(florence, toy_tokenizer, monkeypatch):
    """What the limit cut off is no fault of the network."""
    script(monkeypatch, spell(toy_tokenizer, "dog", (1, 2, 30, 40), "cat", (5, 6)), truncated=True)
    result = florence.run(IMAGE, "<OD>")
    assert (result.labels, result.parse_errors, result.truncated) == (["dog"], 0, True)
    script(monkeypatch, spell(toy_tokenizer, "dog", (1, 2, 30, 40), "cat", (5, 6)))
    result = florence.run(IMAGE, "<OD>")
    assert (result.labels, result.parse_errors, result.truncated) == (["dog"], 1, False)
    script(monkeypatch, spell(toy_tokenizer, (0, 0, 500, 0, 500, 500, 3)), truncated=True)
    result = florence.run(IMAGE, "<REFERRING_EXPRESSION_SEGMENTATION>", text="dog")
    assert [len(ring) for ring in result.instances[0].polygons] == [3] and result.parse_errors == 0


# ---- decoding options


@pytest.mark.parametrize("side", SIDES)
def test_longest_answer(toy_tokenizer, side):
    """An answer without end stops where the table of positions does, whatever was asked for."""
    florence = tiny_florence(toy_tokenizer, side, eos_gain=None)
    prompt = florence.tokenizer.encode_prompt(task("<OD>").prompt()) if side == "decoder" else [2]
    for asked in (10**6, POSITIONS):
        result = florence.run(IMAGE, "<OD>", max_new_tokens=asked)
        assert len(prompt) + len(result.token_ids) - 1 == POSITIONS  # the last id is never read
        assert result.truncated
    assert len(florence.run(IMAGE, "<OD>").token_ids) == 24  # the checkpoint's default
    assert len(florence.run(IMAGE, "<OD>", max_new_tokens=9).token_ids) == 9
    florence = Florence(florence.model, toy_tokenizer)
    words = florence.run(IMAGE, "<REGION_TO_CATEGORY>", region=REGION, constrained=False)
    assert len(words.token_ids) == 64  # the task's default


def test_too_long_a_prompt(florence):
    with pytest.raises(ValueError, match=r"the prompt .*has 2\d\d tokens.*shorten"):
        florence.ask(IMAGE, "\x07" * 200)


def test_sampling_repeats_with_its_seed(florence):
    prompts = ["<OD>", "<CAPTION>"]
    options = {"do_sample": True, "temperature": 3.0, "max_new_tokens": 12}
    first = florence.run(IMAGE, prompts, seed=1, **options)
    assert first == florence.run(IMAGE, prompts, seed=1, **options)
    assert first != florence.run(IMAGE, prompts, seed=2, **options)
    same(florence.run(IMAGE, "<CAPTION>", seed=1, **options), first[1])


# ---- making one


def test_from_a_folder(florence, tmp_path):
    save_checkpoint(florence.model, tmp_path)
    florence.tokenizer.save(tmp_path)
    loaded = Florence.from_pretrained(tmp_path)
    assert loaded.run(IMAGE, "<OD>", max_new_tokens=24) == florence.run(IMAGE, "<OD>")
    assert Florence.from_pretrained(str(tmp_path), dtype=torch.bfloat16).run(IMAGE, "<OD>").token_ids
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="no tokenizer in"):
        Florence.from_pretrained(tmp_path)


def test_image_statistics_come_from_the_card(toy_tokenizer):
    model = tiny_florence(toy_tokenizer, "encoder").model
    card = CheckpointCard(
        name="grey",
        summary="-",
        source="a/b",
        licence="MIT",
        image_size_wh=(64, 48),
        tasks=(),
        mean=(0.5,) * 3,
        std=(1,) * 3,
    )
    white = [Image.new("RGB", (64, 48), "white")]
    assert torch.allclose(Florence(model, toy_tokenizer, card).preprocessor(white), torch.tensor(0.5))
    assert not torch.allclose(Florence(model, toy_tokenizer).preprocessor(white), torch.tensor(0.5))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (tiny_config(bins=64), "the tokenizer has 1000 location tokens, the network 64 bins: take both"),
        (tiny_config(vocab_size=1100), "the tokenizer has 13.. ids, the network only 1100: take both"),
    ],
)
def test_tokenizer_and_network_must_fit(toy_tokenizer, config: FlorenceConfig, message):
    with pytest.raises(ValueError, match=message):
        Florence(FlorenceModel(config), toy_tokenizer)


@pytest.mark.parametrize("name", ["scene-nano", "no/such/folder"])
def test_unknown_checkpoints(monkeypatch, name):
    monkeypatch.setattr(hub_module, "download", lambda *_: pytest.fail("the Hub was asked"))
    with pytest.raises(FileNotFoundError, match=f"'{name}' is neither a folder nor a Hub id such as 'org/name'"):
        Florence.from_pretrained(name)


def test_a_checkpoint_of_the_hub(florence, tmp_path, monkeypatch):
    save_checkpoint(florence.model, tmp_path)
    florence.tokenizer.save(tmp_path)
    asked = []
    monkeypatch.setattr(hub_module, "download", lambda *arguments: asked.append(arguments) or tmp_path)
    loaded = Florence.from_pretrained("nobody/tiny", revision="v2", subfolder="best")
    assert asked == [("nobody/tiny", "v2", "best")]
    assert loaded.card is None and loaded.run(IMAGE, "<OD>", max_new_tokens=24) == florence.run(IMAGE, "<OD>")
    monkeypatch.setattr(sources_module, "checkpoints", lambda: (florence.card,))
    assert Florence.from_pretrained("tiny").card is florence.card


def test_a_task_registered_at_run_time(florence, monkeypatch):
    card = TaskCard("<COUNT>", "how many", template="How many {input}?", grammar="text", input="text", scoring="text")
    monkeypatch.setattr(answering_module, "task_card", lambda name: card if name == "<COUNT>" else task(name))
    assert florence.run(IMAGE, "<COUNT>", text="dogs", max_new_tokens=5).task == "<COUNT>"
