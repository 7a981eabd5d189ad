"""The page as it is served: asked over HTTP on this machine alone."""

import socket
import urllib.request
from types import SimpleNamespace

import pytest

gradio = pytest.importorskip("gradio", reason="the page needs gradio: pip install 'florence-lite[demo]'")
from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

from florence_lite.cli import demonstrating  # noqa: E402
from florence_lite.demo.answering import FREE  # noqa: E402
from florence_lite.demo.page import LOOPBACK, served, told  # noqa: E402


@pytest.fixture(scope="module")
def dialled():
    """The addresses that anything in this process connects to while the page is served and asked."""
    addresses, connect = [], socket.socket.connect

    def noting(self, address):
        addresses.append(address)
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", noting)
        yield addresses


@pytest.fixture(scope="module")
def address(nano, dialled):
    with served(nano) as address:
        yield address


@pytest.fixture(scope="module")
def client(address, tmp_path_factory):
    client = Client(address, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))
    yield client
    client.close()


def ask(client, path, marker="<OD>", text="", phrases="", region="", threshold=0.3):
    return client.predict(path and handle_file(path), marker, text, phrases, region, threshold, api_name="/ask")


def test_the_page_is_on_this_machine_and_fetches_nothing(address):
    assert address.startswith(f"http://{LOOPBACK}:")
    with urllib.request.urlopen(address, timeout=60) as page:
        text = page.read().decode()
    assert page.status == 200 and "florence-lite" in text
    assert "fonts.googleapis.com" not in text


def test_an_answer_comes_as_picture_words_table_and_json(client, lions):
    picture, words, table, record, note = ask(client, lions)
    assert picture and words == f"{len(table['data'])} found"
    assert [row[0] for row in table["data"]] == [each["label"] for each in record["instances"]]
    assert "lion" in {row[0] for row in table["data"]} and table["headers"][:2] == ["label", "score"]
    assert "looked at in" in note and "answered in" in note
    untouched = ask(client, lions, "<CAPTION>", text=None, phrases=None, region=None)
    assert "looked at before" in untouched[-1] and untouched[0]


def test_instances_are_streamed(client, lions):
    job = client.submit(handle_file(lions), "<OD>", "", "", "", 0.3, api_name="/ask")
    job.result(timeout=300)
    counts = [len(table["data"]) for _, _, table, _, _ in job.outputs()]
    assert len(counts) >= 2 and counts == sorted(counts) and counts[-1] >= 4


def test_the_threshold_moves_without_asking(client, lions, nano, monkeypatch):
    ask(client, lions, "<OPEN_VOCABULARY_DETECTION>", phrases="the rabbit\nthe penguin")
    monkeypatch.setattr(nano, "stream", None)  # nobody asks
    _, words, table, record, _ = client.predict(0.5, api_name="/threshold")
    assert [row[0] for row in table["data"]] == ["the rabbit"] and "not in the image: the penguin" in words
    assert record["presence"]["the penguin"] < 0.5
    assert len(client.predict(0.0, api_name="/threshold")[2]["data"]) >= 2


@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        ("<CAPTION>", [False, False, False, False]),
        ("<OD>", [False, False, False, True]),
        ("<VQA>", [True, False, False, False]),
        ("<OPEN_VOCABULARY_DETECTION>", [False, True, False, True]),
        ("<REGION_TO_SEGMENTATION>", [False, False, True, True]),
        (FREE, [True, False, False, True]),
    ],
)
def test_a_task_shows_its_fields(client, asked, seen):
    updates = client.predict(asked, api_name="/task")
    *fields, described = updates
    assert [update["visible"] is True for update in fields] == seen and described["info"]


@pytest.mark.parametrize(
    ("marker", "more", "message"),
    [
        ("<VQA>", {}, "&lt;VQA&gt; needs the field text, which is empty: fill it in"),
        ("<REGION_TO_OCR>", {"region": None}, "needs the field region, which is empty: click two corners"),
        ("<REGION_TO_OCR>", {"region": "1 2 3"}, "must be four numbers"),
        ("<REGION_TO_OCR>", {"region": "1 2 3000 4"}, "3000"),
    ],
)
def test_mistakes_are_shown_in_the_librarys_words(client, lions, marker, more, message):
    with pytest.raises(AppError) as error:
        ask(client, lions, marker, **more)
    assert message in str(error.value)


def test_after_a_mistake_no_answer_to_another_question_stands_there(client, lions):
    ask(client, lions)
    job = client.submit(handle_file(lions), "<VQA>", "", "", "", 0.3, api_name="/ask")
    with pytest.raises(AppError):
        job.result(timeout=300)
    assert job.outputs()[-1][1] == "" and job.outputs()[-1][2]["data"] == []


def test_files_that_are_no_images(client, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no image", encoding="utf-8")
    with pytest.raises(AppError, match="image broken.png "):
        ask(client, str(broken))
    with pytest.raises(AppError, match="there is no image"):
        ask(client, None)


def test_a_mistake_of_the_program_is_none_of_the_visitor():
    with pytest.raises(KeyError), told():
        raise KeyError("a bug")


def test_a_port_that_is_taken(tiny, address):
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    with pytest.raises(ValueError, match=f"port {port} cannot be used"), served(tiny, port=port):
        pass


def test_nothing_was_dialled_but_this_machine(address, client, dialled):
    assert dialled and {host for host, *_ in (each for each in dialled if isinstance(each, tuple))} <= {LOOPBACK, "::1"}


def test_the_command_serves_until_it_is_stopped(monkeypatch, capsys, tiny):
    class Stopped:
        def wait(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(demonstrating, "load", lambda *arguments: tiny)
    monkeypatch.setattr(demonstrating, "threading", SimpleNamespace(Event=Stopped))
    with pytest.raises(demonstrating.typer.Exit) as ended:
        demonstrating.demo()
    assert ended.value.exit_code == 130
    assert f"http://{LOOPBACK}:" in capsys.readouterr().out
