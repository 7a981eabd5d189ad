"""What a call returns.

result     Result: an answer with its scores, as arrays, as JSON, in a notebook
pictures   an answer drawn on its image
handover   the same answer in the terms of COCO and of other libraries
"""

from florence_lite.results.result import Result

__all__ = ["Result"]
