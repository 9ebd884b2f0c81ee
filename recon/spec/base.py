"""Strict base model of every part of a specification, card and recipe."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """Immutable model that refuses unknown fields and names the new one if a field was renamed."""

    # Texts under fields are their descriptions in the OpenAPI document.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    RENAMED: ClassVar[dict[str, str]] = {}
    """New names of fields by their old ones; those of base classes count too."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for old, new in cls.renamed().items():
                if old in value:
                    raise PydanticCustomError(
                        "renamed", "{field} is now called {new}", {"field": old, "new": new, "value": value[old]}
                    )
        return value

    @classmethod
    def renamed(cls) -> dict[str, str]:
        """New names of fields by their old ones, those of base classes included."""
        found: dict[str, str] = {}
        for base in reversed(cls.__mro__):
            found |= vars(base).get("RENAMED", {})
        return {old: new for old, new in found.items() if old not in cls.model_fields}
