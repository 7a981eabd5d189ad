"""From images and prompts to results, with one network.

preprocessing   RGB pictures → pixel values
encoded         EncodedImage: what the vision tower sees of an image, for any number of prompts
prompts         Prompt: a task with its input
answering       prompts about encoded images → results
decoding        what happens to a prompt before and after its answer is decoded
continuous      prompts → ids with their probabilities, others taking the place of those that are answered
batching        how many of them fit into memory
pipeline        images and prompts → results, while others are on the way
presence        how likely it is that there is anything a phrase names
guides          which ids may follow: the grammar of a task, closed lists of labels
streaming       answers bit by bit, while they are written
outlining       boxes → outlines, one answer for each
panoptic        things and stuff → one map of segments
editing         painting over what was found
likelihoods     how likely answers are that somebody else wrote
choices         answers from a closed list
retrieval       which texts suit which images
finding         which images show what a phrase names
infilling       words in the place of masks
scores          confidence of answers, from the network's probabilities
domain          whether an image looks like those the network was trained on
many_images     any number of images, loaded as they are needed, answered in order
tiling          large images in tiles
merging         the answers about the tiles of an image as one
stitching       parts of a line of text as one
chunks          lists in pieces
parts           whether network, tokenizer and preprocessing belong together
"""

from florence_lite.inference.encoded import IMAGES_AT_ONCE, EncodedImage, ImageEncoder
from florence_lite.inference.many_images import ImageError
from florence_lite.inference.prompts import Prompt

__all__ = ["IMAGES_AT_ONCE", "EncodedImage", "ImageEncoder", "ImageError", "Prompt"]
