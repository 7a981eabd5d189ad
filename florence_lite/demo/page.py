"""The page, and the server on this machine's own address that shows it. Needs Gradio (extra `demo`)."""

import html
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from florence_lite.cards import task
from florence_lite.demo.answering import (
    FREE,
    LEAST_SCORE,
    Question,
    Shown,
    Visit,
    answer,
    choices,
    clicked,
    first_threshold,
    has_threshold,
    shown,
    summary,
    taken,
    with_region,
)

if TYPE_CHECKING:
    import gradio

    from florence_lite.florence import Florence

LOOPBACK = "127.0.0.1"
LARGEST_FILE = "100mb"
SECONDS_KEPT = 3600  # of images that were dropped into the page
_HEADERS = ["label", "score", "x0", "y0", "x1", "y1"]


def build(florence: "Florence", image: Image.Image | None = None) -> "gradio.Blocks":
    """The page that asks a checkpoint. image: what stands in it before a visitor drops another.

    Raises ModuleNotFoundError where Gradio is not installed.
    """
    gr = _gradio()

    with gr.Blocks(title="florence-lite", analytics_enabled=False, delete_cache=(SECONDS_KEPT, SECONDS_KEPT)) as page:
        visit = gr.State(None, time_to_live=SECONDS_KEPT)
        name = florence.card.name if florence.card else florence.name
        gr.Markdown(
            f"## florence-lite\nCheckpoint `{name}`. Drop an image, choose a task, and ask. "
            "Two clicks in the image are the corners of a region."
        )
        with gr.Row():
            with gr.Column():
                dropped = gr.Image(image, format="png", show_label=False, sources=["upload", "clipboard"], height=380)
                # The library reads the file as it is, or says why it cannot.
                dropped.preprocess = lambda given: None if given is None else given.path
                chosen = gr.Dropdown(choices(), value="<OD>", label="task", info=summary("<OD>"), filterable=False)
                text = gr.Textbox(label="text", info="a caption, a question or a sentence", visible="hidden")
                phrases = gr.Textbox(label="phrases", info="one a line", lines=3, visible="hidden")
                region = gr.Textbox(label="region", info="x0 y0 x1 y1, in pixels of the image", visible="hidden")
                threshold = gr.Slider(0, 1, LEAST_SCORE, step=0.01, label="threshold", info=_threshold_told("<OD>"))
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary")
                    stop = gr.Button("Stop")
            with gr.Column():
                picture = gr.Image(show_label=False, interactive=False, format="jpeg", height=420, buttons=["download"])
                words = gr.Textbox(label="words", lines=1, max_lines=12, interactive=False)
                table = gr.Dataframe(headers=_HEADERS, label="instances", interactive=False, max_height=260)
                note = gr.Textbox(show_label=False, container=False, interactive=False, lines=2)
                with gr.Accordion("JSON", open=False):
                    record = gr.JSON(show_label=False, max_height=400)
        outputs = [picture, words, table, record, note]

        def on_ask(seen, path, chosen, text, phrases, region, threshold) -> Iterator[list]:
            # A field that nobody touched holds nothing at all.
            seen, question = seen or Visit(), Question(chosen, text or "", phrases or "", region or "")
            try:
                with told(path):
                    for each in answer(florence, seen, path, question, threshold):
                        yield [seen, *_values(each)]
            except gr.Error:
                seen.result = None
                yield [seen, None, "", [], None, ""]  # the answer that stood here was to another question
                raise

        def on_threshold(seen, threshold) -> list:
            now = shown(seen or Visit(), threshold)
            return [gr.skip()] * len(outputs) if now is None else _values(now)

        def on_task(chosen) -> list:
            # A sentence of one's own is asked like any text, and its answer may hold boxes.
            field = "text" if chosen == FREE else taken(task(chosen))
            places = chosen == FREE or has_threshold(task(chosen))
            least = LEAST_SCORE if chosen == FREE else first_threshold(florence, task(chosen))
            fields = [gr.update(visible=field == name or "hidden") for name in ("text", "phrases", "region")]
            slider = gr.update(visible=places, value=least, info=_threshold_told(chosen))
            return [*fields, slider, gr.update(info=summary(chosen))]

        def on_click(path, region, event: gr.SelectData) -> list:  # type: ignore[name-defined]  # Gradio reads it
            with told(path):
                region = clicked(region or "", *event.index)
                return [gr.update(value=region), with_region(path, region)]

        asked = [visit, dropped, chosen, text, phrases, region, threshold]
        asking = gr.on(
            [ask.click, text.submit, region.submit],
            on_ask,
            asked,
            [visit, *outputs],
            concurrency_id="network",
            api_name="ask",
            show_progress_on=picture,
        )
        stop.click(None, cancels=[asking], queue=False)
        gr.on(  # a number that is typed is no release
            [threshold.release, threshold.input],
            on_threshold,
            [visit, threshold],
            outputs,
            api_name="threshold",
            show_progress="hidden",
            trigger_mode="always_last",
        )
        chosen.change(
            on_task, chosen, [text, phrases, region, threshold, chosen], api_name="task", show_progress="hidden"
        )
        dropped.select(on_click, [dropped, region], [region, picture], api_name=False, show_progress="hidden")
    return page


@contextmanager
def told(path: str | None = None) -> Iterator[None]:
    """A visitor's mistake is shown in the page, in the library's words. path: of an image, which they call by its name
    alone: where the page keeps it is of no interest."""
    try:
        yield
    except (ValueError, OSError) as error:
        message = str(error).replace(path, Path(path).name) if path else str(error)
        # The page reads messages as HTML, and they name tasks in angle brackets.
        raise _gradio().Error(html.escape(message, quote=False), duration=15, print_exception=False) from error


@contextmanager
def served(
    florence: "Florence", image: Image.Image | None = None, port: int | None = None, open_browser: bool = False
) -> Iterator[str]:
    """The page while it is served at the address that is yielded, which no other machine can reach.

    image: as in `build`. port: None takes the first free one from 7860 on. open_browser: whether the system's browser
    is told to show it.
    Raises ValueError for a port that is taken, ModuleNotFoundError where Gradio is not installed.
    """
    gr, page = _gradio(), build(florence, image)
    system = ["system-ui", "sans-serif"]  # fonts that are there; those of the theme would be fetched
    try:
        _, address, _ = page.queue(default_concurrency_limit=1).launch(
            server_name=LOOPBACK,
            server_port=port,
            share=False,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            footer_links=[],
            max_file_size=LARGEST_FILE,
            theme=gr.themes.Default(font=system, font_mono=["ui-monospace", "monospace"]),
        )
    except OSError as error:
        if port is None:
            raise
        raise ValueError(f"port {port} cannot be used, another program may have it: choose another") from error
    try:
        yield address
    finally:
        page.close(verbose=False)


def _gradio() -> Any:
    """Gradio, which is told to report nothing before it is loaded."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio

    return gradio


def _threshold_told(chosen: str) -> str:
    if chosen != FREE and taken(task(chosen)) == "phrases":
        return "presence from which a phrase is answered"
    return "boxes and outlines that score less are left out"


def _values(each: Shown) -> list:
    """For the outputs of the page."""
    return [each.picture, each.words, each.rows, each.record, each.note]
