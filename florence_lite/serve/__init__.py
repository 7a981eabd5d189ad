"""A server: prompts about images over HTTP, answered together by one network. Needs the extra `florence-lite[serve]`.

query    what a request asks, read from its body
worker   the thread of the network: continuous answers, and encoded images that are kept
app      the endpoints and their limits

>>> uvicorn.run(create_app(Florence.from_pretrained("scenes-nano")))
"""

from florence_lite.serve.app import create_app

__all__ = ["create_app"]
