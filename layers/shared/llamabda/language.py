"""Which of the languages of our replies a question is asked in, and the words that carry no content. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, TypeAlias

Language: TypeAlias = Literal["en", "pt"]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_ENGLISH = _set(
    "a about after all also although an and any are as at be because been before being but by can could did do "
    "does during each for from had has have he her hers him his how however i if in into is it its just may might "
    "more most much must my no nor not of on only or other our over shall she should so some such than that the "
    "their them then there therefore these they this those through thus to too under until up upon us very was we "
    "were what when where whether which while who whom whose why will with within without would you your yes"
)
_PORTUGUESE = _set(
    "a à ao aos aquela aquele aqueles aquilo as às até cada com como da das de dela dele deles depois do dos "
    "durante e é ela elas ele eles em entre era eram essa essas esse esses esta está estão estas este estes eu "
    "foi foram há isso isto já lhe mais mas me mesmo meu minha muito na não nas nem no nos nós nossa nosso num "
    "numa o onde os ou para pela pelas pelo pelos pode podem pois por porque porém portanto qual quais quando "
    "quanto quantos quanta quantas que quê quem se seja sem ser será seu seus sim só sob sobre sua suas são "
    "também te tem têm ter toda todas todo todos tua tudo um uma umas uns você vocês fica faz"
)
_WORD = re.compile(r"[^\W\d_]+")


def language(text: str) -> Language:
    """The language that more of the text's function words belong to; English when neither leads."""
    words = [word.lower() for word in _WORD.findall(unicodedata.normalize("NFC", text))]
    portuguese = sum(word in _PORTUGUESE for word in words) + sum(
        any(c in "ãõçêâáéíóú" for c in word) for word in words
    )
    return "pt" if portuguese > sum(word in _ENGLISH for word in words) else "en"


def is_function_word(word: str) -> bool:
    """Whether a word, in any case, says nothing by itself in English or Portuguese."""
    lowered = word.lower()
    return lowered in _ENGLISH or lowered in _PORTUGUESE
