"""Home of the card folders `tasks` and `checkpoints`, which stand at the top of the repository."""

from pathlib import Path

if not Path(__path__[0], "tasks").is_dir():  # imported from a checkout, installed or not
    __path__.append(str(Path(__file__).parents[2]))
