"""The article of an English noun, for class prompts. Plain data, no torch."""

import re
import unicodedata

_CONSONANT_U = (  # a unicorn, a used car, a ukulele, a European robin, a one-eyed cat
    "uni(?![dmn])|u(?:k|v|sb|fo|rl)?\\b|us[aeiu]|ut[aeio]|ur[aeiou]|uv[aeiu]|ukul|ubiq|eu|ewe|ones?\\b|onesie|once\\b|ouija"
)
_VOWEL_SOUND = re.compile(  # an hourglass, an 8-bit hero, an 18th-century house, an Xbox, an owl
    rf"hour|honest|honou?r|heir|8|(?:11|18(?:\d\d)?)(?!\d)|xbox|(?:hdmi|led|mri|suv)\b|(?!{_CONSONANT_U})[aeiou]",
    re.IGNORECASE,
)
_NO_VOWEL = re.compile(r"[b-df-hj-np-tv-xz]{1,5}(?:\d+\w*)?\b", re.IGNORECASE)
"""What is read letter by letter, as no word is written so: tv, mp3, rc, t-shirt."""
_ABBREVIATION = re.compile(r"[A-Z][A-Z0-9]{0,4}\b")
_READ_AS_WORD = re.compile(
    r"(?!(?:FAQ|HEV|HIV|LED|NES|RAF|ROV|SOS|SUV)\b)(?:[FHLMNRS]|[FS]L|FR|S[CKMNPTW])[AEIOUY]+[B-DF-HJ-NP-TV-XZ]|ONE\b"
)
"""Of abbreviations, and of words in capitals: a LEGO brick, a NASA shirt, a HAT. The named ones are spelled out all the same."""
_VOWEL_LETTER = re.compile(r"[AEFHILMNORSX]", re.IGNORECASE)
"""What an abbreviation that is spelled out begins with: an SUV, an HDMI cable, and a UFO."""
DETERMINERS = {
    *("a", "an", "the", "my", "your", "his", "her", "its", "our", "their", "this", "that", "these", "those", "some", "any"),
    *("another", "every", "each", "no", "both", "all", "many", "several", "two", "three", "four", "five", "six", "seven"),
    *("eight", "nine", "ten", "mr", "mrs", "ms"),
}
_OWNER = re.compile(r"[A-ZА-Я]\S*(?:['’]s|s['’])$")
"""A name that stands for an article: John's dog; but a baker's hat, a children's book."""
_HEAD = re.compile(r"\s+(?:of|with|without|in|on|at|from|for|by)\s")
"""Ends the words that say what a thing is: a pair of shoes, a man in jeans, toys in a box."""
_PLURALS = re.compile(
    r"people|mice|geese|feet|teeth|cattle|police|(?!(?:speci|regi|abdo|acu|cycla|sta|ra|o|se)men$).*men|.*children|"
    r"(?:menu|guru|emu|gnu|tutu)s|.*(?:[gkw]|in|et|tax)is"
)
_SINGULAR_S = re.compile(
    r".*(?:ss|us|is)|(?:gas|canvas|atlas|bias|christmas|alias|lens|series|species|rhinoceros|thermos|biceps|mercedes)"
)
_MASS = (
    *("furniture", "jewelry", "jewellery", "clothing", "food", "water", "hair", "scenery", "graffiti", "art", "footwear"),
    *("pottery", "luggage", "equipment", "machinery", "glassware", "embroidery", "armor", "armour", "architecture", "bread"),
)


def with_article(class_word: str) -> str:
    """Return "a <class>" or "an <class>" by its sound, and the class alone where English has no article: "toys", "my dog"."""
    words = class_word.split()
    determined = words and (words[0].lower().rstrip(".") in DETERMINERS or words[0] == "one" or _OWNER.match(words[0]))
    head = _HEAD.split(class_word, maxsplit=1)[0].split()
    if not words or determined or _is_plural(head[-1]) or head[-1].lower() in _MASS:
        return class_word
    first = unicodedata.normalize("NFD", words[0])  # an étagère
    spelled = _NO_VOWEL.match(first) or (_ABBREVIATION.match(first) and not _READ_AS_WORD.match(first))
    vowel = (_VOWEL_LETTER if spelled else _VOWEL_SOUND).match(first)
    return f"{'an' if vowel else 'a'} {class_word}"


def _is_plural(word: str) -> bool:
    """Return whether a noun is a plural: one in s, but for the endings of a bus, a glass and an iris, or an irregular one."""
    lower = word.lower().strip(".,;:!?")
    in_s = lower.endswith("s") and (len(lower) > 3 or (word.endswith("s") and word[:-1].isupper()))
    return bool(_PLURALS.fullmatch(lower) or (in_s and not _SINGULAR_S.fullmatch(lower)))
