"""Check the language of docstrings and of field descriptions: ``python -m tools.language`` prints what to mend.

The rule (CONTRIBUTING.md): a first sentence says what a thing is, in the field's word, or what it does, with a verb;
numeric fields say their unit. A program cannot tell good prose, but it can tell openings that are never good.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).parent.parent
PACKAGES = ("operators", "recon", "workers", "api", "tools")
RIDDLES = re.compile(r"(Of|What|How|Why|When|Where|Until|Whoever|Nobody|Somebody|Everybody|So|As|By|Up|For|If|In)\b")
"""Openings that leave the subject to the reader."""
ACTORS = re.compile(r"\b(whoever|nobody|somebody|everybody)\b", re.IGNORECASE)
"""Words for an actor that has a name: the user, the worker, the caller."""
VERBS = re.compile(
    r"""(
    add | allow | announce | answer | append | apply | arrange | ask | average | back-project | begin | build | call |
    cancel | change | check | choose | clear | close | collect | combine | compare | compile | complete | compute |
    connect | continue | convert | copy | correct | count | create | cut | delete | deliver | describe | discard |
    divide | download | draw | drive | drop | empty | end | enqueue | ensure | enter | estimate | evaluate | expire |
    explain | fail | fetch | fill | find | finish | fit | forecast | forget | fork | free | give | go | hand |
    handle | help | hold | inflate | install | interpolate | interrupt | invite | iterate | join | judge | keep |
    leave | let | lift | limit | list | load | lock | log | look | lower | make | mark | measure | mend | merge |
    mirror | move | note | open | parse | pass | permit | place | poll | prepare | print | probe | project | prolong |
    publish | put | raise | read | receive | reconstruct | record | refuse | register | release | remove | rename
    | renew | replace | report | requeue | reserve | reset | restore | restrict | return | run | save | say |
    search | see | send | serve | set | show | shrink | sign | simulate | solve | sort | start | stop | store |
    stream | submit | summarise | sweep | sync | take | tell | touch | trace | train | try | turn | unlock | update |
    upload | validate | verify | wait | warn | watch | weigh | write | yield
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""Verbs with which the docstring of a function that returns nothing may begin: it does something."""

UNITS = re.compile(
    r"_(mm|rad|s|bytes|kv|kev|db|hours|pixels|column|per_mm|std|days)$|^(seed|rows|cols|steps|iterations|version)$"
)
"""Names of numeric fields that say their unit, or that count."""
DIMENSIONS = re.compile(
    r"\b(mm|keV|kV|radians?|degrees?|seconds?|days|bytes|dB|photons|pixels?|cycles|points|columns?|voxels|HU|percentiles?"
    r"|numbers?|count|seed|ind(ex|ices)|fractions?|shares?|ratio|relative|factor|weights?"
    r"|scale|level|unit|penalty|order|degree|coefficients|similarity|version|over (its|the|that)"
    r"|of the network|iterations|times|parts?|half|sets|intensity)\b",
    re.IGNORECASE,
)
"""Words that say what a number counts, or in which unit it is."""


def faults() -> list[str]:
    """List every fault, as ``file:line: what is wrong``."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [fault for path in files for fault in _texts(path)] + list(_fields())


def _texts(path: Path) -> Iterator[str]:
    """Find faults of the docstrings in a file."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        for line, text, does in _docstrings(node):
            where = f"{path.relative_to(ROOT)}:{line}"
            first = text.strip().split("\n\n")[0]
            if RIDDLES.match(first):
                yield f"{where}: {first.split()[0]!r} leaves out the subject: begin with what it is, or with a verb"
            if ACTORS.search(text):
                yield f"{where}: say who: the user, the caller, a worker"
            if does and not VERBS.match(first):
                yield f"{where}: {first.split()[0]!r} is no verb; a function that returns nothing does something"


def _docstrings(node: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Yield line, text, and whether a verb has to come first, of a node's docstring and of those below its fields."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text:
            does = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _returns_nothing(node)
            yield getattr(node, "lineno", 1), text, does
        for before, after in zip(node.body, node.body[1:], strict=False):
            if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
                value = after.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield after.lineno, value.value, False


def _returns_nothing(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return isinstance(node.returns, ast.Constant) and node.returns.value is None


def _fields() -> Iterator[str]:
    """Find numeric fields of the specification and the report whose unit neither name nor text says."""
    import recon.spec

    for module in walk_packages(recon.spec.__path__, "recon.spec."):
        for model in vars(import_module(module.name)).values():
            if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == module.name:
                for name, field in model.model_fields.items():
                    where = f"{model.__module__}.{model.__name__}.{name}"
                    if name in model.__annotations__ and model.model_config.get("use_attribute_docstrings"):
                        if not field.description and field.default_factory is None and name not in ("kind", "name"):
                            yield f"{where}: has no text"
                        elif _numeric(field.annotation) and not _says_its_unit(name, field):
                            yield f"{where}: say its unit, or what it counts: {field.description}"


def _numeric(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return any(_numeric(one) for one in get_args(annotation))
    return annotation in (int, float)


def _says_its_unit(name: str, field: FieldInfo) -> bool:
    return bool(UNITS.search(name) or DIMENSIONS.search(field.description or ""))


if __name__ == "__main__":
    found = faults()
    sys.exit("\n".join(found) if found else 0)
