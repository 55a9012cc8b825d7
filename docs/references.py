"""
For mkdocstrings, of docstrings as Hugging Face writes them: [`name`] links to the entry of that object, and
(`int`, defaults to 3) after a parameter's name is its type and its default.
"""

import re
from typing import Any

from griffe import DocstringSectionKind, Extension, NameResolutionError, Object

REFERENCE = re.compile(r"\[`(\w+)`\](?:\(\w+\.py\))?")

TYPE_AND_DEFAULT = re.compile(
    r"(?P<type>`.+?`(?: or `.+?`)*)(?P<optional>, \*optional\*)?(?:, defaults to `?(?P<default>.+?)`?)?"
)


class References(Extension):
    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = REFERENCE.sub(lambda found: link(obj, found[1]), obj.docstring.value)
            if " (`" in obj.docstring.value:
                read_types(obj)


def read_types(obj: Object) -> None:
    for section in obj.docstring.parsed:
        for parameter in section.value if section.kind is DocstringSectionKind.parameters else ():
            found = TYPE_AND_DEFAULT.fullmatch(str(parameter.annotation))
            if found:
                parameter.annotation = found["type"].replace("`", "").replace(" or ", " | ")
                parameter.value = found["default"] or ("None" if found["optional"] else None)


def link(obj: Object, name: str) -> str:
    """A link where the object's module knows the name and the API page has it; the name as code elsewhere."""
    try:
        identifier = obj.resolve(name)
    except NameResolutionError:
        return f"`{name}`"
    return f'<autoref identifier="{identifier}" optional><code>{name}</code></autoref>'
