"""Analyses a question without a model: its subject, what it mentions, and the names in it.

English only, and independent of tools and schemas.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

Span = tuple[int, int]  # start and end in the text


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words without a subject: they neither indicate a tool nor distinguish two tools.
_EMPTY = _set(
    """a about again all also am an and any anyone anything are as at be been being both but by can could did do does
    each else even every everything find for from get give given gives got had has have having he her here hers
    him his how i if in into is it its just kindly know least let like list look lookup many may me might more most much
    must my need no not now of off on one only or other our out please query really return returns search see
    she should show so some something still such tell than that the their them then there these they this those
    to too up us use used using very want was we were what when where whether which while who whom whose why
    will with without would yes you your"""
)
_SMALL_TALK = _set(
    """able afternoon assistant awesome bot brilliant bye capable cheers cool day doing evening excellent fine good
    goodbye great hello help hey hi how's lovely morning name nice ok okay perfect sorry sure thank thanks well
    welcome what's who's wonderful work works yo yourself"""
)
# Never part of a name: times, measures, and the words around them.
_NO_NAME = _set(
    """last next past previous prior current recent latest first top day days week weeks month months quarter year
    years today yesterday tomorrow monday tuesday wednesday thursday friday saturday sunday january february
    march april june july august september october november december gbp usd eur value size price date total
    type over under above below between least most"""
)
_SYNONYMS = {"previous": "last", "past": "last", "prior": "last", "current": "this", "best": "top", "biggest": "top"}
_IRREGULAR = {
    "bought": "buy", "sold": "sell", "sales": "sell", "sale": "sell", "spent": "spend", "paid": "pay", "sent": "send",
    "made": "make", "left": "leave", "held": "hold", "kept": "keep", "written": "write", "wrote": "write", "went": "go",
    "came": "come", "began": "begin", "people": "person", "men": "man", "women": "woman", "children": "child",
}  # fmt: skip
_NEGATIONS = _set("not no never without except excluding exclude non")
_NAME_CUES = _set("for from by to in at about named called has have did does")
_ASKING = _set("what what's who")
_YOU = _set("you your yourself")
_FIRST_PERSON = _set("i i'm i'd i've i'll")

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W\d_]+)*")
_QUOTED = re.compile(r"[\"\u201c]([^\"\u201d]+)[\"\u201d]|(?<!\w)'([^']+)'(?!\w)")
_FOLLOW_UP = re.compile(
    r"\s*(?:ok(?:ay)?,?\s+)?(?:and|or|but|what about|how about|only|just|now|same|then)\b", re.IGNORECASE
)
_SUFFIXES = ("ations", "ation", "ments", "ment", "ings", "ing", "ies", "ed", "es", "s", "e", "y")


@dataclass(frozen=True, slots=True)
class Mention:
    """Words of the question that name something."""

    span: Span
    negated: bool = False


class Question:
    """One message, split into words once."""

    def __init__(self, text: str) -> None:
        self.text = text
        matches = list(_WORD.finditer(text))
        self.spans: list[Span] = [match.span() for match in matches]
        self.words = [_plain(match[0]) for match in matches]
        self.stems = [stem(word) for word in self.words]

    def subject(self) -> set[str]:
        """The stems of the words that name its subject."""
        return {stem(word) for word in self.words if word not in _EMPTY and word not in _SMALL_TALK}

    def is_small_talk(self) -> bool:
        """Whether it only greets, thanks, or asks the assistant about itself."""
        return not self.subject() or (self.words[0] in {"thank", "thanks", "cheers"} and "?" not in self.text)

    def is_about_assistant(self) -> bool:
        """Whether it asks the assistant about itself: "what can you do?", "who are you?", "help"."""
        words = set(self.words)
        return not self.subject() and (words == {"help"} or bool(words & _ASKING and words & _YOU))

    def is_follow_up(self) -> bool:
        """Whether it continues the question before it: "and this month?", "only the refunded ones"."""
        return bool(_FOLLOW_UP.match(self.text))

    def find(self, phrase: str) -> Mention | None:
        """Where the phrase (`last_month`, `In transit`) is mentioned, in any inflection."""
        wanted = stems(phrase)
        for first in range(len(self.stems) - len(wanted) + 1) if wanted else ():
            last = first + len(wanted) - 1
            if all(alike(a, b) for a, b in zip(wanted, self.stems[first : last + 1], strict=True)):
                return Mention((self.spans[first][0], self.spans[last][1]), self._is_negated(first))
        return None

    def names(self, known: Collection[str], taken: Iterable[Span]) -> list[str]:
        """Possible names: quoted, capitalised, or unknown words after for, from, in.

        Args:
            known: stems that belong to the subject, and so to no name.
            taken: parts of the text that are used otherwise.
        """
        if quoted := [match[1] or match[2] for match in _QUOTED.finditer(self.text)]:
            return quoted
        used = list(taken)
        free = [
            word not in _NO_NAME
            and not any(alike(stem_, other) for other in known)
            and word[0].isalpha()
            and not any(start < span[1] and span[0] < end for start, end in used)
            for word, stem_, span in zip(self.words, self.stems, self.spans, strict=True)
        ]
        if capitalised := self._runs([ok and self._is_capitalised(i) for i, ok in enumerate(free)]):
            return [self._quote(*run) for run in capitalised]
        plain = self._runs([ok and not _is_verb_like(word) for ok, word in zip(free, self.words, strict=True)])
        return [self._quote(*run) for run in plain if run[0] and self.words[run[0] - 1] in _NAME_CUES]

    def _quote(self, first: int, last: int) -> str:
        """These words as they were written, without a possessive."""
        return re.sub(r"['\u2019]s$", "", self.text[self.spans[first][0] : self.spans[last][1]])

    def _is_negated(self, first: int) -> bool:
        return any(word in _NEGATIONS or word.endswith("n't") for word in self.words[max(0, first - 3) : first])

    def _is_capitalised(self, index: int) -> bool:
        if not self.text[self.spans[index][0]].isupper() or self.words[index] in _FIRST_PERSON:
            return False
        return not _is_common(self.words[index])

    def _runs(self, selected: Iterable[bool]) -> list[tuple[int, int]]:
        """Runs of selected words; `&`, a hyphen or an initial's dot between two does not separate them."""
        runs: list[tuple[int, int]] = []
        for i, ok in enumerate(selected):
            if not ok:
                continue
            if runs and runs[-1][1] == i - 1 and re.fullmatch(r"[\s&.\-]*", self._gap(i - 1, i)):
                runs[-1] = (runs[-1][0], i)
            else:
                runs.append((i, i))
        return runs

    def _gap(self, left: int, right: int) -> str:
        return self.text[self.spans[left][1] : self.spans[right][0]]


def words_of(text: str) -> list[str]:
    """The words of a text or an identifier, in lower case: `lastMonth`, `last_month` and `Last month` are one."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).replace("_", " ")
    return [_plain(match[0]) for match in _WORD.finditer(spaced)]


def stems(text: str) -> list[str]:
    """The stems of the words of a text or an identifier, in order."""
    return [stem(word) for word in words_of(text)]


def subject_stems(text: str) -> set[str]:
    """As `stems`, without the words that have no subject."""
    return {stem(word) for word in words_of(text) if word not in _EMPTY}


def stem(word: str) -> str:
    """The common part of a word's inflections: refunds, refunded and refunding are `refund`."""
    word = _SYNONYMS.get(word) or _IRREGULAR.get(word, word)
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word.removesuffix(suffix)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def alike(one: str, other: str) -> bool:
    """Whether two stems are of one word: equal, or a long one and the start of the other (north, northern)."""
    short, long = sorted((one, other), key=len)
    return short == long or (len(short) >= 5 and len(long) - len(short) <= 3 and long.startswith(short))


def _is_verb_like(word: str) -> bool:
    return word in _EMPTY or (len(word) > 4 and word.endswith(("ed", "ing")))


def _is_common(word: str) -> bool:
    return word in _EMPTY or word in _SMALL_TALK


def _plain(raw: str) -> str:
    """In lower case, without a possessive."""
    return re.sub(r"(?<=\w\w\w)'s$", "", raw.lower().replace("\u2019", "'"))
