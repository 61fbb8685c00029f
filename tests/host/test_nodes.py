"""What ComfyUI knows of the pack."""

import re
from pathlib import Path

import pytest

IDS = ("DatasetLoader", "CaptionWithToken", "DreamBoothTrain", "TextualInversionTrain", "LoadFinetuned", "EvaluateSubject")
MANUAL = {
    "DatasetLoader": "docs/photos.md",
    "CaptionWithToken": "docs/photos.md",
    "DreamBoothTrain": "docs/settings.md",
    "TextualInversionTrain": "docs/settings.md",
    "LoadFinetuned": "README.md",
    "EvaluateSubject": "docs/evaluate.md",
}


@pytest.fixture(scope="module")
def info(server) -> dict:
    return {name: server.get(f"/object_info/{name}").get(name) for name in IDS}


def test_every_node_is_registered_by_this_pack_in_one_category(info):
    assert all(info.values())
    assert {node["category"] for node in info.values()} == {"Subject Trainer"}
    assert all(node["python_module"].startswith("custom_nodes.") for node in info.values())


@pytest.mark.parametrize(
    "typed",
    [
        "dreambooth",
        "lora",
        "finetune",
        "fine-tune",
        "subject",
        "textual inversion",
        "embedding",
        "face",
        "character",
        "style",
        "train",
    ],
)
def test_every_node_is_found_by_what_people_type(info, typed):
    assert [name for name, node in info.items() if typed not in node["search_aliases"]] == []


def test_every_input_and_output_has_a_tooltip(info):
    for name, node in info.items():
        for kind in ("required", "optional"):
            for widget, (_, options) in node["input"].get(kind, {}).items():
                assert options.get("tooltip"), (name, widget)
        assert all(node["output_tooltips"]), name


def test_sockets_are_comfyuis_own(info):
    assert info["DatasetLoader"]["output"] == ["SUBJECT_DATASET", "IMAGE"]
    assert info["CaptionWithToken"]["output"] == ["SUBJECT_DATASET", "STRING", "STRING", "STRING"]
    assert info["DreamBoothTrain"]["output"] == ["MODEL", "CLIP", "VAE", "LOSS_MAP", "STRING", "LORA_MODEL", "STRING"]
    assert info["TextualInversionTrain"]["output"] == ["CLIP", "STRING", "LOSS_MAP", "STRING"]
    assert info["LoadFinetuned"]["output"] == ["MODEL", "CLIP", "VAE", "STRING"]
    assert info["EvaluateSubject"]["output"] == [*["FLOAT"] * 6, "STRING", "IMAGE", "STRING"]


def test_rarely_used_widgets_are_advanced(info):
    both = {"lr_scheduler", "lr_warmup_steps", "precision", "gradient_checkpointing", "checkpoint_every"}
    both |= {"gradient_accumulation_steps", "optimizer", "max_grad_norm", "min_snr_gamma", "noise_offset", "ema_decay"}
    both |= {"sample_every", "validate_every", "devices", "keep_state", "export_on_cancel", "save_every"}
    both |= {"batch_size", "seed", "learning_rate", "early_stopping"}
    dreambooth = {"prior", "prior_loss_weight", "start_lora", "text_learning_rate", "weight_decay", "caption_dropout"}
    dreambooth |= {"lora_kind", "lora_rank", "lora_alpha", "lora_layers", "embedding", "low_memory"}
    for name, own in (("DreamBoothTrain", dreambooth), ("TextualInversionTrain", {"norm_limit"})):
        inputs = {**info[name]["input"]["required"], **info[name]["input"]["optional"]}
        advanced = {widget for widget, (_, options) in inputs.items() if options.get("advanced")}
        assert advanced == both | own


@pytest.mark.parametrize("name", ["DreamBoothTrain", "TextualInversionTrain"])
def test_whole_numbers_are_used_as_they_are_typed(info, name):
    """ComfyUI's page rounds what is typed to a multiple of the widget's step."""
    inputs = {**info[name]["input"]["required"], **info[name]["input"]["optional"]}
    steps = {widget: options["step"] for widget, (of_type, options) in inputs.items() if of_type == "INT"}
    assert {"steps", "sample_every", "validate_every"} <= steps.keys()
    assert set(steps.values()) == {1}


def test_the_preset_is_the_first_widget_and_decides_by_default(info):
    for name in ("DreamBoothTrain", "TextualInversionTrain"):
        (first, *_) = (w for w, (of_type, _) in info[name]["input"]["required"].items() if of_type in ("COMBO", "STRING"))
        assert first == "preset"
        assert info[name]["input"]["required"][first][1]["default"] == "auto"


def test_every_widget_has_its_line_in_the_docs(info):
    """Or in the page of docs/ that the README refers to for its node."""
    root = Path(__file__).parents[2]
    sockets = ("MODEL", "CLIP", "VAE", "CLIP_VISION", "SUBJECT_DATASET", "IMAGE")
    for name, node in info.items():
        readme = (root / MANUAL[name]).read_text(encoding="utf-8")
        for kind in ("required", "optional"):
            for widget, (of_type, _) in node["input"].get(kind, {}).items():
                assert of_type in sockets or f"`{widget}`" in readme, (name, widget)


def test_new_folders_are_listed_when_the_page_refreshes(server, base_directory):
    def listed() -> list[str]:
        return server.options("DatasetLoader", "folder")

    assert "plush" in listed()
    assert not {"fresh", "datasets/mine"} & set(listed())
    (base_directory / "input" / "fresh").mkdir()
    (base_directory / "datasets" / "mine").mkdir(parents=True)
    assert {"fresh", "datasets/mine"} <= set(listed())


@pytest.mark.nightly  # with nothing beside it
def test_the_pack_costs_the_start_under_a_fifth_of_a_second(server):
    """ComfyUI measures it itself."""
    times = re.findall(r"([\d.]+) seconds: (.*)", server.log.read_text())
    assert times
    assert all(float(seconds) < 0.2 for seconds, _ in times), times
