"""Which stages judge the rows, in which order and with which settings, from a TOML file or from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from florence_lite.checks import check_fields, check_switch, check_whole, hint, is_list, is_text
from florence_lite.files import read_toml
from florence_lite.refine.agreement import Captions, Opinions, Orphans, Regions
from florence_lite.refine.balance import Balance
from florence_lite.refine.boxes import Slivers, Twins, Whole
from florence_lite.refine.duplicates import Duplicates
from florence_lite.refine.quality import Errors, Faults, Presence, Repeated, Scores
from florence_lite.refine.stage import Found, Stage

CONFIGURATION = "configuration of refine"

# In the order in which they judge: what is cheap and looks at one answer first, what needs all images last.
STAGES: dict[str, type[Stage]] = {
    stage.NAME: stage
    for stage in (
        Repeated,
        Errors,
        Faults,
        Scores,
        Presence,
        Slivers,
        Whole,
        Twins,
        Opinions,
        Captions,
        Regions,
        Orphans,
        Duplicates,
        Balance,
    )
}
ON_REQUEST = (Captions.NAME, Regions.NAME, Balance.NAME)
_OPTIONS = ("stages", "without", "empty_are_negatives", "sheet")


@dataclass(frozen=True)
class RefineConfig:
    """How rows are filtered.

    stages: their names in the order in which they judge, each seeing what those before it left. None: all of `STAGES`;
        those of `ON_REQUEST` only where there are settings of them, if an empty table, and "opinions" too where there
        is but one.
    without: those of them that are left out.
    settings: stage → its settings by name, see `STAGES`.
    empty_are_negatives: answers that list nothing say that there is nothing, and rows are marked as verified so; not
        where a stage left something out, where the picture is foreign, and where another opinion saw something. Without
        it they stay unverified: nothing is trained on their emptiness.
    sheet: images on the contact sheet at most; 0 for none.

    Raises ValueError naming the stage, the setting, its value and the rule.
    """

    stages: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    empty_are_negatives: bool = False
    sheet: int = 48

    def __post_init__(self):
        check_switch(self, "empty_are_negatives")
        check_whole(self, 0, "sheet")
        for field_name in ("stages", "without"):
            names = getattr(self, field_name)
            if names is None and field_name == "stages":
                continue
            if not is_list(names, is_text):
                raise ValueError(f"{field_name} = {names!r} must be a list of names; stages: {', '.join(STAGES)}")
            for name in names:
                _check_stage(name)
            if len(set(names)) < len(names):
                raise ValueError(f"{field_name} = {list(names)} names one of them twice; leave it out")
            object.__setattr__(self, field_name, tuple(names))
        for name in self.settings:
            _check_stage(name)
            if self.stages is not None and name not in self.stages:
                raise ValueError(
                    f"there are settings for {name}, which is not among the stages; add it or leave them out"
                )
            self._made(name)

    @classmethod
    def from_toml(cls, path: str | os.PathLike) -> Self:
        """Read `path`: the fields, and a table of settings named as each stage that has some. Raises FileNotFoundError,
        or ValueError for TOML, stages or settings that are wrong."""
        values = read_toml(Path(path), CONFIGURATION)
        try:
            settings = {}
            for name in [name for name in values if name not in _OPTIONS]:
                if name not in STAGES:
                    known = (*_OPTIONS, *STAGES)
                    raise ValueError(
                        f"unknown stage or field {name!r}; {hint(name, known)}there are {', '.join(known)}"
                    )
                settings[name] = values.pop(name)
                if not isinstance(settings[name], Mapping):
                    raise ValueError(f"{name} = {settings[name]!r} must be a table of its settings, [{name}]")
            return cls(settings=settings, **values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def make(self, found: Found) -> list[Stage]:
        """New stages for rows that hold what was `found`. Raises ValueError where one cannot judge them."""
        several = any(len(opinions) > 1 for opinions in found.tasks.values())
        names = self.stages
        if names is None:
            left_out = {name for name in ON_REQUEST if name not in self.settings}
            if not several and Opinions.NAME not in self.settings:
                left_out.add(Opinions.NAME)
            names = tuple(name for name in STAGES if name not in left_out)
        stages = [self._made(name) for name in names if name not in self.without]
        for stage in stages:
            stage.check(found)
        return stages

    def _made(self, name: str) -> Stage:
        cls, settings = STAGES[name], self.settings.get(name, {})
        try:
            return cls(**check_fields(cls, settings))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def _check_stage(name: str) -> None:
    if name not in STAGES:
        raise ValueError(f"unknown stage {name!r}; {hint(name, STAGES)}stages: {', '.join(STAGES)}")
