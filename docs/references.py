"""For mkdocstrings: [`name`] in a docstring, as Hugging Face writes references, links to the entry of that object."""

import re
from typing import Any

from griffe import Extension, NameResolutionError, Object

REFERENCE = re.compile(r"\[`(\w+)`\](?:\(\w+\.py\))?")


class References(Extension):
    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = REFERENCE.sub(lambda found: link(obj, found[1]), obj.docstring.value)


def link(obj: Object, name: str) -> str:
    """A link where the object's module knows the name and the API page has it; the name as code elsewhere."""
    try:
        identifier = obj.resolve(name)
    except NameResolutionError:
        return f"`{name}`"
    return f'<autoref identifier="{identifier}" optional><code>{name}</code></autoref>'
