"""Wrong input gets a sentence before any training starts, and the server goes on."""

import json
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from demo.run import node
from tools.server import Failed, Refused

from .graphs import up_to_training

REFUSED = (Failed, Refused)


@pytest.fixture(autouse=True)
def nothing_trained_and_the_server_lives(server, base_directory):
    runs = base_directory / "output" / "finetune"
    before = set(runs.glob("*")) - {runs / "pictures"}  # those wired to a loader, which it clears away itself
    yield
    assert set(runs.glob("*")) - {runs / "pictures"} == before
    inputs = {"folder": "plush", "resolution": 64, "crop": "center"}
    good = {
        "1": {"class_type": "DatasetLoader", "inputs": inputs},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 1]}},
    }
    assert len(server.run(good).outputs["2"]["images"]) == 4


@pytest.fixture
def folder(base_directory, request):
    """A new folder below input, named after the test."""
    path = base_directory / "input" / request.node.name
    path.mkdir()
    return path


def picture(path, size=(64, 64)) -> None:
    Image.new("RGB", size, "teal").save(path)


def use(graph: dict, class_type: str, **inputs) -> dict:
    graph[node(graph, class_type)]["inputs"] |= inputs
    return graph


def test_missing_folder(server, quick_graph):
    with pytest.raises(
        REFUSED, match=r"'gone' does not exist\. Drop your photos on the node, or put them into a subfolder of ComfyUI's input"
    ):
        server.run(use(quick_graph, "DatasetLoader", folder="gone"))


@pytest.mark.parametrize(
    "outside", ["../models", "/etc", "plush/../../models", "datasets/../models", ".", "plush/\0", "C:\\Windows"]
)
def test_folder_outside_the_allowed_roots(server, quick_graph, outside):
    with pytest.raises(REFUSED, match=r"outside ComfyUI's input and datasets folders|does not exist"):
        server.run(use(quick_graph, "DatasetLoader", folder=outside))


def test_a_link_that_leads_out(server, quick_graph, base_directory, tmp_path):
    picture(tmp_path / "secret.png")
    (base_directory / "input" / "link").symlink_to(tmp_path)
    with pytest.raises(REFUSED, match=r"outside ComfyUI's input"):
        server.run(use(quick_graph, "DatasetLoader", folder="link"))


def test_empty_folder(server, quick_graph, folder):
    with pytest.raises(REFUSED, match=r"has no photos\. Put jpg, png, webp or bmp files into it"):
        server.run(use(quick_graph, "DatasetLoader", folder=folder.name))


def test_a_folder_whose_subfolders_have_the_photos(server, quick_graph, folder):
    (folder / "10_mysks dog").mkdir()
    picture(folder / "10_mysks dog" / "a.png")
    with pytest.raises(REFUSED, match=r"Choose one of its subfolders: .*/10_mysks dog \(1 photo\)"):
        server.run(use(quick_graph, "DatasetLoader", folder=folder.name))
    offered = server.get("/object_info/DatasetLoader")["DatasetLoader"]["input"]["required"]["folder"]
    assert f"{folder.name}/10_mysks dog" in json.dumps(offered)


def test_class_images_of_no_class(server, quick_graph):
    use(quick_graph, "CaptionWithToken", class_word=" ")
    with pytest.raises(REFUSED, match="Class images need a class: write in Caption with Token"):
        server.run(up_to_training(use(quick_graph, "DreamBoothTrain", class_images=2)))


def test_class_images_with_the_token_are_refused(server, quick_graph):
    captioned = [node(quick_graph, "CaptionWithToken"), 0]
    with pytest.raises(REFUSED, match="The class images carry the subject's token"):
        server.run(up_to_training(use(quick_graph, "DreamBoothTrain", class_dataset=captioned)))


@pytest.mark.parametrize(("token", "note"), [("the", "is a common word"), ("dog1", "is made of common words")])
def test_a_token_of_everyday_words_is_warned_of(server, token, note):
    graph = {
        "1": {"class_type": "DatasetLoader", "inputs": {"folder": "plush", "resolution": 64, "crop": "center"}},
        "2": {"class_type": "CaptionWithToken", "inputs": {"dataset": ["1", 0], "token": token, "class_word": "toy"}},
    }
    graph["2"]["inputs"]["template"] = "a photo of {token} {class}"
    graph["3"] = {"class_type": "PreviewAny", "inputs": {"source": ["2", 1]}}
    assert f"'{token}' {note}" in server.run(graph).outputs["2"]["text"][0]


def test_half_an_emoji_does_not_come_into_prompts(server):
    graph = {
        "1": {"class_type": "DatasetLoader", "inputs": {"folder": "plush", "resolution": 64, "crop": "center"}},
        "2": {"class_type": "CaptionWithToken", "inputs": {"dataset": ["1", 0], "token": "mysks", "class_word": "to\ud83dy"}},
    }
    graph["2"]["inputs"]["template"] = "a \ud83dphoto of {token} {class}"
    graph["3"] = {"class_type": "PreviewAny", "inputs": {"source": ["2", 1]}}
    assert server.run(graph).outputs["3"]["text"] == ["a photo of mysks toy"]


def test_no_readable_image(server, quick_graph, folder):
    (folder / "a.jpg").write_bytes(b"\xff\xd8 broken")
    with pytest.raises(REFUSED, match=r"1 of 1 images cannot be read: a\.jpg \(damaged.*convert them"):
        server.run(use(quick_graph, "DatasetLoader", folder=folder.name))


def test_some_unreadable_images_are_each_named(server, quick_graph, folder):
    picture(folder / "good.png")
    (folder / "IMG_04.jxl").write_bytes(b"x")
    (folder / "zero.png").write_bytes(b"")
    with pytest.raises(
        REFUSED, match=r"2 of 3 images cannot be read: IMG_04\.jxl \(unsupported format\), zero\.png \(empty file\)"
    ):
        server.run(use(quick_graph, "DatasetLoader", folder=folder.name))


def test_small_images_are_warned_of_and_used(server, folder):
    picture(folder / "small.png", (40, 30))
    graph = {
        "1": {"class_type": "DatasetLoader", "inputs": {"folder": folder.name, "resolution": 72, "crop": "center"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 1]}},
    }
    (text,) = server.run(graph).outputs["1"]["text"]
    assert "1 of 1 photos are smaller than 72 pixels and will be enlarged: small.png (40x30)." in text
    assert "a multiple of 64 suits SD v1.5 better" in text


@pytest.mark.parametrize(
    ("checkpoint", "family"),
    [("sdxl", "an SDXL model"), ("sd2", "an SD 2 model"), ("inpainting", "an SD v1.5 inpainting model")],
)
def test_a_base_of_another_family_is_named(server, quick_graph, checkpoint, family):
    graph = use(quick_graph, "CheckpointLoaderSimple", ckpt_name=f"{checkpoint}.safetensors")
    train = node(graph, "DreamBoothTrain")
    wanted = {train, *(node(graph, c) for c in ("CheckpointLoaderSimple", "DatasetLoader", "CaptionWithToken"))}
    with pytest.raises(Failed, match=f"The base is {family}. These nodes train SD v1.5 models"):
        server.run({i: n for i, n in graph.items() if i in wanted})


@pytest.mark.parametrize(
    ("sampling", "zsnr", "family"),
    [
        ("v_prediction", False, "a v-prediction model"),
        ("x0", False, r"a model that predicts something else than noise \(X0\)"),
        ("lcm", False, r"a model that predicts something else than noise \(LCM\)"),
        ("img_to_img", False, r"a model that predicts something else than noise \(IMG_TO_IMG\)"),
        ("eps", True, r"a model with another noise schedule than SD v1\.5's"),
    ],
)
def test_a_base_that_predicts_something_else_is_named(server, quick_graph, sampling, zsnr, family):
    base = node(quick_graph, "CheckpointLoaderSimple")
    inputs = {"model": [base, 0], "sampling": sampling, "zsnr": zsnr}
    quick_graph["sampling"] = {"class_type": "ModelSamplingDiscrete", "inputs": inputs}
    with pytest.raises(Failed, match=f"The base is {family}"):
        server.run(up_to_training(use(quick_graph, "DreamBoothTrain", model=["sampling", 0]), "sampling"))


def test_a_clip_skip_beyond_the_text_encoder(server, quick_graph):
    clip = [node(quick_graph, "CheckpointLoaderSimple"), 1]
    quick_graph["skip"] = {"class_type": "CLIPSetLastLayer", "inputs": {"clip": clip, "stop_at_clip_layer": -13}}
    with pytest.raises(Failed, match=r"has 12 layers, and CLIP Set Last Layer is -13\. Set it between -12 and -1"):
        server.run(up_to_training(use(quick_graph, "DreamBoothTrain", clip=["skip", 0]), "skip"))


class Program:
    """What a pickle runs when it is read in full."""

    def __init__(self, file: str):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


@pytest.mark.parametrize("write", [torch.save, lambda data, path: path.write_bytes(pickle.dumps(data))], ids=["torch", "pickle"])
@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
def test_an_embedding_that_is_a_program_is_not_run(server, quick_graph, base_directory, tmp_path, write, suffix):
    folder = base_directory / "models" / "embeddings"
    folder.mkdir(exist_ok=True)
    path = folder / f"program{suffix}"
    write({"string_to_param": {"*": Program(str(tmp_path / "written"))}}, path)
    try:
        with pytest.raises(Failed, match="There is no embedding 'program' that can be read"):
            server.run(up_to_training(use(quick_graph, "DreamBoothTrain", embedding="program")))
    finally:
        path.unlink()
    assert not (tmp_path / "written").exists()


@pytest.fixture
def lora(base_directory):
    """The name of a LoRA for U-Net and text encoder."""
    path = base_directory / "models" / "loras" / "small.safetensors"
    path.parent.mkdir(exist_ok=True)
    tensors = {}
    for layer, width in (
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", 320),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 768),
    ):
        tensors |= {f"{layer}.lora_down.weight": torch.ones(1, width), f"{layer}.lora_up.weight": torch.ones(width, 1)}
        tensors[f"{layer}.alpha"] = torch.tensor(1.0)
    save_file(tensors, path)
    yield path.name
    path.unlink()


@pytest.mark.parametrize(("socket", "part"), [("model", "U-Net"), ("clip", "text encoder")])
def test_a_lora_that_is_in_no_weight(server, quick_graph, lora, socket, part):
    base = node(quick_graph, "CheckpointLoaderSimple")
    inputs = {"model": [base, 0], "clip": [base, 1], "lora_name": lora, "strength_model": 1.0, "strength_clip": 1.0}
    quick_graph["bypass"] = {"class_type": "LoraLoaderBypass", "inputs": inputs}
    graph = use(quick_graph, "DreamBoothTrain", **{socket: ["bypass", ("model", "clip").index(socket)]})
    with pytest.raises(Failed, match=rf"The {part} comes with injections \(bypass_lora\).*Use Load LoRA in place of"):
        server.run(up_to_training(graph, "bypass"))


def test_a_text_encoder_with_hooks(server, quick_graph, lora):
    inputs = {"lora_name": lora, "strength_model": 1.0, "strength_clip": 1.0}
    quick_graph["hook"] = {"class_type": "CreateHookLora", "inputs": inputs}
    inputs = {"clip": [node(quick_graph, "CheckpointLoaderSimple"), 1], "apply_to_conds": True, "schedule_clip": False}
    quick_graph["hooked"] = {"class_type": "SetClipHooks", "inputs": inputs | {"hooks": ["hook", 0]}}
    with pytest.raises(Failed, match=r"The text encoder comes with hooks: .* put other such nodes behind the training node"):
        server.run(up_to_training(use(quick_graph, "DreamBoothTrain", clip=["hooked", 0]), "hook", "hooked"))


@pytest.mark.parametrize(
    ("token", "sentence"), [("", "The token is empty"), ("two words", "must be one word"), ("../x", "cannot be used")]
)
def test_a_token_that_cannot_be_used(server, quick_graph, token, sentence):
    with pytest.raises(REFUSED, match=sentence):
        server.run(use(quick_graph, "CaptionWithToken", token=token))


def test_a_dataset_without_token(server, quick_graph):
    with pytest.raises(Refused, match=r"The dataset has no token\. Put Caption with Token between"):
        server.run(use(quick_graph, "DreamBoothTrain", dataset=[node(quick_graph, "DatasetLoader"), 0]))


@pytest.mark.parametrize("resolution", [500, 513])
def test_a_resolution_that_is_no_multiple_of_8(server, quick_graph, resolution):
    with pytest.raises(Refused, match=rf"{resolution} is not a multiple of 8\. Use 512: multiples of 64"):
        server.run(use(quick_graph, "DatasetLoader", resolution=resolution))


@pytest.mark.parametrize("name", ["", "../escape", "a/b", "nul"])
def test_a_name_that_is_no_file_name(server, quick_graph, name):
    with pytest.raises(REFUSED, match="The name"):
        server.run(use(quick_graph, "DreamBoothTrain", name=name))


def test_a_run_that_is_not_there(server):
    graph = {
        "1": {"class_type": "LoadFinetuned", "inputs": {"run": "../../models"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 3]}},
    }
    with pytest.raises(Refused, match="There is no finished run"):
        server.run(graph)


def test_settings_that_do_not_go_together(server, quick_graph):
    with pytest.raises(Refused, match="lr_warmup_steps is 5; it must be between 0 and 2"):
        server.run(use(quick_graph, "DreamBoothTrain", lr_warmup_steps=5))


def test_holding_all_photos_out_is_refused_before_anything_runs(server, quick_graph, base_directory):
    use(quick_graph, "DreamBoothTrain", hold_out=4)
    with pytest.raises(Refused, match="hold_out is 4, but there are only 4 photos"):
        server.run(quick_graph)
    loader = quick_graph[node(quick_graph, "DatasetLoader")]["inputs"]
    quick_graph["picture"] = {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 96, "batch_size": 2, "color": 200}}
    with pytest.raises(
        Failed, match="hold_out is 4, but there are only 2 photos"
    ):  # how many come by a link, nobody knows before
        server.run(use(quick_graph, "DatasetLoader", **loader, images=["picture", 0]))
    shutil.rmtree(base_directory / "output" / "finetune" / "pictures")


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system")
@pytest.mark.parametrize("folder", ["finetune", "checkpoints"])
def test_an_output_folder_that_cannot_be_written(server, quick_graph, base_directory, folder):
    path = base_directory / "output" / folder
    path.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", path], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a file system: {mounted.stderr.strip()}")
    try:
        with pytest.raises(Failed, match=rf"Nothing can be written to .*{folder} \(Read-only file system\)"):
            server.run(quick_graph)
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_caption_that_clip_cannot_read_to_its_end(server, folder):
    for name, text in (("long", "word " * 10_000), ("empty", "")):
        picture(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(text)
    graph = {
        "1": {"class_type": "DatasetLoader", "inputs": {"folder": folder.name, "resolution": 64, "crop": "center"}},
        "2": {"class_type": "CaptionWithToken", "inputs": {"dataset": ["1", 0], "token": "mysks", "class_word": "toy"}},
    }
    graph["2"]["inputs"]["template"] = "a photo of {token} {class}"
    graph["3"] = {"class_type": "PreviewAny", "inputs": {"source": ["2", 1]}}
    (text,) = server.run(graph).outputs["2"]["text"]
    assert "1 of 2 captions are longer than the 75 pieces that CLIP reads; what follows is not seen: long.png." in text
    assert "empty.png: a photo of mysks toy" in text
