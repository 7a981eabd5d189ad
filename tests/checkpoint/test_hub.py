"""Downloads from a Hub on the loopback interface with the real client: what arrives, what is refused, what is said."""

import errno
import os
import re
import subprocess
import sys
from itertools import repeat
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, snapshot_download

import florence_lite.checkpoint.hub as hub_module
from florence_lite import Florence
from florence_lite.checkpoint.hub import download, upload
from tests.checkpoint.hub_server import TOKEN, HubServer
from tests.tiny import noise_image, tiny_florence

NAME = "org/tiny"
WEIGHTS = bytes(range(256)) * 16  # 4 kB
OTHER_WEIGHTS = WEIGHTS[::-1]
FILES = {
    "README.md": b"# tiny",
    "config.json": b'{"model_type": "florence2"}',
    "model.safetensors": WEIGHTS,
    "modeling_florence2.py": b"raise SystemExit('foreign code')",
    "tokenizer.json": b"{}",
}
WANTED = ["config.json", "tokenizer.json", "model.safetensors"]  # of FILES, in the order of fetching
SHARDS = {f"model-0000{n}-of-00003.safetensors": WEIGHTS[n:] for n in (1, 2, 3)}


@pytest.fixture(scope="module", autouse=True)
def no_proxy():
    """The client reads its settings when it is first used, and stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "*")
        getattr(huggingface_hub, "close_session", lambda: None)()
        yield


@pytest.fixture
def server(monkeypatch):
    """A Hub with one repository; no token and no switch of this machine shines through."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with HubServer() as server:
        server.push(NAME, FILES)
        yield server


@pytest.fixture
def cache(server, monkeypatch, tmp_path) -> Path:
    """The client of this process turned to the server, with an empty cache and no patience between attempts."""
    settings = {
        "ENDPOINT": server.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_OFFLINE": False,
        "DOWNLOAD_CHUNK_SIZE": 500,  # so that even these files come in several pieces
    }
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return tmp_path / "cache"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def expected(files: dict[str, bytes] = FILES) -> dict[str, bytes]:
    return {name: files[name] for name in WANTED}


def blobs(cache: Path) -> list[bytes]:
    """What lies in the cache; some versions of the client keep the beginning of a file to resume from."""
    return [path.read_bytes() for path in cache.glob("models--*/blobs/*") if path.suffix != ".incomplete"]


def test_first_load_shows_progress_and_later_ones_are_silent(server, tmp_path):
    """In fresh processes with settings from the environment: two loads, then one more without network."""
    settings = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path)}
    settings |= {"TQDM_POSITION": "-1"}  # bars even where stderr is no terminal

    def run(program: str, **more: str) -> tuple[str, str]:
        """Output and errors of a program."""
        program = f"import sys; from florence_lite.checkpoint.hub import download; {program}"
        options = {"env": os.environ | settings | more, "capture_output": True, "text": True, "check": True}
        done = subprocess.run([sys.executable, "-c", program], **options)
        return done.stdout, done.stderr

    folder, errors = run(f"download({NAME!r}); print('again', file=sys.stderr); print(download({NAME!r}))")
    first, _, second = errors.partition("again\n")
    assert content(Path(folder.strip())) == expected()
    assert re.search(r"model\.safetensors: +100%", first) and second == ""
    assert server.requests.pop() == f"GET /api/models/{NAME}/revision/main"  # all that the second load asked
    assert server.fetched() == WANTED
    server.requests.clear()
    assert run(f"print(download({NAME!r}))", HF_HUB_OFFLINE="1") == (folder, "")
    assert server.requests == []


@pytest.mark.parametrize(
    ("names", "fetched"),
    [
        (FILES, WANTED),
        (["config.json", "pytorch_model.bin", "model.safetensors"], ["config.json", "model.safetensors"]),
        (["config.json", "pytorch_model.bin", "training_args.bin"], ["config.json", "pytorch_model.bin"]),
        (
            ["config.json", *SHARDS, "model.safetensors.index.json", "pytorch_model.bin.index.json"],
            ["config.json", "model.safetensors.index.json", *SHARDS],
        ),
        (
            ["pytorch_model-1-of-1.bin", "pytorch_model.bin.index.json", "config.json"],
            ["config.json", "pytorch_model.bin.index.json", "pytorch_model-1-of-1.bin"],
        ),
        (
            ["adapter_model.safetensors", "adapter_config.json", "optimizer.pt", "setup.py"],
            ["adapter_config.json", "adapter_model.safetensors"],
        ),
        (
            ["config.json", "model.safetensors", "checkpoint-5/model.safetensors", "onnx/config.json", "x.py"],
            ["config.json", "model.safetensors"],
        ),
        (
            ["added_tokens.json", "config.json", "generation_config.json", "merges.txt", "model.safetensors"]
            + ["preprocessor_config.json", "processor_config.json", "special_tokens_map.json", "tf_model.h5"]
            + ["tokenizer.json", "tokenizer_config.json", "vocab.json", "flax_model.msgpack", "trainer_state.json"],
            ["config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"]
            + ["tokenizer.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"]
            + ["vocab.json", "merges.txt", "model.safetensors"],
        ),
    ],
)
def test_what_is_fetched(server, cache, names, fetched):
    server.push(NAME, {name: name.encode() for name in names})
    folder = download(NAME)
    assert server.fetched() == fetched
    assert content(folder) == {name: name.encode() for name in fetched}
    assert download(NAME, local_files_only=True) == folder


def test_a_revision_stays_what_it_is(server, cache):
    old = server.branches[NAME, "main"]
    server.push(NAME, FILES | {"config.json": b"{}"}, branch="v2")
    assert content(download(NAME)) == expected()
    assert content(download(NAME, "v2"))["config.json"] == b"{}"
    new = server.push(NAME, FILES | {"model.safetensors": OTHER_WEIGHTS})
    assert content(download(NAME, local_files_only=True)) == expected()  # not looked at since the push
    assert content(download(NAME)) == expected() | {"model.safetensors": OTHER_WEIGHTS}
    for revision, weights in ((None, OTHER_WEIGHTS), (old, WEIGHTS), (new, OTHER_WEIGHTS), ("v2", WEIGHTS)):
        for local_files_only in (False, True):
            folder = download(NAME, revision, local_files_only=local_files_only)
            assert content(folder)["model.safetensors"] == weights


def test_a_commit_that_was_pinned_before_is_found_by_its_branch_later(server, cache):
    folder = download(NAME, server.branches[NAME, "main"])
    with pytest.raises(FileNotFoundError, match="not in the local cache"):
        download(NAME, local_files_only=True)
    assert download(NAME) == folder == download(NAME, local_files_only=True)


@pytest.mark.parametrize("subfolder", ["best", "runs/7", "best/", "./best"])
def test_a_subfolder(server, cache, subfolder):
    inside = {name: name.encode() for name in ("config.json", "model.safetensors", "custom.py")}
    nested = {f"{folder}/{name}": text for folder in ("best", "runs/7") for name, text in inside.items()}
    server.push(NAME, FILES | nested)
    folder = download(NAME, subfolder=subfolder)
    assert content(folder) == {name: inside[name] for name in ("config.json", "model.safetensors")}
    assert download(NAME, subfolder=subfolder, local_files_only=True) == folder


@pytest.mark.parametrize("closed", ["gated", "private"])
def test_a_token_opens_what_is_closed(server, cache, monkeypatch, closed):
    getattr(server, closed).add(NAME)
    with pytest.raises(FileNotFoundError):
        download(NAME)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert content(download(NAME)) == expected()


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ({"repository": "org/tinny"}, FileNotFoundError, "the Hub has no repository 'org/tinny', or it is private"),
        ({"repository": "org/own"}, FileNotFoundError, "'org/own', or it is private: .* log in with `hf auth login`"),
        (
            {"repository": "org/gated"},
            FileNotFoundError,
            "'org/gated' is gated: accept the terms on http://.*/org/gated and log in with `hf auth login`",
        ),
        ({"revision": "v9"}, FileNotFoundError, "'org/tiny' has no revision 'v9': give a branch, .*/org/tiny/commits"),
        ({"revision": "0" * 40}, FileNotFoundError, "'org/tiny' has no revision '0{40}'"),
        ({"subfolder": "worst"}, FileNotFoundError, "'org/tiny', subfolder 'worst' does not exist; folders .*: \\.$"),
        ({"repository": "org/runs"}, FileNotFoundError, "'org/runs' has no config.json; folders .* one: a, b/c$"),
        ({"repository": "org/tf"}, FileNotFoundError, "'org/tf' has no weights that can be read here"),
        ({"local_files_only": True}, FileNotFoundError, "'org/tiny' is not in the local cache .*cache and the "),
        (
            {"revision": "v9", "local_files_only": True},
            FileNotFoundError,
            "'org/tiny' at revision 'v9' is not in .* load it once with the network on",
        ),
        ({"subfolder": "../other"}, ValueError, "subfolder is '../other'; it must be a path inside of the repository"),
        ({"subfolder": "/etc"}, ValueError, "subfolder is '/etc'"),
    ],
)
def test_what_cannot_be_had(server, cache, where, error, message):
    server.push("org/own", FILES)
    server.push("org/gated", FILES)
    server.push("org/runs", {"README.md": b"", "a/config.json": b"{}", "b/c/config.json": b"{}"})
    server.push("org/tf", {"config.json": b"{}", "tf_model.h5": b"", "onnx/model.safetensors": b""})
    server.private.add("org/own")
    server.gated.add("org/gated")
    with pytest.raises(error, match=message):
        download(**{"repository": NAME} | where)
    assert blobs(cache) == []


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "", "org/ti ny", "../tiny", "/models/tiny"])
def test_what_is_no_hub_id_is_not_asked_for(server, cache, name):
    with pytest.raises(FileNotFoundError, match=f"{name!r} is not a Hub id such as 'org/name'"):
        download(name)
    assert server.requests == []


def test_a_wrong_token(server, cache, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    server.refuses_tokens = True
    with pytest.raises(FileNotFoundError, match=r"refuses access to 'org/tiny' \(HTTP 401\): the token is not valid"):
        download(NAME)


@pytest.mark.parametrize("after", [0, 1000])
def test_a_connection_that_breaks_once(server, cache, after):
    """The client asks for the rest, by itself or, in older versions, when it is called again."""
    server.cuts["model.safetensors"] = iter([after])
    try:
        folder = download(NAME)
    except ConnectionError:
        folder = download(NAME)
    assert content(folder) == expected()
    assert server.fetched() == [*WANTED, "model.safetensors"]
    last = [request for request in server.requests if request.startswith("GET")][-1]
    assert last.endswith(f"bytes={after}-" if after else "/model.safetensors")


def test_a_connection_that_breaks_always(server, cache):
    server.cuts["model.safetensors"] = iter([1000, *repeat(0, 99)])
    with pytest.raises(ConnectionError, match=r"cannot get model.safetensors of 'org/tiny' from http.* load again"):
        download(NAME)
    assert sorted(blobs(cache)) == sorted([FILES["config.json"], FILES["tokenizer.json"]])
    with pytest.raises(FileNotFoundError, match="not in the local cache"):
        download(NAME, local_files_only=True)
    server.cuts.clear()
    server.requests.clear()
    assert content(download(NAME)) == expected()
    assert server.fetched() == ["model.safetensors"]


def test_a_checkpoint_whose_shards_did_not_all_arrive(server, cache):
    commit = server.push(NAME, {"config.json": b"{}", "model.safetensors.index.json": b"{}", **SHARDS})
    for shard in SHARDS:
        server.cuts = {shard: repeat(0)}
        with pytest.raises(ConnectionError, match=f"cannot get {shard}"):
            download(NAME)
        with pytest.raises(FileNotFoundError, match="only a part of 'org/tiny' .* weights are missing: load it once"):
            download(NAME, commit, local_files_only=True)
    server.cuts = {}
    assert download(NAME) == download(NAME, commit, local_files_only=True)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda content: content[:-1] + b"?", "size or checksum differ from the Hub's. It was deleted from the cache"),
        (lambda content: content[:-1], r"its size differs from the Hub's.*tiny.blobs.\*\.incomplete first$"),
        (lambda content: content + b"?", r"its size differs from the Hub's.*tiny.blobs.\*\.incomplete first$"),
    ],
)
def test_a_file_that_arrives_damaged_is_never_used(server, cache, name, alter, message):
    server.altered[name] = alter(FILES[name])
    with pytest.raises(ValueError, match=f"{name} of 'org/tiny' arrived damaged: {message}"):
        download(NAME)
    assert server.altered[name] not in blobs(cache)
    with pytest.raises(FileNotFoundError):
        download(NAME, local_files_only=True)
    server.altered.clear()
    for beginning in cache.rglob("*.incomplete"):
        beginning.unlink()
    assert content(download(NAME)) == expected()


def test_an_update_that_fails_leaves_the_cached_state(server, cache):
    folder = download(NAME)
    server.push(NAME, FILES | {"model.safetensors": OTHER_WEIGHTS})
    server.altered["model.safetensors"] = WEIGHTS
    with pytest.raises(ValueError, match="damaged"):
        download(NAME)
    assert download(NAME, local_files_only=True) == folder
    assert content(folder) == expected()


@pytest.mark.parametrize("failure", ["stopped", "down", "gated", "private", "gone"])
def test_a_hub_that_does_not_answer(server, cache, failure):
    """What is cached stays usable; what is not cannot be had."""
    other = "org/other"
    server.push(other, FILES)
    folder = download(NAME)
    before = len(server.requests)
    if failure == "stopped":
        server.stop()
    elif failure == "down":
        server.down = True
    elif failure == "gone":
        server.commits.clear()
    else:
        getattr(server, failure).update({NAME, other})
    assert download(NAME) == folder
    assert len(server.requests) - before == (failure != "stopped")
    unreachable = failure in ("stopped", "down")
    with pytest.raises(ConnectionError if unreachable else FileNotFoundError, match="'org/other'"):
        download(other)


def test_a_branch_that_was_deleted_is_said_to_be_missing(server, cache):
    """The Hub did answer: what it no longer has is only taken from the cache on request."""
    server.push(NAME, FILES, branch="v2")
    folder = download(NAME, "v2")
    del server.branches[NAME, "v2"]
    with pytest.raises(FileNotFoundError, match="'org/tiny' has no revision 'v2'"):
        download(NAME, "v2")
    assert download(NAME, "v2", local_files_only=True) == folder


def test_a_hub_that_goes_down_between_two_files(server, cache, monkeypatch):
    check = hub_module._check
    monkeypatch.setattr(hub_module, "_check", lambda *args: setattr(server, "down", True) or check(*args))
    with pytest.raises(ConnectionError, match="cannot get tokenizer.json of 'org/tiny' from .*503"):
        download(NAME)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_cache_that_cannot_be_written(server, cache, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(hub_module, "hf_hub_download", refuse)
    message = rf"cannot store config.json of 'org/tiny' in .*cache \({os.strerror(number)}\): make room .* HF_HOME"
    with pytest.raises(OSError, match=message) as caught:
        download(NAME)
    assert caught.value.errno == number


def test_what_another_program_fetched_is_completed(server, cache):
    snapshot_download(NAME, allow_patterns=["model.safetensors"])
    server.requests.clear()
    assert content(download(NAME)) == expected()
    assert server.fetched() == ["config.json", "tokenizer.json"]


# ---- to the Hub


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "mine"
    made.mkdir()
    (made / "config.json").write_bytes(b"{}")
    (made / "model.safetensors").write_bytes(WEIGHTS)
    return made


def test_upload_and_download_again(server, cache, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    address = upload(folder, "me/new", private=True)
    assert address.startswith(f"{server.endpoint}/me/new/commit/")
    assert server.private == {"me/new"}
    assert content(download("me/new")) == content(folder)
    (folder / "config.json").write_bytes(b'{"a": 1}')
    assert upload(folder, "me/new", message="better") != address
    assert content(download("me/new"))["config.json"] == b'{"a": 1}'


@pytest.mark.parametrize(
    ("name", "token", "down", "error", "message"),
    [
        (
            "me/new",
            "",
            False,
            PermissionError,
            r"does not let this login write .*\(HTTP 401\).*hf auth login",
        ),
        ("me/new", "hf_wrong", False, PermissionError, "with a token that may write"),
        ("me/new", TOKEN, True, ConnectionError, "cannot upload to 'me/new' .*check the network and try again"),
        ("me/new/er", TOKEN, False, ValueError, "'me/new/er' is not a Hub id such as 'org/name'"),
    ],
)
def test_uploads_that_fail(server, cache, folder, monkeypatch, name, token, down, error, message):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    server.down = down
    with pytest.raises(error, match=message):
        upload(folder, name)
    assert "me/new" not in server.commits


def test_a_whole_checkpoint_there_and_back(server, cache, toy_tokenizer, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    florence = tiny_florence(toy_tokenizer, "encoder")
    florence.push_to_hub("me/tiny", layout="original")
    back = Florence.from_pretrained("me/tiny")
    image = noise_image(0)
    assert back.run(image, "<OD>", max_new_tokens=20) == florence.run(image, "<OD>", max_new_tokens=20)
