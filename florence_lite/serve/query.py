"""What a request asks, read from its body: a form with a file, or JSON with the image in base64."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from typing import Annotated, Any, cast

from fastapi import HTTPException, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile

LETTERS = 10_000  # of a sentence; far more than any network reads
LETTERS_OF_PHRASE = 1_000
PHRASES = 1_000  # of a request
SHOWN = 1_000  # letters of a message

Sentence = Annotated[str, Field(max_length=LETTERS)]
Words = Annotated[list[Annotated[str, Field(max_length=LETTERS_OF_PHRASE)]], Field(max_length=PHRASES)]


def _decoded(image: str) -> bytes:
    """The bytes that base64 stands for, of a data: address too, as browsers write it."""
    if image.startswith("data:"):
        image = image.partition(",")[2]
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64: {error}") from None


class Query(BaseModel):
    """A prompt about an image, with the arguments of `Florence.run`."""

    model_config = ConfigDict(extra="forbid")

    image: Annotated[
        str, AfterValidator(_decoded), Field(description="The file in base64, as it is or as a data: address.")
    ]
    prompt: Sentence = Field(description="A marker of /tasks, or a free sentence.", examples=["<OD>"])
    text: Sentence | None = Field(None, description="Caption or question of the prompt.")
    phrases: Words | None = Field(None, description="Phrases of the prompt, each of which is asked for on its own.")
    region: Annotated[list[float], Field(min_length=4, max_length=4)] | None = Field(
        None, description="x0, y0, x1, y1 in pixels of the image."
    )
    threshold: float | None = Field(
        None, description="Presence that phrases must reach; of other tasks, score below which boxes are left out."
    )
    labels: Words | None = Field(None, description="Closes the list of what the answer may say.")
    choices: Words | None = Field(None, description="The answers there can be, with a probability each.")
    num_beams: Annotated[int, Field(ge=1, le=8)] | None = Field(None, description="Of a beam search; 1: greedy.")
    max_new_tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="The most tokens of the answer.")

    @property
    def options(self) -> dict[str, Any]:
        """Options of the call, those that were given."""
        given = self.model_dump(include={"threshold", "labels", "choices", "num_beams", "max_new_tokens"})
        return {name: value for name, value in given.items() if value is not None}


_LISTS = ("phrases", "labels", "choices")


def body_schemas() -> dict[str, Any]:
    """The two forms of a body, as OpenAPI describes them."""
    as_json = Query.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "The file."}
    region = {"type": "string", "description": "x0,y0,x1,y1 in pixels of the image.", "examples": ["18,58,83,126"]}
    as_form = {**as_json, "properties": {**as_json["properties"], "image": file, "region": region}}
    return {"multipart/form-data": {"schema": as_form}, "application/json": {"schema": as_json}}


async def read_query(request: Request) -> Query:
    """What the body asks. Raises HTTPException: 415 for another type, 400 for a body that cannot be read, 422 for one
    that asks nothing sensible."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body = await request.body()
        return await asyncio.to_thread(lambda: _checked(_parsed(body)))
    if kind != "multipart/form-data":
        raise HTTPException(
            415, f"content type {kind!r} must be multipart/form-data, with the image as a file, or application/json"
        )
    try:
        async with request.form(max_files=1, max_fields=3 * PHRASES + 10, max_part_size=2**16) as form:
            image = form.get("image")
            content = await image.read() if isinstance(image, UploadFile) else None
            return _checked(_fields(form), content)
    except HTTPException:
        raise
    except Exception as error:  # the parser's own, of several kinds
        raise HTTPException(400, f"the form cannot be read: {error}") from None


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except RecursionError:
        raise HTTPException(400, "the JSON is nested too deeply") from None
    except ValueError as error:
        raise HTTPException(400, f"the body is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise HTTPException(400, f"the body is a JSON {type(values).__name__}; it must be an object")
    return values


def _fields(form: FormData) -> dict[str, Any]:
    """The fields beside the image, those that are lists as lists."""
    values: dict[str, Any] = {}
    for name in form:
        given = form.getlist(name)
        if any(isinstance(each, UploadFile) for each in given):
            if name != "image" or len(given) > 1:
                raise HTTPException(422, f"{name!r} is a file; one file is taken, called image")
        elif name == "image":
            raise HTTPException(422, "image is no file; with curl it is sent as  -F image=@photo.jpg")
        elif name in _LISTS:
            values[name] = given
        elif len(given) > 1:
            raise HTTPException(422, f"{name} was given {len(given)} times; give it once")
        else:
            [value] = cast(list[str], given)
            values[name] = value.split(",") if name == "region" else value
    return values


def _checked(values: dict[str, Any], content: bytes | None = None) -> Query:
    """content: the image of a form."""
    if content is not None:
        values = {**values, "image": ""}
    try:
        query = Query.model_validate(values)
    except ValidationError as error:
        raise HTTPException(422, _told(error)) from None
    if content is not None:
        query.image = cast(Any, content)
    return query


def _told(error: ValidationError) -> str:
    """What is wrong with each field, on a line."""
    faults = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            faults.append(f"unknown field {where!r}; fields are {', '.join(Query.model_fields)}")
        else:
            faults.append(f"{where}: {fault['msg'].removeprefix('Value error, ')}")
    return "; ".join(faults)
