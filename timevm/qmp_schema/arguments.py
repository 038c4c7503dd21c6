"""JSON arguments → a validated model, or QEMU's sentence about the first thing wrong with them.

The order is QEMU's: members as declared, then members that are not (QEMU: ``qapi/qobject-input-visitor.c``).
"""

from __future__ import annotations

from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from timevm.qmp_schema.base import QapiModel


class ArgumentError(ValueError):
    """The arguments do not fit; ``str()`` is the answer's ``desc``."""


def parse_arguments(model: type[QapiModel], arguments: dict[str, Any]) -> Any:
    """An instance of ``model``.  Raises ArgumentError."""
    try:
        parsed = model.model_validate(arguments, by_alias=True, by_name=False)
    except ValidationError as wrong:
        raise ArgumentError(_sentence(model, wrong.errors(include_url=False, include_context=False)[0])) from wrong
    # pydantic takes None for an optional member; QAPI has no null here
    for name, field in model.model_fields.items():
        wire_name = field.alias or name
        if wire_name in arguments and arguments[wire_name] is None:
            raise ArgumentError(_type_sentence(wire_name, json_type(field.annotation)))
    return parsed


def _sentence(model: type[QapiModel], error: ErrorDetails) -> str:
    path = _path(error["loc"])
    match error["type"]:
        case "missing":
            return f"Parameter '{path}' is missing"
        case "extra_forbidden":
            return f"Parameter '{path}' is unexpected"
        case "enum":
            if isinstance(error["input"], str):
                return f"Parameter '{path}' does not accept value '{error['input']}'"
            return _type_sentence(path, "string")
        case "list_type":
            return _type_sentence(path, "array")
        case _:
            field = {found.alias or name: found for name, found in model.model_fields.items()}.get(str(error["loc"][0]))
            annotation = field.annotation if field is not None else None
            for step in error["loc"][1:]:
                annotation = _member(annotation, step)
            return _type_sentence(path, json_type(annotation))


def _type_sentence(path: str, expected: str) -> str:
    return f"Invalid parameter type for '{path}', expected: {expected}"


def _path(location: tuple[int | str, ...]) -> str:
    """``a.b[1]``, as QEMU spells where in the arguments something is."""
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def without_none(annotation: Any) -> Any:
    """``X`` of ``X | None``."""
    if get_origin(annotation) in (Union, UnionType):
        rest = [choice for choice in get_args(annotation) if choice is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return annotation


def bare(annotation: Any) -> Any:
    """``X`` of ``Annotated[X, …] | None``."""
    annotation = without_none(annotation)
    while hasattr(annotation, "__metadata__"):
        annotation = without_none(annotation.__origin__)
    return annotation


def _member(annotation: Any, step: int | str) -> Any:
    annotation = bare(annotation)
    if isinstance(step, int):
        return get_args(annotation)[0]
    return {field.alias or name: field.annotation for name, field in annotation.model_fields.items()}.get(step)


def json_type(annotation: Any) -> str:
    """QEMU's word for what JSON must have there."""
    kind = bare(annotation)
    if get_origin(kind) is list:
        return "array"
    if isinstance(kind, type) and issubclass(kind, QapiModel):
        return "object"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "string"
    return {int: "integer", str: "string", bool: "boolean", float: "number"}.get(kind, "value")
