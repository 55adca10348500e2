"""The names and codes of languages, as models and detectors give them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

ANY = "mul"  # ISO 639-2 for "multiple languages": a model that says so knows whatever it is given

# ISO 639-1, ISO 639-3 (of some, the codes of their largest members too), English name
_TABLE = """
af afr Afrikaans
ak aka Akan
am amh Amharic
ar ara,arb Arabic
az aze Azerbaijani
be bel Belarusian
bg bul Bulgarian
bn ben Bengali
ca cat Catalan
cs ces Czech
cy cym Welsh
da dan Danish
de deu German
el ell Greek
en eng English
eo epo Esperanto
es spa Spanish
et est Estonian
eu eus Basque
fa fas,pes Persian
fi fin Finnish
fr fra French
ga gle Irish
gl glg Galician
gu guj Gujarati
he heb Hebrew
hi hin Hindi
hr hrv Croatian
hu hun Hungarian
hy hye Armenian
id ind Indonesian
is isl Icelandic
it ita Italian
ja jpn Japanese
jv jav Javanese
ka kat Georgian
km khm Khmer
kn kan Kannada
ko kor Korean
la lat Latin
lt lit Lithuanian
lv lav,lvs Latvian
mk mkd Macedonian
ml mal Malayalam
mr mar Marathi
ms msa,zsm Malay
my mya Burmese
ne nep,npi Nepali
nl nld Dutch
no nor,nob,nno Norwegian
or ori,ory Oriya
pa pan Punjabi
pl pol Polish
pt por Portuguese
ro ron Romanian
ru rus Russian
si sin Sinhala
sk slk Slovak
sl slv Slovene
sn sna Shona
sq sqi,als Albanian
sr srp Serbian
sv swe Swedish
sw swa,swh Swahili
ta tam Tamil
te tel Telugu
th tha Thai
tk tuk Turkmen
tl tgl Tagalog
tr tur Turkish
uk ukr Ukrainian
ur urd Urdu
uz uzb,uzn Uzbek
vi vie Vietnamese
yi yid Yiddish
zh zho,cmn Chinese
zu zul Zulu
"""
_ROWS = tuple(line.split() for line in _TABLE.split("\n") if line)
NAMES: Mapping[str, str] = MappingProxyType({short: name for short, _, name in _ROWS})
_SHORT = {long: short for short, longs, _ in _ROWS for long in longs.split(",")} | {"nb": "no", "nn": "no"}
_MANY = frozenset(("mul", "multi", "multilingual"))


def short(code: str) -> str | None:
    """ISO 639-1 of a code of two or three letters, region and script left out ("pt-BR"); `ANY`; None: not known."""
    bare = code.strip().lower().replace("_", "-").partition("-")[0]
    if bare in _MANY:
        return ANY
    found = _SHORT.get(bare, bare)
    return found if found in NAMES else None


def codes(said: object) -> tuple[str, ...]:
    """What a model says of its languages, in any of the forms in which models do; each once, unknown words left out."""
    values: Iterable[object] = said if isinstance(said, Sequence) and not isinstance(said, str) else (said,)
    # YAML reads Norwegian's code as a boolean
    words = ("no" if value is False else value for value in values)
    found = (short(word) for word in words if isinstance(word, str))
    return tuple(dict.fromkeys(code for code in found if code is not None))


def named(code: str) -> str:
    """For people: "Portuguese (pt)"."""
    return f"{NAMES[code]} ({code})" if code in NAMES else code
