"""Weight names, original layout <-> diffusers and transformers."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open

from tools import standin
from tools.standin import unet_shapes
from trainer.data.latent_cache import to_tensor
from trainer.dataset.crop import prepare
from trainer.dataset.decode import decode_photo
from trainer.models import key_mapping as keys
from trainer.models.sd15 import BaseModel, encode_prompts, load_tokenizer

from .runs import TOKENIZER


def prefixed(shapes: dict) -> dict:
    return {keys.UNET_PREFIX + k: v for k, v in shapes.items()}


@pytest.mark.parametrize(("channels", "layers"), [((320, 320), 1), ((320, 640, 1280, 1280), 2)])
def test_the_table_covers_every_unet_key_in_both_directions(channels, layers):
    """The second case is SD v1.5 itself."""
    shapes = prefixed(unet_shapes(channels, layers))
    config = keys.unet_config(shapes)
    table = keys.unet_table(shapes, config)
    with torch.device("meta"):
        model = UNet2DConditionModel(**config)
    assert set(table) == set(model.state_dict())
    assert set(table.values()) == set(shapes)
    assert all(tuple(model.state_dict()[k].shape) == shapes[ldm] for k, ldm in table.items())


def test_sd15s_unet_has_its_published_size():
    assert len(unet_shapes((320, 640, 1280, 1280), 2)) == 686


def test_an_unknown_unet_key_is_refused():
    shapes = prefixed(unet_shapes((320, 320))) | {f"{keys.UNET_PREFIX}input_blocks.0.0.surplus": (1,)}
    with pytest.raises(ValueError, match="surplus"):
        keys.unet_table(shapes, keys.unet_config(shapes))


def test_both_layouts_of_the_text_encoder_are_served():
    base = {keys.TEXT_PREFIX + k: torch.zeros(1) for k in ("final_layer_norm.bias", "embeddings.position_ids")}
    assert set(keys.text_weights(base, ["text_model.final_layer_norm.bias"])) == {"text_model.final_layer_norm.bias"}
    assert set(keys.text_weights(base, ["final_layer_norm.bias"])) == {"final_layer_norm.bias"}


def test_a_base_with_a_missing_or_misshapen_tensor_is_named(small_base):
    base = BaseModel(small_base)
    name = keys.TEXT_PREFIX + "final_layer_norm.bias"
    base.weights[name] = torch.zeros(5)
    with pytest.raises(ValueError, match=r"text encoder is not SD v1\.5's: 1 tensors differ.*final_layer_norm\.bias"):
        base.text_encoder()
    del base.weights[name]
    with pytest.raises(ValueError, match=r"final_layer_norm\.bias"):
        base.text_encoder()


def test_the_standin_vae_shows_a_photo_again(small_base, dataset):
    vae = BaseModel(small_base).vae()
    with open(dataset.photos[0].path, "rb") as file:
        photo = to_tensor(prepare(decode_photo(file.read()), 128, "center"))[None]
    with torch.no_grad():
        latents = vae.encode(photo).latent_dist.mean
        shown = vae.decode(latents).sample
    assert latents.shape == (1, 4, 16, 16)
    assert 0.5 < latents.std() * 0.18215 < 2
    small = [torch.nn.functional.interpolate(x, 16, mode="area", antialias=False).flatten() for x in (photo, shown)]
    assert torch.corrcoef(torch.stack(small))[0, 1] > 0.95


def test_prompts_are_cut_and_padded_to_77_pieces(small_base):
    tokenizer = load_tokenizer(str(TOKENIZER))
    states = encode_prompts(BaseModel(small_base).text_encoder(), tokenizer, ["a toy", "toy " * 200])
    assert states.shape == (2, 77, 768)
    assert not torch.equal(states[0], states[1])


def test_the_same_seed_builds_the_same_standin(small_base, tmp_path):
    standin.build(tmp_path / "again.safetensors", size=standin.SMALL, taught=False)
    with safe_open(small_base, "pt") as one, safe_open(tmp_path / "again.safetensors", "pt") as two:
        assert set(one.keys()) == set(two.keys())
        assert all(torch.equal(one.get_tensor(k), two.get_tensor(k)) for k in one.keys())  # noqa: SIM118 - not a dict


@pytest.mark.parametrize("shape", [None, (), (0, 128, 3, 3), (100, 128, 3, 3), (32,)])
def test_a_width_that_no_vae_has_is_told_as_a_tensor_that_differs(small_base, shape):
    """Not as whatever diffusers says of a model that cannot be built."""
    base = BaseModel(small_base)
    name = f"{keys.VAE_PREFIX}encoder.down.1.block.0.conv1.weight"
    if shape is None:
        del base.weights[name]
    else:
        base.weights[name] = torch.empty(shape)
    with pytest.raises(ValueError, match=r"VAE is not SD v1\.5's: \d+ tensors differ"):
        base.vae()
