"""Whether a VAE is SDXL's, by what it makes of the photos. The real ones are no part of the tests: their latents are drawn here
from the way to colours that was fitted to each, with what it does not explain."""

import pytest
import torch
from torch.nn import functional as F

from demo.photos import draw_photo
from trainer.data import vae_check
from trainer.data.latent_cache import to_tensor
from trainer.models.sd15 import LATENT_FACTOR, BaseModel

from .runs import DREAMBOOTH, sentence, work_here

COLOURS = [((200, 40, 30), (20, 90, 200)), ((240, 230, 90), (30, 120, 60)), ((90, 20, 120), (250, 160, 30))]
FACTORS = {"sd15": (vae_check.SD15_COLOURS, 1.0), "sdxl": (vae_check.SDXL_COLOURS, LATENT_FACTOR / 0.13025)}


def photos(count: int = 3) -> list[torch.Tensor]:
    return [to_tensor(draw_photo(*COLOURS[i % 3], shift=20 * i).resize((256, 256))) for i in range(count)]


def latents_of(pictures: list[torch.Tensor], kind: str) -> list[torch.Tensor]:
    """Latents as the VAE gives them: the colours, detail that is in no colour, noise; scaled, SDXL's are 1.4 as large."""
    factors, scale = FACTORS[kind]
    matrix, numbers = torch.tensor(factors).T, torch.Generator().manual_seed(0)
    unseen = torch.linalg.svd(matrix).Vh[3]
    latents = []
    for picture in pictures:
        colours = F.avg_pool2d(picture, 8).flatten(1)
        detail = unseen[:, None] * torch.randn(colours.shape[1], generator=numbers)
        drawn = torch.linalg.pinv(matrix) @ colours + detail + 0.25 * torch.randn((4, colours.shape[1]), generator=numbers)
        latents.append(drawn.view(4, 32, 32) * scale / LATENT_FACTOR)
    return latents


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("kind", "named"), [("sd15", False), ("sdxl", True)])
def test_sdxls_latents_are_known(kind, named, count):
    pictures = photos(count)
    assert vae_check.is_sdxl_vae(pictures, latents_of(pictures, kind)) is named


@pytest.mark.parametrize("opponent", range(3))
def test_brightness_and_both_colours_must_fit(opponent):
    """Latents that are SDXL's but for one of them, which is turned round: those of no VAE."""
    turned = torch.ones(3)
    turned[opponent] = -1
    opponents = torch.tensor(vae_check.OPPONENTS)
    matrix = torch.linalg.inv(opponents) @ torch.diag(turned) @ opponents
    pictures = photos()
    other = [torch.einsum("ij,jhw->ihw", matrix, picture) for picture in pictures]
    assert not vae_check.is_sdxl_vae(pictures, latents_of(other, "sdxl"))
    assert vae_check.is_sdxl_vae(other, latents_of(other, "sdxl"))


@pytest.mark.parametrize("contrast", [0.3, 0.6, 1.5])
def test_the_contrast_of_the_photos_decides_nothing(contrast):
    pictures = [(picture * contrast).clamp(-1, 1) for picture in photos()]
    assert not vae_check.is_sdxl_vae(pictures, latents_of(pictures, "sd15"))
    assert vae_check.is_sdxl_vae(pictures, latents_of(pictures, "sdxl"))


def test_single_coloured_grey_and_tiny_photos_say_nothing():
    flat = [torch.full((3, 256, 256), 0.3)]
    grey = [picture.mean(dim=0, keepdim=True).expand(3, -1, -1) for picture in photos()]
    for pictures in (flat, grey):
        assert not vae_check.is_sdxl_vae(pictures, latents_of(pictures, "sdxl"))
    (whole,) = photos(1)
    tiny, latents = whole[:, :64, :64], latents_of([whole], "sdxl")[0][:, :8, :8]
    assert not vae_check.is_sdxl_vae([tiny], [latents])


def test_the_standin_vae_is_not_sdxls(small_base):
    vae = BaseModel(small_base).vae()
    pictures = photos()
    with torch.no_grad():
        means = [vae.encode(picture[None]).latent_dist.mean[0] for picture in pictures]
    assert not vae_check.is_sdxl_vae(pictures, means)


def test_a_run_warns_once_and_goes_on(make_run, class_dataset, monkeypatch):
    monkeypatch.setattr("trainer.data.concepts.looks_like_sdxl", lambda dataset, latents: True)
    run_dir = make_run(DREAMBOOTH.replace(steps=1, lr_warmup_steps=0, hold_out=1, validate_every=1), class_dataset=class_dataset)
    events = work_here(run_dir)
    (told,) = (sentence(event) for event in events if event["event"] == "warning")
    assert told.startswith("The VAE is SDXL's by what it makes of your photos")
    assert events[-1]["event"] == "done"
