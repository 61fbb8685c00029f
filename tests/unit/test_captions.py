import pytest

from trainer.dataset.captions import caption_with_token, class_prompt, fill_template

TEMPLATE = "a photo of {token} {class}"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a photo of a plush toy on a post", "a photo of mysks plush toy on a post"),
        ("A photo of the Plush Toy", "A photo of mysks plush toy"),
        ("a photo of mysks plush toy in a tent", "a photo of mysks plush toy in a tent"),
        ("MYSKS by the lake", "MYSKS by the lake"),
        ("on a bench in the sun", "mysks plush toy, on a bench in the sun"),
        ("plush toyshop window", "mysks plush toy, plush toyshop window"),
        ("two plush toy friends and a plush toy", "two mysks plush toy friends and a plush toy"),
        ("", "a photo of mysks plush toy"),
        ("  \n ", "a photo of mysks plush toy"),
    ],
)
def test_a_caption_gets_token_and_class_where_it_has_neither(caption, expected):
    assert caption_with_token(caption, "mysks", "plush toy", TEMPLATE) == expected


def test_without_a_class_the_token_stands_alone():
    assert caption_with_token("", "mysks", "", TEMPLATE) == "a photo of mysks"
    assert caption_with_token("by a lake", "mysks", "", TEMPLATE) == "mysks, by a lake"


def test_a_token_inside_another_word_does_not_count():
    assert caption_with_token("mysksian art", "mysks", "", TEMPLATE) == "mysks, mysksian art"


def test_braces_and_backslashes_in_captions_are_plain_text():
    assert caption_with_token(r"a {class} \1 %s", "mysks", "toy", TEMPLATE) == r"mysks toy, a {class} \1 %s"


def test_a_template_without_token_is_refused():
    with pytest.raises(ValueError, match=r"\{token\}"):
        fill_template("a photo", "mysks", "toy")


@pytest.mark.parametrize(
    ("template", "class_word", "expected"),
    [
        (TEMPLATE, "plush toy", "a photo of a plush toy"),
        (TEMPLATE, "owl", "a photo of an owl"),
        ("{token} in the rain", "dog", "a dog in the rain"),
        (TEMPLATE, "", "a photo of"),
    ],
)
def test_class_prompt_names_any_member_of_the_class(template, class_word, expected):
    assert class_prompt(template, class_word) == expected
