"""The data engine's second stage: which of a checkpoint's answers are worth training on, and why the others are not.

    report = refine("answers", "clean")          all answers → those that stay, and those that do not with their reasons
    print(*report.lines(), sep="\\n")

run         the whole                          config       stages, their order and settings, from TOML or Python
store       rows by image, parts               report       counts, for people and as JSON
judged      a row while it is judged           stage        what a stage is
quality     errors, faults, scores, presence   boxes        slivers, whole images, twins
agreement   of opinions and tasks              duplicates   images that look alike      balance  of labels
corrections what a person says                 near         what is near a threshold, to look at
words       what texts have in common
"""

from florence_lite.refine.config import STAGES, RefineConfig
from florence_lite.refine.report import Report
from florence_lite.refine.run import refine

__all__ = ["STAGES", "RefineConfig", "Report", "refine"]
