"""The web page of `florence-lite demo`.

answering   what a visitor asks, and what is shown of an answer; knows nothing of Gradio
page        the page, and the server on this machine's own address
"""
