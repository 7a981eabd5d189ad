"""transformers' native Florence-2, the named peer of the benchmarks: built, asked, and what it ran on."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import torch
import transformers

from florence_lite.checkpoint import config_to_json
from florence_lite.model import FlorenceConfig

START, EOS = 2, 2


def build_native(config: FlorenceConfig, seed: int) -> transformers.PreTrainedModel:
    """transformers' class with random weights, in evaluation mode."""
    values = config_to_json(config) | {"image_token_id": config.text.vocab_size - 1}
    torch.manual_seed(seed)
    return transformers.Florence2ForConditionalGeneration(transformers.Florence2Config(**values)).eval()


def lively_native(config: FlorenceConfig, seed: int) -> transformers.PreTrainedModel:
    """transformers' class with random weights; its own start is nearly constant, so noise makes it answer variedly."""
    native = build_native(config, seed)
    with torch.no_grad():
        for parameter in native.parameters():
            parameter += 0.3 * config.text.d_model**-0.5 * torch.randn(parameter.shape)
    return native


def generate_native(native: transformers.PreTrainedModel, tokens: int, num_beams: int, **inputs) -> list[list[int]]:
    """Ids of the answers under Florence-2's defaults: no repeated 3-grams, forced first and last token."""
    beams = {"early_stopping": True, "length_penalty": 1.0} if num_beams > 1 else {}
    ids = native.generate(
        **inputs,
        **beams,
        num_beams=num_beams,
        no_repeat_ngram_size=3,
        max_new_tokens=tokens,
        do_sample=False,
        forced_bos_token_id=0,
        forced_eos_token_id=EOS,
        decoder_start_token_id=START,
        bos_token_id=0,
        eos_token_id=EOS,
        pad_token_id=1,
    )
    return ids[:, 1:].tolist()


def cpu_abilities() -> list[str]:
    """What of the processor decides which kernels are fast: torch's own word, and bf16 and VNNI where Linux tells."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    known = {"bf16": {"avx512_bf16", "amx_bf16"}, "VNNI": {"avx512_vnni", "avx_vnni"}}
    return [torch.backends.cpu.get_cpu_capability(), *(name for name, any_of in known.items() if flags & any_of)]


def machine(device: str = "cpu") -> str:
    """What decides how fast it is."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, {os.cpu_count()} CPU cores"
    return f"{platform.machine()}, {torch.get_num_threads()} threads, {', '.join(cpu_abilities())}"


def environment(device: str = "cpu") -> dict:
    """Where the metrics were taken, and by which command; of the paths in it the last part."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv]
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    return {
        "commit": git.stdout.strip() if git.returncode == 0 else None,
        "command": " ".join(words),
        "machine": machine(device),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
