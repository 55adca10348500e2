"""Which of the languages of our replies a question is asked in, and the words that carry no content. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, TypeAlias

Language: TypeAlias = Literal["en", "pt"]

FIRST = 2  # words that an English question word at the beginning weighs more: a question may be about foreign terms


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
# What follows only helps to tell the languages apart; these words carry content, or are written without their accents.
_ENGLISH_TOO = _set("describe explain give list many show tell")
_PORTUGUESE_TOO = _set(
    "abre abrem aceita aceitam aonde ate cartao cobra cobre comprar consigo conte cujo descreva devo diga domingo "
    "empresa existe existem explica explique faco fazer ferias funciona funcionam garantia hoje horario liste loja "
    "mostre nao oque paga pagam posso prazo preciso preco quero resuma sao serve tambem tenho vale valor voce voces "
    "vou"
)
_SPANISH = _set(
    "a al algún aquel aquella como con cual cuales cuando cuanto cuantos cuál cuáles cuándo cuánta cuántas cuánto "
    "cuántos cómo de del desde donde dónde e el ella ellos en entre era eran es esa ese eso esta este esto está están "
    "fue fueron ha había hace han hasta hay horario la las le les lo los me mi muy más ni no nos o otra otro para "
    "pero por porque puede pueden que quien quién quiénes qué se según ser si sin sobre son su sus sí también te "
    "tiene tienen todo tu un una unas uno unos y ya él"
)
_PORTUGUESE_WORD = re.compile(r"[ãõçêâáéíóú]|(?:dade|dades|cao|coes|mente)$")
_SPANISH_WORD = re.compile(r"[ñáéíóú]|(?:ción|ciones|dad|dades|mente)$")
_WORD = re.compile(r"[^\W\d_]+")


def language(text: str) -> Language:
    """The language that most of the text's small words belong to; the first word counts most, since it asks.

    English when none leads, and for what is evidently Spanish: of the languages that have no replies of their own, that
    is the one which could be taken for Portuguese.
    """
    composed = unicodedata.normalize("NFC", text)
    words = [word.lower() for word in _WORD.findall(composed)]
    english = sum(word in _ENGLISH or word in _ENGLISH_TOO for word in words)
    portuguese = sum(word in _PORTUGUESE or word in _PORTUGUESE_TOO for word in words)
    portuguese += sum(bool(_PORTUGUESE_WORD.search(word)) for word in words)
    spanish = sum(word in _SPANISH for word in words) + sum(bool(_SPANISH_WORD.search(word)) for word in words)
    spanish += 2 * sum(char in "¿¡" for char in composed)
    if words and words[0] in _ENGLISH | _ENGLISH_TOO and words[0] not in _PORTUGUESE:
        english += FIRST
    if portuguese == english and words and words[0] not in _ENGLISH and "do" in words:
        portuguese += 1  # "valor do aluguel": English asks with it, or has other small words beside it
    return "pt" if portuguese > english and portuguese >= spanish else "en"


def is_function_word(word: str) -> bool:
    """Whether a word, in any case, says nothing by itself in English or Portuguese."""
    lowered = word.lower()
    return lowered in _ENGLISH or lowered in _PORTUGUESE
