"""Images in, rows of answers out, with every checkpoint of a configuration: the part that a worker does.

Files are decoded in threads, a few images go through each vision tower together, once for all questions, and their
prompts are answered continuously; a question about another one's answer joins them as soon as that is there.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from florence_lite.annotate.config import AnnotateConfig
from florence_lite.annotate.parts import Answers
from florence_lite.annotate.questions import Question
from florence_lite.data.rows import int64_of
from florence_lite.data.sources import ListedImage

IMAGES_AHEAD = 32  # that are decoded, encoded or answered before the first of them is handed out


class ReadImage(NamedTuple):
    """The bytes of a picture, or why there are none; it can be sent to another process.

    image_id: as in `ImageSource`; of what cannot be read, from its name.
    """

    name: str
    image_id: int
    content: bytes | None
    error: str = ""


def read_image(listed: ListedImage) -> ReadImage:
    """Read a picture of a source; never raises for one that cannot be read."""
    try:
        content = listed.read()
    except (ValueError, OSError) as error:
        return ReadImage(listed.name, int64_of(f"unreadable {listed.name}".encode()), None, str(error))
    return ReadImage(listed.name, int64_of(content), content)


class Annotator:
    """Asks the checkpoints of a configuration its questions.

    questions: all that is asked about an image; another process's `questions` save digesting the weights.
    """

    def __init__(self, config: AnnotateConfig, questions: Sequence[Question] | None = None):
        """Load every checkpoint once, also where it is named twice with different decoding. Raises as
        `Florence.from_pretrained`, and ValueError for options that no answer can have."""
        raise NotImplementedError

    def answers(
        self, images: Iterable[ReadImage], done: Container[int] = (), stop: threading.Event | None = None
    ) -> Iterator[Answers]:
        """The answers about images, in their order; nothing is kept of those that are done.

        images: each is taken when there is room for it, `IMAGES_AHEAD` at most are on their way.
        done: numbers (`Question.done_id`) of what is not asked again, with `in` as of `parts.Ids`. Where a question is
            done but one about its answer is not, it is asked for that one's sake and gives no row.
        stop: when it is set, the images on their way are dropped and the answers end.

        What is wrong with an image makes a row with its error for each question. Raises ValueError for input of the
        configuration that is too long for a network.
        """
        raise NotImplementedError
