"""Images in, rows of answers out, with every checkpoint of a configuration: the part that a worker does.

Pictures are decoded in threads, a few of them go through each vision tower together, once for all questions, and their
prompts are answered continuously; a question about another one's answer joins them as soon as that is there.
"""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

from florence_lite.annotate.config import AnnotateConfig
from florence_lite.annotate.parts import Answers
from florence_lite.annotate.questions import Question, questions_of, revision_of
from florence_lite.data.rows import AnswerRow, ImageSource, Query, int64_of
from florence_lite.data.sources import ListedImage
from florence_lite.florence import Florence
from florence_lite.inference import IMAGES_AT_ONCE, EncodedImage, Prompt
from florence_lite.inference.answering import Asked
from florence_lite.inference.encoded import OpenedImage
from florence_lite.inference.many_images import IMAGES_AHEAD
from florence_lite.inference.pipeline import READ_AHEAD, READERS, Pipeline, Unreadable
from florence_lite.results import Result

FILES_AHEAD = 16  # that wait, read, to be decoded
PATIENCE = 0.1  # seconds after which whoever waits for files looks whether the run shall stop


class ReadImage(NamedTuple):
    """The bytes of a picture, or why there are none; it can be sent to another process.

    image_id: as in `ImageSource`; of what cannot be read, from its name.
    content: None where it cannot be read, as error says, or need not be. key: of the file (`file_key`).
    """

    name: str
    image_id: int
    content: bytes | None
    error: str = ""
    key: int | None = None


def file_key(listed: ListedImage) -> int | None:
    """int64 by which a file is known again as long as it does not change; None where it cannot be told."""
    stamp = listed.stamp()
    return None if stamp is None else int64_of(stamp.encode())


def read_image(listed: ListedImage, is_done: Callable[[int], int | None] = lambda key: None) -> ReadImage:
    """Read a picture of a source; one that cannot be read has an error.

    is_done: gives the image_id of a file, by its key, that need not be read, for nothing is left to ask about it.
    """
    try:
        key = file_key(listed)
        if key is not None and (image_id := is_done(key)) is not None:
            return ReadImage(listed.name, image_id, None, "", key)
        content = listed.read()
    except (ValueError, OSError) as error:
        return ReadImage(listed.name, int64_of(f"unreadable {listed.name}".encode()), None, str(error))
    return ReadImage(listed.name, int64_of(content), content, "", key)


def read_ahead(
    listed: Iterable[ListedImage], is_done: Callable[[int], int | None] = lambda key: None
) -> Iterator[ReadImage]:
    """What `read_image` gives for each image in order, read by threads, `FILES_AHEAD` at most before they are asked
    for."""
    reading: deque[Future[ReadImage]] = deque()
    with ThreadPoolExecutor(READERS, "florence-lite reads") as readers:
        try:
            for image in listed:
                reading.append(readers.submit(read_image, image, is_done))
                if len(reading) >= FILES_AHEAD:
                    yield reading.popleft().result()
            while reading:
                yield reading.popleft().result()
        finally:
            readers.shutdown(wait=False, cancel_futures=True)


class Annotator:
    """Asks the checkpoints of a configuration its questions.

    questions: all that is asked about an image, by which `parts.Ids` knows what is done.
    """

    def __init__(self, config: AnnotateConfig, questions: Sequence[Question] | None = None):
        """Load every checkpoint, once where it is named twice with different decoding.

        questions: those of another process with the same configuration, which saves digesting the weights.
        Raises as `Florence.from_pretrained`, and ValueError for options that no answer can have.
        """
        places: dict[tuple[str | None, ...], int] = {}
        self.florences: list[Florence] = []
        of_checkpoint = []  # place of each checkpoint's network in `florences`
        for each in config.checkpoints:
            loading = {name: getattr(each, name) for name in ("device", "revision", "adapter", "precision")}
            key = (each.checkpoint, *loading.values())
            if key not in places:
                places[key] = len(self.florences)
                self.florences.append(Florence.from_pretrained(each.checkpoint, **loading))
            of_checkpoint.append(places[key])
        if questions is None:
            revisions = [revision_of(florence) for florence in self.florences]
            questions = questions_of(config, [revisions[place] for place in of_checkpoint])
        self.questions = tuple(questions)
        self.places = [of_checkpoint[each.checkpoint] for each in self.questions]  # of each question's network
        self._asked = [
            None if each.parent is not None else self._ask(n, each.query) for n, each in enumerate(questions)
        ]

    def asked(self, number: int, query: Query) -> Asked:
        """What the network of a question is asked. Raises ValueError for input that cannot be asked."""
        return self._asked[number] or self._ask(number, query)

    def _ask(self, number: int, query: Query) -> Asked:
        phrases = None if query.phrases is None else list(query.phrases)
        prompt = Prompt(query.task, query.text, phrases, query.region)
        return self.florences[self.places[number]].answering.ask(prompt, self.questions[number].options)

    def answers(
        self, images: Iterable[ReadImage], done: Container[int] = (), stop: threading.Event | None = None
    ) -> Iterator[Answers]:
        """The answers about images, in their order; nothing is kept of those that are done.

        images: each is taken when there is room for it, `IMAGES_AHEAD` at most are on their way. What the iterable
            raises is raised after the answers about those before.
        done: numbers (`Question.done_id`) of what is not asked again, with `in` as of `parts.Ids`. Where a question is
            done but one about its answer is not, it is asked for that one's sake and gives no row.
        stop: when it is set, the images on their way are dropped and the answers end.

        What is wrong with an image makes a row with its error for each question. Raises ValueError for input of the
        configuration that is too long for a network.
        """
        remaining, fault, before = iter(images), None, time.perf_counter()
        stop = stop or threading.Event()
        with _Asking(self, done) as asking:
            while not stop.is_set():
                while remaining is not None and asking.takes_more:
                    try:
                        asking.add(next(remaining))
                    except StopIteration:
                        remaining = None
                    except Exception as error:
                        remaining, fault = None, error
                if not asking.images:
                    break
                while asking.images[0].left:
                    if stop.is_set():
                        return
                    asking.step()
                answers = asking.answers(asking.images.popleft())
                now = time.perf_counter()
                share, before = (now - before) / max(1, len(answers.rows)), now
                yield answers._replace(rows=[replace(row, seconds=share) for row in answers.rows])
        if fault is not None:
            raise fault


@dataclass(eq=False)
class _Replies:
    """What a question is answered about an image: a result, or an error, for each of its queries. left: queries that
    are not answered yet."""

    queries: list[Query]
    outcomes: list[Result | str | None]
    left: int

    @classmethod
    def of_error(cls, query: Query, error: str) -> Self:
        return cls([query], [error], 0)


@dataclass(eq=False)
class _OnTheWay:
    """An image that is asked about.

    wanted: numbers of the questions, those that are asked for the sake of others too; new: without these. left: those
    of the wanted that are not answered. opened, encoded: by place of the network.
    """

    read: ReadImage
    wanted: list[int]
    new: set[int]
    left: int
    size_wh: tuple[int, int] = (0, 0)
    opened: dict[int, Future[OpenedImage | EncodedImage]] = field(default_factory=dict)
    encoded: dict[int, EncodedImage] = field(default_factory=dict)
    replies: dict[int, _Replies] = field(default_factory=dict)


class _File(io.BytesIO):
    """The bytes of a picture; errors call it by its name."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name


class _Asking:
    """The images that are on their way through the networks of an annotator, oldest first."""

    def __init__(self, annotator: Annotator, done: Container[int]):
        self._annotator, self._done = annotator, done
        self.images: deque[_OnTheWay] = deque()
        self._opening: list[deque[_OnTheWay]] = [deque() for _ in annotator.florences]
        self._finished: deque[tuple[_OnTheWay, int, int, Future[list[Result]]]] = deque()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._readers = ThreadPoolExecutor(READERS, "florence-lite decodes")
            stack.callback(self._readers.shutdown, wait=True, cancel_futures=True)
            self._pipelines = [
                stack.enter_context(Pipeline(florence.encoder, florence.answering))
                for florence in self._annotator.florences
            ]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *fault) -> None:
        self._stack.__exit__(*fault)

    @property
    def takes_more(self) -> bool:
        """Whether another image would not have to wait long for each vision tower."""
        return len(self.images) < IMAGES_AHEAD and all(len(opening) < READ_AHEAD for opening in self._opening)

    def add(self, read: ReadImage) -> None:
        """Let an image be decoded, for each network that is asked about it."""
        questions, places = self._annotator.questions, self._annotator.places
        new = {n for n, each in enumerate(questions) if each.done_id(read.image_id) not in self._done}
        wanted = set(new)
        for number in sorted(new, reverse=True):  # parents stand before those that need their answers
            while (number := questions[number].parent) is not None:
                wanted.add(number)
        image = _OnTheWay(read, sorted(wanted), new, len(wanted))
        self.images.append(image)
        if read.content is None:
            self._fail(image, wanted, read.error)
            return
        for place in sorted({places[number] for number in wanted}):
            encoder = self._annotator.florences[place].encoder
            file = _File(read.content, read.name)
            image.opened[place] = self._readers.submit(encoder.open, file, keep_image=False)
            self._opening[place].append(image)

    def step(self) -> None:
        """Do a piece of work: encode a few images, where too few prompts wait to be answered, or decode an id."""
        worked = False
        for place, (pipeline, opening) in enumerate(zip(self._pipelines, self._opening, strict=True)):
            few = [opening[n] for n in range(min(IMAGES_AT_ONCE, len(opening)))]
            if few and pipeline.is_hungry and all(image.opened[place].done() for image in few):
                for _ in few:
                    opening.popleft()
                self._encode(place, few)
                worked = True
            elif pipeline:
                pipeline.step()
                worked = True
        while self._finished:
            self._take_answer(*self._finished.popleft())
            worked = True
        if not worked:
            wait([image.opened[place] for place, some in enumerate(self._opening) for image in some], PATIENCE)

    def answers(self, image: _OnTheWay) -> Answers:
        """The rows of an image that is answered, their seconds aside."""
        read, rows, marks = image.read, [], []
        source = ImageSource(read.image_id, read.name, image.size_wh, len(read.content or b""))
        for number in sorted(image.new):
            replies = image.replies[number]
            for query, outcome in zip(replies.queries, replies.outcomes, strict=True):
                result, error = (outcome, "") if isinstance(outcome, Result) else (None, outcome)
                row = AnswerRow(source, query, result, error=error)
                if row.id not in self._done:
                    rows.append(row)
            if self._annotator.questions[number].parent is not None:
                marks.append(self._annotator.questions[number].done_id(read.image_id))
        return Answers(rows, marks, None if read.key is None else (read.key, read.image_id))

    def _encode(self, place: int, images: Sequence[_OnTheWay]) -> None:
        """Run the vision tower and ask what needs no other answer."""
        questions, places = self._annotator.questions, self._annotator.places
        opened, readable = [], []
        for image in images:
            try:
                opened.append(image.opened[place].result())
                readable.append(image)
            except (ValueError, OSError) as error:
                self._fail(image, [number for number in image.wanted if places[number] == place], str(error))
        for image, encoded in zip(readable, self._annotator.florences[place].encoder.encode(opened), strict=True):
            image.encoded[place], image.size_wh = encoded, encoded.size_wh
            for number in image.wanted:
                if places[number] == place and questions[number].parent is None:
                    self._submit(image, number, [questions[number].query])

    def _submit(self, image: _OnTheWay, number: int, queries: list[Query]) -> None:
        place = self._annotator.places[number]
        replies = image.replies[number] = _Replies(queries, [None] * len(queries), len(queries))
        for slot, query in enumerate(queries):
            options = self._annotator.questions[number].options
            try:
                asked = self._annotator.asked(number, query)
            except ValueError as error:  # an answer that makes no prompt
                replies.outcomes[slot] = str(error)
                replies.left -= 1
                continue
            future = self._pipelines[place].ask(image.encoded[place], [asked], options, keep_image=False)
            future.add_done_callback(  # the default of `slot` is more than mypy infers
                lambda future, slot=slot: self._finished.append((image, number, slot, future))  # type: ignore[misc]
            )
        if not replies.left:
            self._answered(image, number)

    def _take_answer(self, image: _OnTheWay, number: int, slot: int, future: Future[list[Result]]) -> None:
        replies = image.replies[number]
        try:
            [replies.outcomes[slot]] = future.result()
        except Unreadable as error:  # it does not hold such a region
            replies.outcomes[slot] = str(error)
        except ValueError as error:  # a prompt that is too long: the configuration's fault, or another answer's
            if self._annotator.questions[number].parent is None:
                raise
            replies.outcomes[slot] = str(error)
        replies.left -= 1
        if not replies.left:
            self._answered(image, number)

    def _answered(self, image: _OnTheWay, number: int) -> None:
        """A question has all its answers: ask what is asked about them."""
        image.left -= 1
        for child in image.wanted:
            question = self._annotator.questions[child]
            if question.parent != number:
                continue
            outcomes = image.replies[number].outcomes
            results = [each for each in outcomes if isinstance(each, Result)]
            if outcomes and not results:
                self._fail(image, [child], f"{image.replies[number].queries[0].task} has no answer: {outcomes[0]}")
                continue
            vocabulary = self._annotator.florences[self._annotator.places[child]].tokenizer.vocabulary
            queries = [query for result in results for query in question.queries(result, vocabulary)]
            self._submit(image, child, list(dict.fromkeys(queries)))

    def _fail(self, image: _OnTheWay, numbers: Iterable[int], error: str) -> None:
        """Answer questions with an error, and those about their answers."""
        questions = self._annotator.questions
        failed = set(numbers)
        for number in image.wanted:
            if number in failed or questions[number].parent in failed:
                failed.add(number)
                image.replies[number] = _Replies.of_error(questions[number].query, error)
                image.left -= 1
