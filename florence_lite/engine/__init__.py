"""Running the network: decoding and scoring. Knows ids and tensors only; what an id means is decided elsewhere.

Read in this order: `options` (what can be asked for), `search` (greedy, sampled and beam search on plain lists),
`constraints` (ids that may not follow; a guide says which may), `generate` (the loop that feeds the network), `score`.
"""

from florence_lite.engine.generate import generate
from florence_lite.engine.limits import check_ids
from florence_lite.engine.options import Generated, GenerationOptions
from florence_lite.engine.score import Scores, score

__all__ = ["Generated", "GenerationOptions", "Scores", "check_ids", "generate", "score"]
