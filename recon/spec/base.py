"""Strict base model of every part of a specification, card and recipe."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """Immutable model that refuses unknown fields, and says the new name of a renamed one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    RENAMED: ClassVar[dict[str, str]] = {}
    """New names of fields by their old ones; those of base classes count too."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for base in cls.__mro__:
                for old, new in vars(base).get("RENAMED", {}).items():
                    if old in value and old not in cls.model_fields:
                        raise PydanticCustomError(
                            "renamed", "{field} is now called {new}", {"field": old, "new": new, "value": value[old]}
                        )
        return value
