"""Whether an answer is in a language that was asked for: every language that IFEval asks for, and Chinese.

By the house's own detection where it knows the language, else by script (Hindi is not told from Marathi, nor
Persian from Urdu) or, for Finnish and Swahili, by lingua's best guess among those two and the house's.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Any

from pipeline.stages.language import LATIN, LINGUA_NAMES, SCRIPT_SHARE, clean, detect, is_language

KNOWN = frozenset("en zh fr de es it pt nl ru ja ko ar pl tr vi sv".split())
SCRIPTS = {
    **dict.fromkeys(("hi", "mr", "ne"), "DEVANAGARI"),
    **dict.fromkeys(("fa", "ur"), "ARABIC"),
    **dict.fromkeys(("uk", "bg"), "CYRILLIC"),
    "bn": "BENGALI",
    "th": "THAI",
    "ta": "TAMIL",
    "te": "TELUGU",
    "kn": "KANNADA",
    "ml": "MALAYALAM",
    "gu": "GUJARATI",
    "pa": "GURMUKHI",
    "he": "HEBREW",
}
GUESSED = {"fi": "FINNISH", "sw": "SWAHILI"}
CODES = tuple(sorted(KNOWN | set(SCRIPTS) | set(GUESSED)))


def speaks(text: str, code: str) -> bool:
    """Say whether `text` is in the language `code` (one of CODES); a text without letters is in any."""
    if code in SCRIPTS:
        letters = [character for character in clean(text) if character.isalpha()]
        own = sum(unicodedata.name(letter, "").startswith(SCRIPTS[code]) for letter in letters)
        return own >= SCRIPT_SHARE * len(letters)
    if code in GUESSED:
        found = _detector().detect_language_of(clean(text))
        return found is not None and found.iso_code_639_1.name.lower() == code
    # the house lets doubtful cases pass; Spanish that is asked for is to be more than not impossible
    return is_language(text, code) and (code == "en" or code not in LATIN or detect(text)[0] == code)


@functools.cache
def _detector() -> Any:
    from lingua import Language, LanguageDetectorBuilder

    languages = [getattr(Language, name) for name in (*LINGUA_NAMES, *GUESSED.values())]
    return LanguageDetectorBuilder.from_languages(*languages).with_low_accuracy_mode().build()
