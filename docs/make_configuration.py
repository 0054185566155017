"""Write the tables of configuration.md from the configuration classes themselves.

python docs/make_configuration.py           # rewrite docs/configuration.md
python docs/make_configuration.py --check   # exit with 1 if it is out of date
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from us_i2v.data.phantom.config import PhantomConfig
from us_i2v.pipeline import GenerateOptions
from us_i2v.training.autoencoder import AutoencoderTraining
from us_i2v.training.cinn import CINNTraining
from us_i2v.training.classifier import ClassifierTraining
from us_i2v.training.denoiser import DenoiserTraining
from us_i2v.training.privacy import PrivacyTraining

PAGE = Path(__file__).with_name("configuration.md")
HEAD = Path(__file__).with_name("_configuration_head.md")

Row = tuple[str, str, str, str]

SECTIONS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("Auto-encoder", "`us-i2v train-ae`, table `[autoencoder]`.", AutoencoderTraining),
    ("Denoiser", "`us-i2v train-ldm`, table `[denoiser]`.", DenoiserTraining),
    ("cINN", "`us-i2v train-cinn`, table `[cinn]`.", CINNTraining),
    ("Classifier", "`us-i2v train-classifier`, table `[classifier]`.", ClassifierTraining),
    ("Privacy filter", "`us-i2v privacy fit`.", PrivacyTraining),
    ("Generating", "`us-i2v generate`, `augment` and `transfer`; from Python `GenerateOptions`.", GenerateOptions),
    ("Phantom", "From Python: `us_i2v.data.phantom`.", PhantomConfig),
)


def rows(model: type[BaseModel], prefix: str = "", given: BaseModel | None = None) -> list[Row]:
    """List (key, default, allowed, meaning) of a model's fields, nested models key by key.

    Args:
        model: The configuration class.
        prefix: Key of the model itself, with a final dot.
        given: The instance that holds the defaults, where the owner of the model has its own.
    """
    table: list[Row] = []
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        default = default_of(field) if given is None else getattr(given, name)
        nested = models_in(field.annotation)
        if len(nested) == 1 and not is_optional(field.annotation):
            table += rows(nested[0], f"{key}.", default if isinstance(default, nested[0]) else None)
            continue
        shown = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
        table.append((f"`{key}`", show(shown), allowed(field), field.description or ""))
        for variant in nested:
            kind = variant.model_fields.get("kind")
            label = f"`{key}` of kind `{kind.default}`: " if kind is not None else ""
            for sub, value, limits, meaning in rows(variant, f"{key}."):
                if not sub.endswith(".kind`"):
                    table.append((sub, value, limits, label + meaning))
    return table


def default_of(field: FieldInfo) -> Any:
    """Return a field's default, or PydanticUndefined."""
    return field.get_default(call_default_factory=True, validated_data={})


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the configuration classes that a field can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return [model for part in get_args(annotation) for model in models_in(part)]
    return []


def is_optional(annotation: Any) -> bool:
    """Tell whether None is allowed."""
    return type(None) in get_args(annotation)


def show(value: Any) -> str:
    """Write a value as in TOML or JSON."""
    if value is PydanticUndefined:
        return "(needed)"
    if value is None or value in ((), {}, ""):
        return "empty"
    if isinstance(value, tuple | list):
        return "`[" + ", ".join(show(part).strip("`") for part in value) + "]`"
    if isinstance(value, dict):
        return "`{" + ", ".join(f"{key} = {show(part).strip('`')}" for key, part in value.items()) + "}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def allowed(field: FieldInfo) -> str:
    """Say what a field may hold: its choices, or its type and range."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "multiple of"}
    limits = [
        f"{sign} {getattr(bound, name):g}"
        for bound in field.metadata
        for name, sign in signs.items()
        if getattr(bound, name, None) is not None
    ]
    return ", ".join([kind(field.annotation), *limits])


def kind(annotation: Any) -> str:
    """Name a type for people."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is Annotated:
        return kind(parts[0])
    if origin in (Union, types.UnionType):
        named = [kind(part) for part in parts if part is not type(None)]
        return " or ".join(dict.fromkeys(named)) + (" or empty" if type(None) in parts else "")
    if origin is tuple:
        return "list" if Ellipsis in parts else f"{len(parts)} values"
    names = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`"}
    if annotation in names:
        return names[annotation]
    if models_in(annotation):
        return "table"
    return "table" if origin is dict else str(getattr(annotation, "__name__", annotation))


def page() -> str:
    """Return the whole page."""
    parts = [HEAD.read_text(encoding="utf-8")]
    for title, where, model in SECTIONS:
        lines = [f"## {title}", "", where, "", "| key | default | allowed | meaning |", "|---|---|---|---|"]
        for row in rows(model):
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def main() -> int:
    """Write the page, or compare it."""
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page() else 1
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
