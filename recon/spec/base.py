"""Strict base model of every part of a specification, card and recipe."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from recon.spec.old_names import still_accepted


class Strict(BaseModel):
    """Immutable model that refuses unknown fields; the old name of a field is accepted or refused with the new one."""

    # Texts under fields are their descriptions in the OpenAPI document.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    RENAMED: ClassVar[dict[str, str]] = {}
    """New names of fields by their old ones, plain or `Renamed`; those of base classes count too."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, value: Any, info: ValidationInfo) -> Any:
        return cls.in_new_names(value, info.context) if isinstance(value, dict) else value

    @classmethod
    def in_new_names(cls, value: dict[str, Any], notes: list[str] | None) -> dict[str, Any]:
        """Rename fields whose old names are still accepted, with a warning or a sentence in `notes`.

        Raises
        ------
        pydantic_core.PydanticCustomError
            If an old name is refused, or the new one is given beside it.
        """
        for old, new in cls.renamed().items():
            if old in value:
                if new in value or not still_accepted(old, new, notes):
                    raise PydanticCustomError(
                        "renamed", "{field} is now called {new}", {"field": old, "new": new, "value": value[old]}
                    )
                value = {new if field == old else field: given for field, given in value.items()}
        return value

    @classmethod
    def renamed(cls) -> dict[str, str]:
        """New names of fields by their old ones, those of base classes included."""
        found: dict[str, str] = {}
        for base in reversed(cls.__mro__):
            found |= vars(base).get("RENAMED", {})
        return {old: new for old, new in found.items() if old not in cls.model_fields}
