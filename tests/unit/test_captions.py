import json

import pytest

from trainer.dataset.caption_files import read_captions
from trainer.dataset.captions import caption_with_token, check_class_word, class_prompt, fill_template, has_word

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


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("一张mysks狗的照片", "一张 mysks 狗的照片"),
        ("草の上のmysksの犬", "草の上の mysks の犬"),
        ("mysks가 있는 사진", "mysks 가 있는 사진"),
        ("รูปmysksหมา", "รูป mysks หมา"),
        ("MYSKS狗", "MYSKS 狗"),
        ("photo_of_mysks_dog", "photo_of_mysks_dog"),
        ("mysks-dog, mysks's bowl", "mysks-dog, mysks's bowl"),
        ("photo_of_dog", "photo_of_mysks dog"),
        ("我的dog在草上", "我的 mysks dog在草上"),
        ("mysksä dog", "mysksä mysks dog"),
    ],
)
def test_the_token_is_found_beside_underscores_and_letters_of_scripts_without_blanks(caption, expected):
    assert caption_with_token(caption, "mysks", "dog", TEMPLATE) == expected


@pytest.mark.parametrize(
    "caption",
    [
        "mysks, a fluffy dog",
        "a photo of mysks the brown dog",
        "a fluffy dog called mysks",
        "dog (mysks) on grass, a dog like no other",
        "mysks: my dog",
        "mysks is a dog",
    ],
)
def test_a_token_apart_from_its_class_is_recognised_and_nothing_is_added(caption):
    assert caption_with_token(caption, "mysks", "dog", TEMPLATE) == caption


ZERO_WIDTH = ["\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u180e", "\u200e", "\u2063"]
ZERO_WIDTH += ["\u200b\u200b", "\u2060\u200d", "\u00ad\u200b"]
FILLERS = ["\u2800", "\u3164", "\u200b \u200b"]


@pytest.mark.parametrize("between", ZERO_WIDTH + FILLERS, ids=ascii)
@pytest.mark.parametrize("name", ["a.txt", "metadata.jsonl", "metadata.csv"])
def test_what_cannot_be_seen_between_token_and_class_is_a_blank(tmp_path, name, between):
    """In a file that is read, and behind it."""
    for written, trained in [
        ("a mysks{}dog on grass", "a mysks dog on grass"),
        ("MYSKS{}dog", "MYSKS dog"),
        ("my{}mysks by day", "my mysks by day"),
        ("a{}dog, on grass", "mysks dog, on grass"),
        ("a dog{}in snow", "mysks dog in snow"),
        *([] if between in FILLERS else [("a dog{}. In snow", "mysks dog. In snow")]),
        ("{}by a lake{}", "mysks dog, by a lake"),
    ]:
        text = written.replace("{}", between)
        row = {
            "metadata.jsonl": json.dumps({"file_name": "a.jpg", "text": text}),
            "metadata.csv": f'file_name,text\na.jpg,"{text}"',
        }
        (tmp_path / name).write_text(row.get(name, text), encoding="utf-8")
        (read,) = read_captions(tmp_path, ["a.jpg"]).captions["a.jpg"].texts
        assert ascii(caption_with_token(read, "mysks", "dog", TEMPLATE)) == ascii(trained)
        assert ascii(caption_with_token(text, "mysks", "dog", TEMPLATE)) == ascii(trained)


@pytest.mark.parametrize("between", ZERO_WIDTH + FILLERS, ids=ascii)
def test_what_cannot_be_seen_in_a_template_is_a_blank(between):
    template = f"a photo of{between}{{token}}{between}{{class}}, outdoors"
    assert ascii(fill_template(template, "mysks", "dog")) == "'a photo of mysks dog, outdoors'"
    assert ascii(class_prompt(template, "dog")) == "'a photo of a dog, outdoors'"


def test_letters_keep_the_joiners_that_they_need_and_no_soft_hyphens():
    for text in ("می\u200cخواهم", "क्\u200dष", "\U0001f469\u200d\U0001f467"):
        assert caption_with_token(f"mysks, {text}", "mysks", "dog") == f"mysks, {text}"
    assert caption_with_token("mysks and an ele\u00adphant", "mysks", "dog") == "mysks and an elephant"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a photo of{token}{class}", "a photo of mysks owl"),
        ("{token}{class} {token}s", "mysks owl mysks s"),
        ("{class}{token}", "owl mysks"),
        ("照片{token}的{class}", "照片 mysks 的owl"),
        ("photo_of_{token}_{class}", "photo_of_mysks_owl"),
        ("{token}'s {class}s", "mysks's owls"),
    ],
)
def test_a_template_sets_the_token_apart_from_letters(template, expected):
    assert fill_template(template, "mysks", "owl") == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{token}, a fluffy {class}", "a fluffy owl"),
        ("a photo of {token}, a {class}, outdoors", "a photo of an owl, outdoors"),
        ("a photo of {token} the {class}", "a photo of an owl"),
        ("a photo of {token}, the old {class}", "a photo of an old owl"),
        ("a photo of {token} fluffy {class}", "a photo of a fluffy owl"),
        ("a photo of the {token} fluffy {class}", "a photo of the fluffy owl"),
        ("a photo of {token} in the rain, my {class}", "a photo of an owl"),
        ("a photo of a {class} called {token} at home", "a photo of an owl at home"),
        ("the {class} {token}", "the owl"),
        ("a {class} ({token})", "an owl"),
        ("a bird ({class} {token}) outdoors", "a bird (an owl) outdoors"),
    ],
)
def test_a_class_prompt_names_the_class_once_where_words_stand_between(template, expected):
    assert class_prompt(template, "owl") == expected


@pytest.mark.parametrize("inside", ["mysksian", "amysks", "mysks2", "mysksä", "ємysks", "mysksский"])
def test_letters_of_the_same_kind_make_another_word(inside):
    assert not has_word(f"a {inside} b", "mysks")


@pytest.mark.parametrize(
    ("caption", "class_word", "expected"),
    [
        ("a photo of a cafe\u0301", "café", "a photo of mysks café"),
        ("a photo of a café", "cafe\u0301", "a photo of mysks café"),
        ("a photo of a cafe\u0301", "cafe", "mysks cafe, a photo of a café"),
        ("a photo of a q\u0301", "q", "mysks q, a photo of a q\u0301"),
        ("बिल्ली घास पर", "बिल", "mysks बिल, बिल्ली घास पर"),
        ("घास पर बिल्ली।", "बिल्ली", "घास पर mysks बिल्ली।"),
        ("கார் மீது", "கா", "mysks கா, கார் மீது"),
        ("كَلب", "ك", "mysks ك, كَلب"),
    ],
)
def test_a_letter_and_its_marks_are_one(caption, class_word, expected):
    assert caption_with_token(caption, "mysks", class_word, TEMPLATE) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a photo of some {token} {class}", "a photo of some dog"),
        ("another {token} {class}", "another dog"),
        ("Two {token} {class}", "Two dog"),
        ("one {token}", "one dog"),
        ("photo of an {token}_{class}", "photo of a dog"),
        ("{token}-{class} in the rain", "a dog in the rain"),
    ],
)
def test_a_class_prompt_has_one_article_and_names_the_class_once(template, expected):
    assert class_prompt(template, "dog") == expected


CLASSES = {
    "a": """
        dog, plush toy, bus, glass, dress, unicorn, university, used car, European robin, one-eyed cat, UFO, UK flag, ukulele,
        house, lens, hero, canvas, rhinoceros, LEGO brick, Lego brick, NASA shirt, MIDI keyboard, SIM card, FIAT, SWAT van,
        HAT, UNICORN, unicycle, USB stick, usb stick, US flag, uk flag, U-boat, u-boat, ufo, URL, Uruguayan hat, utopian city,
        ONE PIECE figure, onesie, eucalyptus, xylophone, 180-degree turn, 1150 watt oven, 16-bit hero, GPU, BMW, TV, t-shirt,
        pair of shoes, glass of water, box of toys, man in jeans, dog with glasses, bottle of wine, set of mice, cactus,
        compass, mantis, trellis, specimen, tv, dvd player, ps5 controller, vcr, Christmas, canvas, walrus, platypus,
        tennis racket, gym, baker's hat, children's book, women's dress, pair of men, bowl of cherries, gas
    """,
    "an": """
        owl, hourglass, honest man, heirloom, umbrella, SUV, LED lamp, X-ray, egg, octopus, MRI scan, 8-bit hero, 18-inch
        doll, Alsatian, unidentified object, urn, iguana, old man, Xbox, XBOX controller, x-ray, X-wing, suv, led lamp, HDMI
        cable, NES, FBI badge, SLR camera, RGBA image, NPC, F-16, MX-5, L-shaped sofa, l-shaped sofa, 18th-century house,
        1800s dress, 80s jacket, 11-year-old boy, IKEA chair, Uber car, usher, urban park, uninvited guest, étagère, hour
        hand, heir, AI robot, mp3 player, MP3 player, rc car, RC car, hdmi cable, lcd screen, f-16, r2d2 toy, mri scan, album of
        photos, SUV, iris of an eye, iris, oasis, abacus, omen, emu, nft, x-men figure
    """,
    "": """
        toys, plush toys, people, old men, children, glasses, scissors, cats and dogs, furniture, blond hair, my dog, boxes,
        mice, the Eiffel Tower, an owl, shoes, sofas, pandas, cameras, kiwis, bikinis, skis, taxis, corgis, buses, octopuses,
        glasses of water, menus, emus, feet, teeth, geese, firemen, grandchildren, women, photos, heroes, lenses, irises, toys
        in a box, cats with hats, TVs, UFOs, another dog, John's dog, James' dog, one dog, two dogs, two sheep, three deer,
        some bread, this car, her cat, Mr Bean, every dog, wedding dresses
    """,
}


@pytest.mark.parametrize(
    ("article", "word"), [(article, " ".join(word.split())) for article, words in CLASSES.items() for word in words.split(",")]
)
def test_a_class_prompt_reads_as_english(article, word):
    assert class_prompt(TEMPLATE, word) == " ".join(f"a photo of {article} {word}".split())


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("a photo of a {token} {class}", "a photo of an owl"),
        ("a photo of an {token} {class}", "a photo of an owl"),
        ("photo of the {token} {class}", "photo of the owl"),
        ("my {token} {class} at home", "my owl at home"),
        ("{token} {class}, studio light", "an owl, studio light"),
    ],
)
def test_a_class_prompt_has_one_article(template, prompt):
    assert class_prompt(template, "owl") == prompt


UNSEEN = [
    "",
    " ",
    "\t",
    "\u200b",
    "\u200d",
    "\u00ad",
    "\ufeff \u2060",
    "\u3164",
    "\u2800",
    "\ufe0f",
    "\u180e",
    "\ud83d",
    ".",
    "-",
]


@pytest.mark.parametrize("word", UNSEEN, ids=ascii)
def test_class_images_of_no_class_are_refused(word):
    with pytest.raises(ValueError, match="Class images need a class: write in Caption with Token"):
        check_class_word(word)


@pytest.mark.parametrize("word", ["dog", "犬", "3", "\U0001f436", "สุนัข", "क\u200dष"])
def test_a_class_in_any_script_is_one(word):
    check_class_word(word)


@pytest.mark.parametrize("half", ["\ud83d", "\0", "\u00ad"], ids=ascii)
def test_no_half_of_a_letter_comes_into_a_prompt(half):
    template = f"a {half}photo of {{token}} {{class}}"
    assert caption_with_token("", "mysks", f"d{half}og", template) == "a photo of mysks dog"
    assert caption_with_token(f"by a d{half}og", "mysks", f"do{half}g", template) == "by mysks dog"
    assert class_prompt(template, f"d{half}og") == "a photo of a dog"
    assert fill_template(template, "mysks", f"d{half}og") == "a photo of mysks dog"
