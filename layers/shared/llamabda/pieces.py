"""From the bytes of a text that is being written to pieces that can be shown. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextAssembler:
    """Joins the bytes of tokens into text, never splitting a character, and ends it before the first stop string."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(text for text in stop if text)
        # broken sequences become U+FFFD: the text is always valid
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # could still be the beginning of a stop string
        self._begun = False
        self.stopped = False

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """The text that is certain by now. After `stopped` is set nothing comes any more."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(data, final)
        if not self._begun:  # models often open with white space, which is nobody's text
            self._held = self._held.lstrip()
            self._begun = bool(self._held)
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            return self._release(min(found), drop=True)
        return self._release(len(self._held) - (0 if final else self._undecided()))

    def _undecided(self) -> int:
        """How many characters at the end could be the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0

    def _release(self, upto: int, *, drop: bool = False) -> str:
        text = self._held[:upto]
        self._held = "" if drop else self._held[upto:]
        return text
