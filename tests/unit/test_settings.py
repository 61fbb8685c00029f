import json
from dataclasses import asdict

import pytest

from trainer.run.messages import UserError
from trainer.run.names import METHODS, check_name, check_token
from trainer.run.settings import Settings, check_text_layer, method_settings

GOOD = {
    "method": "dreambooth",
    "token": "mysks",
    "steps": 10,
    "batch_size": 1,
    "learning_rate": 1e-6,
    "seed": 0,
    "precision": "fp32",
}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 65}, "batch_size is 65"),
        ({"learning_rate": -1e-6}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"lr_warmup_steps": 11}, "lr_warmup_steps is 11"),
        ({"precision": "fp8"}, "fp8"),
        ({"lr_scheduler": "step"}, "step"),
        ({"token": ""}, "token is empty"),
        ({"method": "lora"}, "lora"),
        ({"optimizer": "sgd"}, "Unknown optimizer 'sgd'; known are adamw, adamw_8bit"),
        ({"train": "vae"}, "Unknown train"),
        ({"devices": 2}, "2 devices cannot share it evenly"),
        ({"early_stopping": "export_best"}, "set hold_out to 1 or more"),
        ({"optimizer": "prodigy"}, "leave learning_rate and text_learning_rate at 0"),
        ({"class_images": 10}, "class prompt"),
        ({"sample_prompts": ("a",) * 17}, "17 sample prompts"),
        ({"ema_decay": 1.0}, r"ema_decay is 1\.0"),
    ],
)
def test_a_wrong_setting_is_named(change, named):
    with pytest.raises(ValueError, match=named):
        Settings.of(**(GOOD | change))


def test_what_does_not_change_the_result_does_not_decide_it():
    quick = Settings.of(**GOOD).deciding()
    assert quick == Settings.of(**GOOD, gradient_checkpointing=True, checkpoint_every=7, devices=1).deciding()
    assert quick != Settings.of(**(GOOD | {"seed": 1})).deciding()


@pytest.mark.parametrize("name", ["sample_prompts", "sample_every"])
@pytest.mark.parametrize("method", METHODS)
def test_pictures_on_the_way_do_not_decide_the_result(name, method):
    value = {"sample_prompts": ("a toy",), "sample_every": 7}[name]
    plain = Settings.of(**GOOD | {"method": method})
    assert plain.replace(**{name: value}).deciding() == plain.deciding()


def test_a_setting_at_its_default_is_not_in_the_key():
    """So a new setting leaves the runs of older versions findable."""
    named = {"method": "dreambooth", "token": "mysks", "class_word": "", "steps": 10, "learning_rate": 1e-6}
    assert Settings.of(**GOOD, vectors=1, ema_decay=0.0).deciding() == Settings.of(**GOOD).deciding() == named
    assert Settings.of(**GOOD, vectors=2).deciding() == named | {"vectors": 2}


def test_the_layer_of_the_text_encoder_decides_unless_it_is_the_last():
    assert Settings.of(**GOOD, text_layer=-1).deciding() == Settings.of(**GOOD).deciding()
    named = {Settings.of(**GOOD, text_layer=layer).deciding()["text_layer"] for layer in (-2, -3)}
    assert named == {-2, -3}
    older = asdict(Settings.of(**GOOD))
    del older["training"]["text_layer"]  # as runs before it have it
    assert Settings.from_json(json.loads(json.dumps(older))) == Settings.of(**GOOD)


@pytest.mark.parametrize("depth", [2, 12])
def test_a_text_encoder_has_the_layers_from_its_first_to_its_last(depth):
    for layer in range(-depth, 0):
        check_text_layer(layer, depth)
    for layer in (-depth - 1, 0, 1, depth):
        with pytest.raises(UserError, match=rf"has {depth} layers, .* is {layer}\. Set it between -{depth} and -1"):
            check_text_layer(layer, depth)


def test_settings_survive_json_and_know_each_name():
    settings = Settings.of(**GOOD, train="lora", sample_prompts=("a", "b"), hold_out=2)
    assert Settings.from_json(json.loads(json.dumps(asdict(settings)))) == settings
    assert settings.flat() | {"train": "unet"} == settings.replace(train="unet").flat()
    with pytest.raises(TypeError, match="bogus"):
        Settings.of(**GOOD, bogus=1)


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_is_bounded_and_told(method):
    """Each number has bounds that hold its default, each choice its options, each text of a widget its tooltip."""
    for name, field in method_settings(method).items():
        setting = field.metadata["setting"]
        assert setting.tooltip.endswith("."), name
        if field.type in (int, float):
            assert setting.low <= field.default <= setting.high, name
            assert field.type is int or setting.step, name
            for beyond in (setting.low - 1, setting.high + 1):
                with pytest.raises(UserError, match=f"{name} is .* must be between"):
                    Settings.of(**(GOOD | {name: type(field.default)(beyond)}))
        elif field.type is str and setting.options:
            assert field.default in setting.options, name


def test_the_trigger_has_the_class_where_training_saw_it():
    assert Settings.of(**GOOD, class_word="toy").trigger("embedding:x") == "embedding:x toy"
    assert Settings.of(**GOOD, class_word="toy", template_set="style").trigger("mysks") == "mysks"


@pytest.mark.parametrize("token", ["", "  ", "two words", "../x", "con", "a/b", "naïve", "x" * 65, "emb:x", "a\nb"])
def test_tokens_that_cannot_be_a_word_and_a_file_are_refused(token):
    with pytest.raises(ValueError, match="token"):
        check_token(token)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "C:x", "nul", "COM1.txt", "end.", ".hidden", "a\0b", "x" * 65]
)
def test_names_that_are_no_plain_file_name_are_refused(name):
    with pytest.raises(ValueError, match="name"):
        check_name(name)


def test_good_tokens_and_names_pass_without_their_blanks():
    assert check_token(" mysks ") == "mysks"
    assert check_name(" Моя іграшка 2.1 ") == "Моя іграшка 2.1"
