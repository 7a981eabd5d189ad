"""Questions about images of all kinds, submitted while others are on the way."""

import os
import subprocess
import sys
import threading
from concurrent.futures import CancelledError

import pytest

import florence_lite.inference.encoded as encoded_module
from florence_lite import Florence, Prompt
from florence_lite.images import load_enough
from florence_lite.inference.pipeline import READ_AHEAD, Pipeline, Unreadable
from tests.tiny import SIDES, noise_image, tiny_florence


@pytest.fixture(scope="module", params=SIDES)
def florence(request, toy_tokenizer) -> Florence:
    return tiny_florence(toy_tokenizer, request.param)


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for number, path in enumerate(paths):
        noise_image(number).save(path)
    paths[3].write_bytes(b"no image")
    return paths


QUESTIONS = [
    ([Prompt("<OD>")], {}),
    ([Prompt("<CAPTION>"), Prompt("<OD>")], {"num_beams": 2}),
    ([Prompt("<OPEN_VOCABULARY_DETECTION>", phrases=["dog", "sign"])], {"threshold": 0.2}),
    ([Prompt("<VQA>", "Which?")], {"choices": ["this", "that"]}),
    ([Prompt("<REGION_TO_CATEGORY>", region=(50, 50, 80, 60))], {}),
]


def asked(florence, prompts, options):
    return [florence.answering.ask(prompt, options) for prompt in prompts]


def finish(pipeline):
    while pipeline:
        pipeline.step()


def test_every_question_has_options_of_its_own(florence, files):
    paths = [path for number, path in enumerate(files) if number != 3]
    with Pipeline(florence.encoder, florence.answering) as pipeline:
        futures = []
        for number, path in enumerate(paths):  # a few steps between one question and the next
            prompts, options = QUESTIONS[number % 5]
            futures.append(pipeline.submit(path, asked(florence, prompts, options), options, False))
            if number % 2:
                pipeline.step()
        finish(pipeline)
    for number, (path, future) in enumerate(zip(paths, futures, strict=True)):
        prompts, options = QUESTIONS[number % 5]
        expected = florence.run(path, prompts, **options)
        for found, alone in zip(future.result(), expected, strict=True):
            assert (found.token_ids, found.text, found.labels) == (alone.token_ids, alone.text, alone.labels)
            assert found.presence == pytest.approx(alone.presence, abs=1e-4)
            assert found.choices == pytest.approx(alone.choices, abs=1e-4)
            assert found.scores == pytest.approx(alone.scores, abs=1e-4)


def test_an_image_that_fails_is_alone_with_it(florence, files):
    od, outside = asked(florence, [Prompt("<OD>"), Prompt("<REGION_TO_CATEGORY>", region=(0, 0, 9999, 9))], {})
    missing = files[0].with_name("none.png")
    long = asked(florence, [Prompt("<VQA>", "\x07" * 200)], {})
    with Pipeline(florence.encoder, florence.answering) as pipeline:
        good = [pipeline.submit(path, [od], {}, False) for path in files[:3]]
        bad = [
            pipeline.submit(image, each, {}, False)
            for image, each in [
                (files[3], [od]),
                (missing, [od]),
                (3, [od]),
                (files[0], [outside]),
            ]
        ]
        too_long = pipeline.submit(files[0], long, {}, False)
        good += [pipeline.submit(path, [od], {}, False) for path in files[4:]]
        finish(pipeline)
    assert all(len(future.result()) == 1 for future in good) and len(good) == 11
    for future in bad:
        with pytest.raises(Unreadable):
            future.result()
    with pytest.raises(ValueError, match="the prompt .*has 2.. tokens"):
        too_long.result()


def test_a_question_is_cancelled_until_its_image_is_encoded(florence):
    od = asked(florence, [Prompt("<OD>")], {})
    with Pipeline(florence.encoder, florence.answering) as pipeline:
        begun = [pipeline.submit(noise_image(seed), od, {}, False) for seed in range(2)]
        pipeline.step()
        waiting = [pipeline.submit(noise_image(seed), od, {}, False) for seed in range(2)]
        assert not begun[0].cancel() and waiting[0].cancel()
        finish(pipeline)
    assert waiting[0].cancelled()
    for future, seed in zip([*begun, waiting[1]], [0, 1, 1], strict=True):
        assert future.result()[0].token_ids == florence.run(noise_image(seed), "<OD>").token_ids


def test_an_error_of_the_vision_tower_is_the_answer_to_its_images(florence, monkeypatch):
    od = asked(florence, [Prompt("<OD>")], {})

    def fail(*_):
        raise RuntimeError("no memory is left")

    with Pipeline(florence.encoder, florence.answering) as pipeline:
        with monkeypatch.context() as patched:
            patched.setattr(type(florence.encoder), "encode", fail)
            bad = [pipeline.submit(noise_image(seed), od, {}, False) for seed in range(2)]
            finish(pipeline)
        good = pipeline.submit(noise_image(0), od, {}, False)
        finish(pipeline)
    for future in bad:
        with pytest.raises(RuntimeError, match="no memory"):
            future.result(timeout=0)
    assert len(good.result()) == 1


@pytest.mark.parametrize("encoded", [False, True])
def test_equal_lists_are_weighed_together(florence, monkeypatch, encoded):
    images = [noise_image(seed) for seed in range(7)]
    images = florence.encode(images) if encoded else images
    prompt, lists = Prompt("<VQA>", "Which?"), [{"choices": ["this", "that"]}, {"choices": ["a dog", "a sign", "this"]}]
    alone = [florence.run(image, prompt, **lists[number % 2]) for number, image in enumerate(images)]
    weighed, answer = [], type(florence.answering).answer

    def counted(self, pairs, *more):
        weighed.append(len(pairs))
        return answer(self, pairs, *more)

    monkeypatch.setattr(type(florence.answering), "answer", counted)
    with Pipeline(florence.encoder, florence.answering) as pipeline:
        futures = []
        for number, image in enumerate(images):
            options = {"choices": list(lists[number % 2]["choices"])}
            futures.append(pipeline.submit(image, asked(florence, [prompt], options), options, False))
        finish(pipeline)
    assert weighed == [4, 3]
    for future, expected in zip(futures, alone, strict=True):
        assert future.result()[0].choices == pytest.approx(expected.choices, rel=1e-4)


def test_a_question_that_cannot_be_weighed_is_alone_with_it(florence, monkeypatch):
    options, answer = {"choices": ["this", "that"]}, type(florence.answering).answer

    def picky(self, pairs, *more):
        if any("bad" in request.sentence for _, request in pairs):
            raise ValueError("this question is too long")
        return answer(self, pairs, *more)

    monkeypatch.setattr(type(florence.answering), "answer", picky)
    with Pipeline(florence.encoder, florence.answering) as pipeline:
        good, bad, other = (
            pipeline.submit(noise_image(0), asked(florence, [Prompt("<VQA>", text)], options), options, False)
            for text in ("good", "bad", "other")
        )
        finish(pipeline)
    with pytest.raises(ValueError, match="too long"):
        bad.result(timeout=0)
    assert good.result()[0].choices and other.result()[0].choices


def test_what_is_not_answered_when_the_pipeline_closes_is_cancelled(florence, files):
    od = asked(florence, [Prompt("<OD>"), Prompt("<CAPTION>")], {})
    with Pipeline(florence.encoder, florence.answering) as pipeline:
        begun = [pipeline.submit(noise_image(seed), od, {}, False) for seed in range(2)]
        pipeline.step()
        waiting = [pipeline.submit(path, od, {}, False) for path in files]
    assert not pipeline
    for future in (*begun, *waiting):
        with pytest.raises(CancelledError):
            future.result(timeout=0)


def test_files_are_read_by_other_threads_and_a_bounded_number_ahead(florence, files, monkeypatch):
    """The network answers the first while the others are read; what could change is read at once."""
    readers, held = {}, threading.Event()

    def load(source, enough_wh):
        readers[str(source)] = threading.current_thread()
        if str(source) == str(files[-1]):
            assert held.wait(60)
        return load_enough(source, enough_wh)

    monkeypatch.setattr(encoded_module, "load_enough", load)
    answers = florence.run_each([noise_image(0), *files[:3], *files[4:]], "<OD>", max_new_tokens=8)
    assert next(answers).token_ids, "an answer although a file is not read yet"
    held.set()
    assert len(list(answers)) == 11
    main = threading.current_thread()
    assert all((thread is main) == ("PIL" in source) for source, thread in readers.items()) and len(readers) == 12
    with Pipeline(florence.encoder, florence.answering) as pipeline:
        while pipeline.takes_more:
            pipeline.submit(files[0], asked(florence, [Prompt("<OD>")], {}), {}, False)
        assert len(pipeline._opening) == READ_AHEAD


def test_threads_end_when_the_reader_breaks_off(florence, files):
    answers = florence.run_each(files * 20, "<OD>", max_new_tokens=4)
    next(answers)
    started = [thread for thread in threading.enumerate() if thread.name.startswith("florence-lite reads")]
    assert started
    del answers
    for thread in started:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_a_program_ends_in_silence_with_questions_on_the_way(tmp_path):
    noise_image(0).save(tmp_path / "one.png")
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, florence_lite\n"
        "from tests.conftest import SENTENCES\n"
        "from tests.tiny import tiny_florence\n"
        "from florence_lite.tokens import Tokenizer\n"
        "florence = tiny_florence(Tokenizer.train(SENTENCES, vocab_size=1400), 'decoder')\n"
        "answers = florence.run_each([sys.argv[1]] * 100, '<OD>', max_new_tokens=8)\n"
        "print(next(answers).task)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, program, tmp_path / "one.png"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "<OD>\n", "")


def test_streams_are_answered_beside_questions(florence):
    images = florence.encode([noise_image(seed) for seed in range(3)])
    prompts = [Prompt("<OD>"), Prompt("<CAPTION>"), Prompt("<OPEN_VOCABULARY_DETECTION>", phrases=["dog", "a door"])]
    with Pipeline(florence.encoder, florence.answering) as pipeline:
        futures = [pipeline.ask(image, asked(florence, prompts, {}), {}, False) for image in images]
        streams = {
            (image, prompt.task): pipeline.stream(image, asked(florence, [prompt], {})[0], {}, False)
            for image in images
            for prompt in prompts
        }
        told = {key: [] for key in streams}
        for _ in range(100):
            for key, stream in streams.items():
                told[key] += next(stream, [])
            if pipeline:
                pipeline.step()
    for image, future in zip(images, futures, strict=True):
        for prompt, result in zip(prompts, future.result(timeout=0), strict=True):
            *instances, last = [each for each in told[image, prompt.task] if not isinstance(each, str)]
            assert last.token_ids == result.token_ids and len(instances) == len(last.instances)
            assert result.to_dict()["text"] == last.text


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_what_is_dropped_changes_nothing_for_the_others(florence, options):
    images = florence.encode([noise_image(seed) for seed in range(4)])
    [od] = asked(florence, [Prompt("<OD>")], options)
    expected = [florence.run(image, "<OD>", **options).token_ids for image in images]
    with Pipeline(florence.encoder, florence.answering) as pipeline:
        futures = [pipeline.ask(image, [od], options, False) for image in images]
        streams = [pipeline.stream(image, od, options, False) for image in images]
        for step in range(4):
            pipeline.step()
            for stream in streams:
                next(stream, None)
            if step == 1:
                pipeline.drop(futures[1])
                streams.pop(1).close()
        waiting = pipeline.ask(images[0], [od], options, False)
        pipeline.drop(waiting)
        weighed = {"choices": ["this", "that"]}
        [question] = asked(florence, [Prompt("<VQA>", "what?")], weighed)
        pipeline.drop(pipeline.ask(images[0], [question], weighed, False))
        steps = 0
        while pipeline:
            pipeline.step()
            steps += 1
        assert steps < 100
    for dropped in (futures[1], waiting):
        with pytest.raises(CancelledError):
            dropped.result(timeout=0)
    for number in (0, 2, 3):
        assert futures[number].result(timeout=0)[0].token_ids == expected[number]
