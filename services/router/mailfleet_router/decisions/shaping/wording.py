"""Keys of scopes, in words."""

from __future__ import annotations

WORDS = {
    "source_site": "source {} at site {}", "tenant_site": "tenant {} at site {}", "site": "site {}",
    "source": "source {} everywhere", "domain": "domain {}",
}  # fmt: skip
"""By what the key begins with."""


def scope_text(key: str) -> str:
    """`source_site|ip-1|yahoo` → `source ip-1 at site yahoo`; a key of another kind as it is."""
    kind, *names = key.split("|")
    names = [name.replace("%7C", "|").replace("%25", "%") for name in names]
    words = WORDS.get(kind)
    return words.format(*names) if words and words.count("{}") == len(names) else key
