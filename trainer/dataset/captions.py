"""Captions that carry the token: the instance prompt of each photo. Plain data, no torch."""

import re

from ..run.messages import UserError

DEFAULT_TEMPLATE = "a photo of {token} {class}"


def _word(text: str) -> re.Pattern:
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)", re.IGNORECASE)


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
    return " ".join(template.replace("{token}", token).replace("{class}", class_word).split())


def caption_with_token(caption: str, token: str, class_word: str, template: str = DEFAULT_TEMPLATE) -> str:
    """Return the caption as training shall see it.

    It is left alone where it has the token. Where it names the class, the class (and its article) becomes token + class:
    "a photo of a plush toy on a post" -> "a photo of mysks plush toy on a post". Where it has neither, token + class
    lead it. Without a caption, it is the template filled in.
    """
    caption = " ".join(caption.split())
    if not caption:
        return fill_template(template, token, class_word)
    if has_word(caption, token):
        return caption
    subject = f"{token} {class_word}".strip()
    if class_word:
        named = re.compile(rf"(?<!\w)(?:(?:a|an|the|my|this|that)\s+)?{re.escape(class_word)}(?!\w)", re.IGNORECASE)
        if named.search(caption):
            return named.sub(lambda _: subject, caption, count=1)
    return f"{subject}, {caption}"


def class_prompt(template: str, class_word: str) -> str:
    """Return the class prompt of prior preservation: the template with "a <class>" where token and class stood."""
    article = "an" if class_word[:1].lower() in "aeiou" else "a"
    subject = f"{article} {class_word}" if class_word else ""
    if "{class}" not in template:
        return fill_template(template, subject, "")
    return fill_template(re.sub(r"\{token\}\s*\{class\}", "{token}", template), subject, class_word)
