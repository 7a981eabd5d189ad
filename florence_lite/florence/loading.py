"""A network with its tokenizer and cards: loaded from a name, folder or repository, and saved again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch

from florence_lite.cards import Calibration, CheckpointCard, task
from florence_lite.checkpoint import (
    from_transformers,
    load_pretrained,
    save_checkpoint,
    to_transformers,
    write_companions,
)
from florence_lite.engine.fast import FastModel
from florence_lite.inference import ImageEncoder
from florence_lite.inference.answering import Answering
from florence_lite.inference.batching import MEMORY, check_memory
from florence_lite.inference.domain import Domain
from florence_lite.inference.parts import check_parts
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import FlorenceModel
from florence_lite.tokens import Tokenizer

DEFAULT_CHECKPOINT = "scenes-nano"


class Loaded:
    """A network with its tokenizer and cards; see `Florence`."""

    def __init__(
        self,
        model: FlorenceModel,
        tokenizer: Tokenizer,
        card: CheckpointCard | None = None,
        preprocessor: Preprocessor | None = None,
        decoding: Mapping[str, Any] | None = None,
        name: str | None = None,
        domain: Domain | None = None,
        calibration: Calibration | None = None,
        memory: int = MEMORY,
        precision: str = "fp32",
    ):
        """card: of the checkpoint, if it has one. domain: what pictures it knows, if it knows one kind only.

        calibration: how the log-odds of phrases become probabilities; None: that of the card, if it has one.
        memory: see `memory`. precision: see `from_pretrained`.

        preprocessor: makes images ready; without one, with the statistics of the card, or else Florence-2's.
        decoding: the checkpoint's own defaults, fields of `GenerationOptions`; they replace those of the task cards,
        save that lengths are the tasks' and that the n-gram rule holds for prose only. Those of the card come last.
        None: that `<s>` is forced, as by every public Florence-2. Where it names no `forced_bos`, `<s>` is forced all
        the same, but not with `compat=True` nor in saved files.
        name: of the checkpoint, for messages; without it, the card's.
        Raises ValueError where the parts do not belong together, and for decoding defaults that no answer can have.
        """
        check_parts(model.config, tokenizer, preprocessor)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.card = card
        statistics: dict[str, Any] = {"mean": card.mean, "std": card.std} if card else {}
        self.preprocessor = preprocessor or Preprocessor(model.config.image_size_wh, **statistics)
        self.decoding = {"forced_bos": tokenizer.vocabulary.bos} if decoding is None else dict(decoding)
        self.name = name or (card.name if card else "without a name")
        fast: Any = FastModel(self.model, precision)  # what it does not define, it takes from the model
        self.encoder = ImageEncoder(fast, self.preprocessor, self.name)
        calibration = calibration or (card.calibration if card else None)
        self.answering = Answering(fast, tokenizer, card, self.decoding, domain, calibration, check_memory(memory))
        self._calibrated = calibration and self.encoder.maker
        try:
            self.answering.generation_options(task("<CAPTION>"), prefix_length=1, options={"compat": True})
        except ValueError as error:
            raise ValueError(f"the decoding settings of checkpoint {self.name!r}: {error}") from None

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike = DEFAULT_CHECKPOINT,
        dtype: torch.dtype | str = "auto",
        device: str | torch.device = "cpu",
        revision: str | None = None,
        subfolder: str | None = None,
        adapter: str | os.PathLike | None = None,
        calibration: Calibration | str | os.PathLike | None = None,
        memory: int = MEMORY,
        precision: str = "fp32",
    ) -> Self:
        """Load an embedded checkpoint, a local folder, or a repository of the Hugging Face Hub.

        name: a checkpoint card's name ("scenes-nano"), a folder or a Hub id ("microsoft/Florence-2-base") of either
            layout, Microsoft's or transformers'; or a LoRA adapter, which is merged into the checkpoint that it names;
            that is not fetched unless a checkpoint card names it too: give it as `name`, and the adapter as `adapter`.
        dtype: torch.float32, torch.bfloat16 or torch.float16, or its name; "auto" takes that of the files, but float32
            for float16 files on the CPU and for all on Apple's GPUs.
        device: where the network runs, "cpu", "cuda", "cuda:1" or "mps". On CUDA, work that comes again is kept as
            graphs, with up to 1 GiB of memory.
        revision: branch, tag or commit of a Hub repository. subfolder: of the repository or folder.
        adapter: folder or Hub id of a LoRA adapter to merge into the checkpoint `name`.
        calibration: a file that `florence-lite calibrate` wrote, or a `Calibration`; else the checkpoint's own, from
            its folder or its card. With an adapter there is none of its own: other weights need another.
        memory: see `memory`.
        precision: "bf16" or "int8" halve or quarter what an answer on a processor has to read for each id, beside the
            weights in memory; answers may differ. "bf16" also computes the vision tower in bfloat16, where the
            processor has instructions for it. In "fp32" large networks keep a copy of the decoder in int8, from the
            first greedy answer on: it guesses ids that are checked exactly.

        Raises FileNotFoundError if there is no such checkpoint, ValueError for a device that cannot be used here and
        if the files are damaged or do not fit together, and what `florence_lite.checkpoint.hub.download` raises.
        """
        loaded = load_pretrained(name, dtype, device, revision, subfolder, adapter)
        if not isinstance(calibration, Calibration | None):
            calibration = Calibration.read(calibration)
        return cls(
            loaded.model,
            loaded.tokenizer,
            loaded.card,
            loaded.preprocessor,
            loaded.decoding,
            str(name),
            loaded.domain,
            calibration or loaded.calibration,
            memory,
            precision,
        )

    @classmethod
    def from_transformers(cls, model: Any, processor: Any) -> Self:
        """A copy of transformers' Florence-2 (5.0 or newer): what one of the two learns later, the other does not.

        model: a `transformers.Florence2ForConditionalGeneration`. processor: its `Florence2Processor`.

        Type and device stay, but float32 takes the place of float16 on the CPU. With `compat=True` answers are
        those of `model.generate`, id for id. Raises ValueError for anything else than such a model, for an adapter
        that is not merged, quantised weights and a processor that does not belong to the model.
        """
        loaded = from_transformers(model, processor)
        name = getattr(model, "name_or_path", "") or "from transformers"
        return cls(loaded.model, loaded.tokenizer, None, loaded.preprocessor, loaded.decoding, name)

    def to_transformers(self) -> tuple[Any, Any]:
        """transformers' own model and processor (5.0 or newer) with a copy of the weights, in the same type and on the
        same device; through a temporary folder.

        Raises ImportError where transformers is missing, and ValueError for a network that reads its prompt in the
        decoder, as `scenes-nano` does: transformers' class would answer something else.
        """
        if self.model.config.prompt_side != "encoder":
            raise ValueError(
                f"checkpoint {self.name!r} reads its prompt in the decoder, and transformers' class in the encoder: "
                "its answers would be others. Ask it here"
            )
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return to_transformers(Path(folder), self.model.embed_tokens.weight.dtype, self.device)

    def save_pretrained(
        self, folder: str | os.PathLike, layout: str = "native", dtype: torch.dtype | None = None
    ) -> None:
        """Write the checkpoint with its tokenizer, image processor and decoding settings into `folder`.

        layout: "native" for transformers' own class, "original" for Microsoft's code; `from_pretrained` reads both.
        A calibration goes with it, unless the weights have been changed since.
        dtype: of the weights; as they are without one. Raises ValueError for what the layout cannot express.
        """
        calibration = self.calibration if self._calibrated == self.encoder.maker else None
        write_companions(
            folder, self.tokenizer, self.preprocessor, self.model.config, self.decoding, layout, calibration
        )
        save_checkpoint(self.model, folder, dtype, layout, self.tokenizer.image_id, self.decoding)

    def push_to_hub(
        self,
        repository: str,
        layout: str = "native",
        dtype: torch.dtype | None = None,
        private: bool | None = None,
        commit_message: str | None = None,
    ) -> str:
        """`save_pretrained` into a repository of the Hugging Face Hub, "org/name", made if it does not exist.

        private: whether a repository made here is; the Hub's default without it. Returns the commit's address.
        Raises what `florence_lite.checkpoint.hub.upload` raises.
        """
        from florence_lite.checkpoint.hub import upload

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, layout, dtype)
            return upload(folder, repository, private, commit_message)

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @property
    def memory(self) -> int:
        """Bytes that a batch of answers may take while it is worked on, beside the weights and the encoded images.

        From it follows how many prompts go through the network together, hundreds in a small one. Prompts are answered
        one at a time where even one takes more. Can be set at any time; at least 64 MiB.
        """
        return self.answering.decoding.memory

    @memory.setter
    def memory(self, memory: int) -> None:
        self.answering.decoding.memory = check_memory(memory)

    @property
    def calibration(self) -> Calibration | None:
        """How the log-odds of a phrase become its presence; None where the checkpoint is not calibrated."""
        return self.answering.calibration if self._calibrated else None
