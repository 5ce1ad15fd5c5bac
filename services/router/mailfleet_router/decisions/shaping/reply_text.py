"""The text of a reply: without what differs from mail to mail, and the wait that it asks for."""

from __future__ import annotations

import re
from functools import lru_cache

MIN_WAIT_SECONDS, MAX_WAIT_SECONDS = 60.0, 14_400.0
"""Bounds of a wait that a site may ask for. RFC 6647 (greylisting) 5: sites should let a retry in after one minute to
24 hours; four hours is the longest that we wait for anything on a site's word."""

_IP = re.compile(
    r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\w)|(?<![\w:])(?=[0-9a-f]*:[0-9a-f]*:)[0-9a-f:]{3,39}(?![\w:])"
)
_ADDRESS = re.compile(r"<?[^\s<>()\[\],;:]*@[^\s<>()\[\],;:]*>?")
_URL = re.compile(r"https?://([^\s?#]+)[^\s]*")
_TOPIC = re.compile(r"[?&]([pc]=[a-z0-9]{1,32})(?=[&)\]>,;.]|\Z)")
_ID = re.compile(r"(?<![a-z0-9])(?=[a-z]*[0-9])[a-z0-9]{10,}(?![a-z0-9])")
_NUMBER = re.compile(r"(?<![\w.-])\d{2,}(?![\w]|\.\d)")


@lru_cache(maxsize=8192)
def normal_text(text: str) -> str:
    """One line in lower case in which addresses are `@`, IP addresses `ip`, numbers and ids `#`.

    Two replies that say the same to different mail are equal afterwards, and nothing that a recipient's address
    contains can be taken for the site's words. Of a URL the host and path stay, and a short topic (`?p=Topic`).
    """
    return " ".join([word if word.isalpha() else _word(word) for word in text.lower().split()])


@lru_cache(maxsize=8192)
def _word(word: str) -> str:
    if "://" in word:
        word = _URL.sub(_place, word)
    if "@" in word:
        word = _ADDRESS.sub("@", word)
    if ":" in word or word.count(".") > 2:
        word = _IP.sub("ip", word)
    return _NUMBER.sub("#", _ID.sub("#", word))


def _place(found: re.Match[str]) -> str:
    topic = _TOPIC.search(found[0])
    return f"{found[1]}?{topic[1]}" if topic else found[1]


_CLOCK = re.compile(r"\b(\d{1,2}):(\d\d):(\d\d)\b")
_AMOUNT = re.compile(r"\b(\d{1,6}) ?(seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h)\b")
_ABOUT = re.compile(
    r"(?:(?:try|come|retry|resend|send|again|wait|back|later|delayed|deferred|greylisted|grey-?listing)\b[^.;0-9]{0,40}"
    r"(?:in|for|after|at least|within)?)\s*\Z"
)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def asked_wait(text: str) -> float | None:
    """Seconds that the site asks us to wait, within the bounds above; None: it names no time.

    Understood are `00:05:00`, `300 seconds`, `5 minutes`, `2 hours` after words such as "try again in", "come back in",
    "greylisted for" (the texts of postgrey, milter-greylist and their kin).
    """
    text = text.lower()[:1000]
    for found in _CLOCK.finditer(text):
        if _ABOUT.search(text, max(0, found.start() - 80), found.start()):
            hours, minutes, seconds = (int(part) for part in found.groups())
            return _bounded(hours * 3600.0 + minutes * 60.0 + seconds)
    for found in _AMOUNT.finditer(text):
        if _ABOUT.search(text, max(0, found.start() - 80), found.start()):
            return _bounded(int(found[1]) * _UNITS[found[2][0]])
    return None


def _bounded(seconds: float) -> float:
    return min(max(seconds, MIN_WAIT_SECONDS), MAX_WAIT_SECONDS)
