"""How the log-odds that a network gives a phrase become the probability that it means something in the image."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from florence_lite.checks import check, check_fields, check_positive, check_share, is_number
from florence_lite.files import read_json_object, replace_text

FILE = "calibration.json"
LARGEST = 2**12  # bytes of such a file
STEEPEST = 80.0  # log-odds beyond which a probability is 0 or 1 to any use


@dataclass(frozen=True)
class Calibration:
    """presence = σ((z − beta) / temperature), z being the log-odds of a phrase (`inference.presence`).

    threshold: presence from which a phrase counts as present where a call does not say.
    about: what it was fitted on, in words.

    The default is none at all: a phrase is present if coordinates together are likelier than the end.
    Raises ValueError naming the field, its value and the rule.
    """

    beta: float = 0.0
    temperature: float = 1.0
    threshold: float = 0.5
    about: str = ""

    def __post_init__(self):
        check(self, "beta", lambda beta: is_number(beta) and abs(beta) <= 1e3, "a number from -1000 to 1000")
        check_positive(self, "temperature")
        check(self, "temperature", lambda value: 1e-3 <= value <= 1e3, "a number from 0.001 to 1000")
        check_share(self, "threshold")
        check(self, "about", lambda about: isinstance(about, str), "a string")

    def presence(self, log_odds: float) -> float:
        """The probability, in [0, 1], that a phrase of these log-odds means something."""
        scaled = (log_odds - self.beta) / self.temperature
        return 1 / (1 + math.exp(-max(-STEEPEST, min(STEEPEST, scaled))))

    @classmethod
    def read(cls, path: str | os.PathLike) -> Calibration:
        """What `write` wrote into a file, or into a folder. Raises FileNotFoundError where there is none, and
        ValueError, naming the file, where it holds something else."""
        file = Path(path) / FILE if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"there is no calibration at {str(file)!r}; florence-lite calibrate makes one")
        try:
            return cls(**check_fields(cls, read_json_object(file, LARGEST)))
        except ValueError as error:
            raise ValueError(str(error) if str(file) in str(error) else f"{file}: {error}") from None

    def write(self, file: str | os.PathLike) -> None:
        """Into a file, in place of its predecessor at once."""
        replace_text(Path(file), json.dumps(asdict(self), indent=2) + "\n")

    def to_toml(self) -> str:
        """The lines that say the same in a checkpoint card."""
        numbers = "".join(f"{name} = {getattr(self, name):.6g}\n" for name in ("beta", "temperature", "threshold"))
        return f"[calibration]\n{numbers}about = {json.dumps(self.about, ensure_ascii=False)}\n"
