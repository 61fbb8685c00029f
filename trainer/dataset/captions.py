"""Captions that carry the token: the instance prompt of each photo. Plain data, no torch."""

import re
import unicodedata

from ..run.messages import UserError
from .english import DETERMINERS, with_article
from .text_file import clean

DEFAULT_TEMPLATE = "a photo of {token} {class}"


_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
"""Letters of scripts that are written without blanks, or set particles to a word: Thai to Khmer, Chinese, Japanese, Korean."""
_MARKS = "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
"""Accents, and the vowels of Hebrew, Arabic and India's scripts, which Python does not take for letters."""
_BEFORE, _AFTER = rf"(?<![^\W_{_UNSPACED}])(?<![{_MARKS}])", rf"(?![^\W_{_UNSPACED}]|[{_MARKS}])"
"""Where a word begins and ends: at anything but a letter or digit of its own kind, so at an underscore, too."""
_JOINERS = "\u00ad\u180e\u200c\u200d"
"""What cannot be seen but may stand within a word: the soft hyphen, and joiners of Mongolian, Persian and India's scripts."""
_TEMPLATE_EDGE = re.compile(rf"(?<=[^\W_]|\}})[{_JOINERS}]*(?=\{{token\}})|(?<=\{{token\}})[{_JOINERS}]*(?=[^\W_]|\{{class\}})")
"""Where a template has no blank between the token and what it would be one word with."""
_DETERMINER = rf"\b(?:{'|'.join(sorted(DETERMINERS | {'one'}))})\b"
_SUBJECT = re.compile(
    rf"\{{token\}}(?:[^{{}}]*(?:[^\w\s{{}}-]|{_DETERMINER}))?([^{{}}]*?)\{{class\}}|\{{class\}}[^{{}}]*?(?:\(\{{token\}}\)|\{{token\}})",
    re.IGNORECASE,
)
"""What names the subject in a template, from the token to the class, with the words right before the class; or the reverse."""
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


def plain(text: str) -> str:
    """Return the text as `clean` does, without soft hyphens, and with joiners behind letters alone that may need them."""
    return clean(re.sub(rf"(?<![^\x00-\x7f])[{_JOINERS}]+", "", text.replace("\u00ad", "")))


def fill_template(template: str, token: str, class_word: str) -> str:
    """Return the template with `{token}` and `{class}` filled in. Raises UserError when it has no `{token}`."""
    if "{token}" not in template:
        raise UserError(
            "The caption template {template!r} has no {{token}}. Write for example {example!r}.",
            template=template,
            example=DEFAULT_TEMPLATE,
        )
    template = plain(_TEMPLATE_EDGE.sub(" ", clean(template)))
    return plain(template.replace("{token}", token).replace("{class}", class_word))


def caption_with_token(caption: str, token: str, class_word: str, template: str = DEFAULT_TEMPLATE) -> str:
    """Return the caption as training shall see it.

    It is left alone where it has the token, but for blanks that set the token apart from the letters of scripts without blanks:
    CLIP would read them as one word. Where it names the class, the class (and its article) becomes token + class:
    "a photo of a plush toy on a post" -> "a photo of mysks plush toy on a post". Where it has neither, token + class
    lead it. Without a caption, it is the template filled in.
    """
    class_word = plain(class_word)
    caption = clean(caption)
    for word in filter(None, (token, class_word)):
        caption = _without_joiners(caption, word)
    caption = plain(caption)
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


def _without_joiners(text: str, word: str) -> str:
    """Return the text with blanks for joiners and soft hyphens between the word and other letters."""
    word = re.escape(word)
    return re.sub(
        rf"(?<=\w)[{_JOINERS}]+(?={word}{_AFTER})|(?<={_BEFORE}{word})[{_JOINERS}]+(?=\w)", " ", text, flags=re.IGNORECASE
    )


def class_prompt(template: str, class_word: str) -> str:
    """Return the class prompt of prior preservation: the template with "a <class>" where token and class stood.

    Of words between them, those right before the class stay: "{token}, a fluffy {class}" -> "a fluffy dog".
    """
    subject, found = class_word, _SUBJECT.search(template)
    if found:
        subject = f"{(found[1] or '').strip(f' _-{_JOINERS}')} {class_word}".strip() if class_word else ""
        template = f"{template[: found.start()]}{{token}}{template[found.end() :]}"
    template = re.sub(r"\b(a|an)\s+(?=\{(token|class)\})", "", template, flags=re.IGNORECASE)
    if not re.search(rf"{_DETERMINER}\s+\{{token\}}", template, re.IGNORECASE):
        subject = with_article(subject)
    return fill_template(template, subject, class_word)


def check_class_word(class_word: str) -> None:
    """Raise UserError for a class without a name that can be seen, of which no class image can be."""
    if not any(unicodedata.category(letter)[0] in "LNS" and letter not in _BLANK_LETTERS for letter in class_word):
        raise UserError(
            "Class images need a class: write in Caption with Token, at class_word, what the subject is, for example 'dog'. Or "
            "train without class images and without a teacher."
        )
