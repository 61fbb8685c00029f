"""Captions that carry the token: the instance prompt of each photo. Plain data, no torch."""

import re
import unicodedata

from ..run.messages import UserError
from .text_file import clean

DEFAULT_TEMPLATE = "a photo of {token} {class}"


_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
"""Letters of scripts that are written without blanks, or set particles to a word: Thai to Khmer, Chinese, Japanese, Korean."""
_MARKS = "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
"""Accents, and the vowels of Hebrew, Arabic and India's scripts, which Python does not take for letters."""
_BEFORE, _AFTER = rf"(?<![^\W_{_UNSPACED}])(?<![{_MARKS}])", rf"(?![^\W_{_UNSPACED}]|[{_MARKS}])"
"""Where a word begins and ends: at anything but a letter or digit of its own kind, so at an underscore, too."""
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
_DETERMINERS = {
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


_BLANK_LETTERS = "\u115f\u1160\u3164\uffa0\u2800"
"""Hangul's fillers and Braille without a dot."""


def _word(text: str) -> re.Pattern:
    return re.compile(_BEFORE + re.escape(text) + _AFTER, re.IGNORECASE)


def has_word(caption: str, word: str) -> bool:
    """Return whether `word` (may be several words) stands in the caption as a whole, in upper or lower case."""
    return bool(_word(word).search(caption))


def split_at_word(caption: str, word: str) -> list[str]:
    """Return the texts around each place where `word` stands as a whole: one text when it does not."""
    return _word(word).split(caption)


def fill_template(template: str, token: str, class_word: str) -> str:
    """Return the template with `{token}` and `{class}` filled in. Raises UserError when it has no `{token}`."""
    if "{token}" not in template:
        raise UserError(
            "The caption template {template!r} has no {{token}}. Write for example {example!r}.",
            template=template,
            example=DEFAULT_TEMPLATE,
        )
    return clean(template.replace("{token}", token).replace("{class}", class_word))


def caption_with_token(caption: str, token: str, class_word: str, template: str = DEFAULT_TEMPLATE) -> str:
    """Return the caption as training shall see it.

    It is left alone where it has the token, but for blanks that set the token apart from the letters of scripts without blanks:
    CLIP would read them as one word. Where it names the class, the class (and its article) becomes token + class:
    "a photo of a plush toy on a post" -> "a photo of mysks plush toy on a post". Where it has neither, token + class
    lead it. Without a caption, it is the template filled in.
    """
    caption, class_word = clean(caption), clean(class_word)
    if not caption:
        return fill_template(template, token, class_word)
    if has_word(caption, token):
        return _set_apart(caption, token)
    subject = f"{token} {class_word}".strip()
    if class_word:
        named = re.compile(rf"{_BEFORE}(?:(?:a|an|the|my|this|that)\s+)?{re.escape(class_word)}{_AFTER}", re.IGNORECASE)
        if named.search(caption):
            return _set_apart(named.sub(lambda _: subject, caption, count=1), token)
    return f"{subject}, {caption}"


def _set_apart(caption: str, token: str) -> str:
    touching = re.compile(
        rf"(?<=[{_UNSPACED}])(?={re.escape(token)}{_AFTER})|(?<={re.escape(token)})(?=[{_UNSPACED}])", re.IGNORECASE
    )
    return touching.sub(" ", caption)


def with_article(class_word: str) -> str:
    """Return "a <class>" or "an <class>" by its sound, and the class alone where English has no article: "toys", "my dog"."""
    words = class_word.split()
    determined = words and (words[0].lower().rstrip(".") in _DETERMINERS or words[0] == "one" or _OWNER.match(words[0]))
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


def class_prompt(template: str, class_word: str) -> str:
    """Return the class prompt of prior preservation: the template with "a <class>" where token and class stood."""
    template = re.sub(r"\b(a|an)\s+(?=\{(token|class)\})", "", template, flags=re.IGNORECASE)
    determiners = "|".join(_DETERMINERS | {"one"})
    determined = re.search(rf"\b({determiners})\s+\{{(token|class)\}}", template, re.IGNORECASE)
    subject = class_word if determined else with_article(class_word)
    if "{class}" not in template:
        return fill_template(template, subject, "")
    return fill_template(re.sub(r"\{token\}[\s_-]*\{class\}", "{token}", template), subject, class_word)


def check_class_word(class_word: str) -> None:
    """Raise UserError for a class without a name that can be seen, of which no class image can be."""
    if not any(unicodedata.category(letter)[0] in "LNS" and letter not in _BLANK_LETTERS for letter in class_word):
        raise UserError(
            "Class images need a class: write in Caption with Token, at class_word, what the subject is, for example 'dog'. Or "
            "train without class images and without a teacher."
        )
