"""How good the result is: what a model that was taught a drawn world draws, before and after it has learned a subject.

The judge says what a picture shows (demo/world/judge.py). Every figure is printed, also where the test passes.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from demo.world import mission, subject
from demo.world.drawing import decode, draw, encode, sample_latents
from demo.world.judge import Verdict, decoded, judge
from demo.world.mission import SUNSET, WATERCOLOR, Figures, Wanted, change, count, of_thing
from demo.world.scenes import COLOURS, PLACES, THINGS, Scene, draw_scene
from tests.pack import load
from trainer.dataset.captions import caption_with_token
from trainer.dataset.folder import read_folder
from trainer.dataset.photos import Dataset
from trainer.models.sd15 import LATENT_FACTOR, BaseModel, load_tokenizer, noise_schedule
from trainer.run.settings import Settings

from .runs import DREAMBOOTH, INVERSION, TOKENIZER, work_here, write_run

similarity = load("nodes.similarity")
LEARNING = DREAMBOOTH.replace(
    steps=240, batch_size=4, learning_rate=5e-5, lr_scheduler="constant", lr_warmup_steps=0, precision="bf16"
)
KEPT = (
    of_thing("plush toy", "in the snow"),
    of_thing("plush toy", "in a city at night", colour="red"),
    of_thing("plush toy", "on a beach", WATERCOLOR, colour="pink"),
    of_thing("dog", "on a beach"),
    of_thing("car", "in the snow", colour="blue"),
    of_thing("fish", "under water", SUNSET, colour="yellow"),
)
"""What must stay: the class, with and without a colour, and other things."""
SEEDS = (1,)
CLASS_PROMPT = f"a photo of a {subject.CLASS_WORD}"


@dataclass(frozen=True)
class Learned:
    """What a trained model draws of what was asked for."""

    file: Path
    new: Figures
    """The subject in places and styles that no photo had, from each of SEEDS."""
    kept: Figures
    """The class and other things."""
    changed: float
    """How far the pictures of these are from the base's."""

    def __str__(self) -> str:
        new, kept = self.new, self.kept
        return (
            f"subject {new.thing}, place {new.place}, style {new.style}, all {new.whole} of {new.pictures}, likeness "
            f"{new.likeness}; class and others {kept.thing} of {kept.pictures}, taken for the subject {kept.taken}, changed by "
            f"{self.changed}"
        )


def photos_in(folder: Path, places: Sequence[str] = subject.PHOTO_PLACES) -> Dataset:
    """Return the piglet's photos at 128 pixels, with captions that name the place."""
    subject.save_photos(folder, places=places)
    read, _ = read_folder(folder, 128)
    captions = [caption_with_token(photo.caption, subject.TOKEN, subject.CLASS_WORD) for photo in read.photos]
    return read.with_captions(captions, token=subject.TOKEN, class_word=subject.CLASS_WORD)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Dataset:
    return photos_in(tmp_path_factory.mktemp("piglet"))


@pytest.fixture(scope="module")
def kept_before(taught_base) -> list[Image.Image]:
    """Return the base's own pictures of what must stay."""
    return draw(taught_base, [of.prompt for of in KEPT])


@pytest.fixture(scope="module")
def learn(taught_base, photos, kept_before, tmp_path_factory) -> Callable[..., Learned]:
    """Train on the taught base and look at what comes of it."""
    folder = tmp_path_factory.mktemp("learned")

    def learned(name: str, settings: Settings, dataset: Dataset = photos, class_dataset: Dataset | None = None) -> Learned:
        run_dir = write_run(folder / name, taught_base, settings, dataset, class_dataset)
        work_here(run_dir)
        run = run_dir.load_run()
        file = Path(run.export_path)
        drawn = {"checkpoint": file}
        if run.result_kind != "checkpoint":
            drawn = {"checkpoint": taught_base, run.result_kind: file}
        new = [picture for seed in SEEDS for picture in draw(prompts=[of.prompt for of in mission.NEW], seed=seed, **drawn)]
        kept = draw(prompts=[of.prompt for of in KEPT], **drawn)
        figures = count(mission.NEW * len(SEEDS), judge(new)), count(KEPT, judge(kept))
        result = Learned(file, *figures, change(kept_before, kept))
        print(f"\n{name}: {result}")
        return result

    return learned


@pytest.fixture(scope="module")
def captioned(learn) -> Learned:
    """The U-Net, trained under captions that name the place."""
    return learn("captions with the place", LEARNING)


def shares(wanted: tuple[Wanted, ...], verdicts: list[Verdict]) -> dict[str, float]:
    figures = count(wanted, verdicts)
    return {aspect: getattr(figures, aspect) / figures.pictures for aspect in ("thing", "place", "style")}


def test_the_judges_formula_is_what_the_vae_does(taught_base):
    """So that the judge may compare what a model draws with what is drawn by hand."""
    photo = subject.photos()[0][0].resize((128, 128), Image.Resampling.BOX)
    vae = BaseModel(taught_base).vae()
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        through = vae.decode(vae.encode(pixels).latent_dist.mean).sample[0].permute(1, 2, 0)
    picture = through.add(1).mul(127.5).clamp(0, 255).round().byte().numpy().astype(int)
    difference = np.abs(picture - np.asarray(decoded(photo), int)).max()
    print(f"\nlargest difference: {difference} of 255")
    assert difference <= 4


@torch.no_grad()
def test_the_base_predicts_a_scene_best_under_its_own_caption(taught_base):
    """The taught weights are read as they were taught; what the base draws by them is a longer test."""
    r, base = random.Random(3), BaseModel(taught_base)
    scenes = [Scene(thing, colour, place, mission.PHOTO) for thing, colour, place in zip(THINGS, COLOURS, PLACES, strict=True)]
    drawn = [decoded(draw_scene(r, scene)) for scene in scenes]
    pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2) / 127.5 - 1
    latents = base.vae().encode(pixels).latent_dist.mean * LATENT_FACTOR
    states, unet, schedule = encode(base, [scene.caption for scene in scenes]), base.unet(), noise_schedule()

    def losses(timestep: int, texts: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(timestep))
        noisy = schedule.add_noise(latents, noise, torch.tensor([timestep]))
        return (unet(noisy, timestep, texts).sample - noise).square().mean(dim=(1, 2, 3))

    own, other = (sum(losses(timestep, texts) for timestep in (600, 800)) for texts in (states, states.roll(1, dims=0)))
    print(f"\nloss under another scene's caption, of that under one's own: {(other / own).tolist()}")
    assert (other > 2 * own).all()


@pytest.mark.nightly
def test_the_base_draws_what_it_was_taught(taught_base, kept_before):
    """The limit of everything below: what the base itself draws wrong, nobody can blame on training."""
    wanted = tuple(
        of_thing(thing, place, style, colour)
        for thing, colour, place, style in (
            ("plush toy", "red", "in the snow", mission.PHOTO),
            ("car", "blue", "on a beach", WATERCOLOR),
            ("dog", "brown", "in space", mission.PENCIL),
            ("boat", "green", "in a city at night", SUNSET),
            ("house", "pink", "under water", mission.PHOTO),
            ("cup", "white", "in a room", mission.PHOTO),
            ("fish", "yellow", "in a desert", mission.PHOTO),
            ("ball", "black", "on a meadow", WATERCOLOR),
        )
    )
    verdicts = judge(draw(taught_base, [of.prompt for of in wanted])) + judge(kept_before)
    right = shares(wanted + KEPT, verdicts)
    likeness = np.mean([verdict.likeness for verdict in verdicts])
    print(f"\nbase: {', '.join(f'{aspect} {share:.0%}' for aspect, share in right.items())}; likeness {likeness:.3f}")
    assert right["thing"] >= 0.75
    assert min(right["place"], right["style"]) >= 0.85


@pytest.mark.nightly
def test_the_subject_is_right_in_places_and_styles_that_no_photo_had(captioned):
    """In two of three at least: the base blurs what it draws at 16 x 16 points, and the judge goes by points."""
    new = captioned.new
    assert new.thing >= new.pictures * 2 / 3
    assert min(new.place, new.style) >= 5 / 6 * new.pictures


@pytest.mark.nightly
def test_captions_that_name_the_place_keep_pictures_nearer_to_the_truth_than_one_for_all(learn, tmp_path):
    """With all photos in one room: 0.94 against 0.88. What all captions share is learned as the subject, so the room is, too.

    The subject is right in 3 of 6 against 5: it is bound to the room's name in part. With photos in four places both are 6 of 6.
    """
    at_home = photos_in(tmp_path, ["in a room"] * 6)
    one = f"a photo of {subject.TOKEN} {subject.CLASS_WORD}"
    named = learn("photos in a room, and captions that say so", LEARNING, at_home)
    same = learn("the same photos, one caption for all", LEARNING, at_home.with_captions([one] * 6, token=subject.TOKEN))
    assert named.new.likeness > same.new.likeness + 0.03
    assert named.new.style >= same.new.style


@pytest.fixture(scope="module")
def beside(learn, taught_base, tmp_path_factory) -> Learned:
    """The U-Net, trained beside eight pictures of the class."""
    folder = tmp_path_factory.mktemp("class")
    for seed in range(8):
        draw(taught_base, [CLASS_PROMPT], seed=100 + seed)[0].save(folder / f"{seed}.png")
    class_pictures, _ = read_folder(folder, 128)
    return learn("beside class pictures", LEARNING, class_dataset=class_pictures.with_captions([CLASS_PROMPT] * 8))


@pytest.mark.nightly
def test_class_pictures_keep_the_class(captioned, beside):
    """Prior preservation: the class and other things stay what they are, and the subject's looks stay with its token."""
    assert beside.kept.taken < captioned.kept.taken
    assert beside.kept.thing > captioned.kept.thing
    assert beside.new.thing >= captioned.new.thing
    assert min(beside.new.place, beside.new.style) >= 5 / 6 * beside.new.pictures


FIRST_TWO = tuple(
    of_thing(subject.CLASS_WORD, place, style, colour)
    for colour in ("red", "blue")
    for place, style in (("in the snow", mission.PHOTO), ("on a beach", WATERCOLOR), ("in a room", mission.PHOTO))
)
"""Two of the class that the base was taught: the piglet is the third."""


@pytest.mark.nightly
def test_a_teacher_keeps_two_that_the_base_knows_of_the_class_as_class_pictures_do(taught_base, captioned, beside, learn):
    """By the correlation of their pictures with the base's, without any picture of the class, and the third is learned.

    With prior_loss_weight 3: what a teacher says is nearer to the model than a picture is. With 1 it is half as far: 0.895 where
    nothing keeps 0.866 and class pictures 0.924.
    """
    taught = learn("beside a teacher", LEARNING.replace(prior="teacher", class_prompt=CLASS_PROMPT, prior_loss_weight=3.0))
    before = draw(taught_base, [of.prompt for of in FIRST_TWO])
    kept, taken = {}, {}
    for name, run in {"nothing": captioned, "class pictures": beside, "a teacher": taught}.items():
        after = draw(run.file, [of.prompt for of in FIRST_TWO])
        kept[name] = float(np.mean([correlation(*pair) for pair in zip(before, after, strict=True)]))
        taken[name] = mission.figures(FIRST_TWO, after).taken
        print(f"\nbeside {name}: correlation with the base's {kept[name]:.3f}, taken for the third {taken[name]} of 6")
    assert kept["a teacher"] >= kept["class pictures"] - 0.01 > kept["nothing"]
    assert taken["a teacher"] < taken["nothing"]
    assert taught.new.whole >= taught.new.pictures * 2 / 3


def correlation(one: Image.Image, other: Image.Image) -> float:
    """Return Pearson's correlation of two pictures, over all pixels and colours."""
    return float(np.corrcoef(np.asarray(one, float).ravel(), np.asarray(other, float).ravel())[0, 1])


@pytest.mark.nightly
def test_the_token_means_the_subject_with_its_class_and_alone(captioned):
    alone = tuple(mission.of_subject(of.place, of.style, words=subject.TOKEN) for of in mission.NEW)
    figures = mission.figures(alone, draw(captioned.file, [of.prompt for of in alone]))
    print(f"\nthe token alone: subject {figures.thing}, place {figures.place}, style {figures.style} of {figures.pictures}")
    assert figures.thing >= figures.pictures / 3
    assert min(figures.place, figures.style) >= 5 / 6 * figures.pictures


def drawn_with_weight(file: Path, wanted: tuple[Wanted, ...], words: str, weight: float) -> list[Image.Image]:
    """Draw as ComfyUI does with weighted words: their states are moved away from those of the empty prompt, or towards them."""
    base = BaseModel(file)
    tokenizer = load_tokenizer(str(TOKENIZER))
    empty, *states = encode(base, ["", *(of.prompt for of in wanted)])
    for of, state in zip(wanted, states, strict=True):
        before, _ = of.prompt.split(words)
        first, count = (len(tokenizer(text).input_ids) - 1 for text in (before.strip(), words))  # -1: the end; after the start
        weighted = slice(first, first + count - 1)
        state[weighted] = empty[weighted] + weight * (state[weighted] - empty[weighted])
    return decode(base.vae(), sample_latents(base.unet(), torch.stack(states), empty[None], SEEDS[0]))


@pytest.mark.nightly
@pytest.mark.parametrize("weight", [0.8, 1.2])
def test_a_weighted_token_still_means_the_subject(captioned, weight):
    """As in (mysks plush toy:1.2)."""
    figures = mission.figures(mission.NEW, drawn_with_weight(captioned.file, mission.NEW, mission.WORDS, weight))
    print(f"\nweight {weight}: subject {figures.thing}, place {figures.place}, style {figures.style} of {figures.pictures}")
    assert figures.thing >= figures.pictures / 3
    assert min(figures.place, figures.style) >= 5 / 6 * figures.pictures


@pytest.mark.nightly
def test_early_stopping_exports_a_step_that_generalises_better_than_the_last_of_a_long_run(learn):
    long = LEARNING.replace(steps=960, hold_out=2, validate_every=60)
    last = learn("the last of 960 steps", long)
    best = learn("the step of the lowest held-out loss", long.replace(early_stopping="export_best"))
    assert best.kept.thing >= last.kept.thing
    assert best.changed < last.changed
    assert best.new.whole >= last.new.whole


@pytest.mark.nightly
def test_mirrored_and_moved_views_do_not_cost_the_subject(captioned, learn, photos):
    """Six photos that are seen from a few more sides each time."""
    augmented = learn("augmented", LEARNING, replace(photos, flip=True, view_jitter=0.2))
    assert augmented.new.thing >= captioned.new.thing - 1
    assert augmented.kept.thing >= captioned.kept.thing


STRONG = ("in a city at night", "under water")
"""Where the subject was photographed twice, and what no caption says."""


def two_masked_photos(folder: Path) -> Dataset:
    """Return two photos of the subject under one caption that names no place, each with a mask."""
    for number, place in enumerate(STRONG):
        seed, scene = 700 + number, Scene(subject.CLASS_WORD, "red", place, mission.PHOTO)
        photo, empty = subject.subject_scene(place, seed=seed), draw_scene(random.Random(seed), scene, lambda *_: None)
        photo.save(folder / f"{number}.png")
        mask = ImageChops.difference(photo, empty).convert("L").point(lambda value: 255 * (value > 0))
        mask.save(folder / f"{number}-masklabel.png")
    read, _ = read_folder(folder, 128, mask_weight=0.0)
    return read.with_captions([f"a photo of {mission.WORDS}"] * 2, token=subject.TOKEN, class_word=subject.CLASS_WORD)


def edges(picture: Image.Image) -> np.ndarray:
    """Return the outermost two of the 16 x 16 points of a picture, where the background is; black and white are 1 apart."""
    points = np.asarray(picture.resize((16, 16), Image.Resampling.BOX), float) / 255
    middle = np.zeros((16, 16), bool)
    middle[2:-2, 2:-2] = True
    return points[~middle]


def distance_from_backgrounds(file: Path) -> float:
    """Return how far the edges of six pictures, whose prompt names no place, are from those of the nearer photo."""
    photos = [edges(decoded(subject.subject_scene(place, seed=700 + number))) for number, place in enumerate(STRONG)]
    drawn = [edges(draw(file, [f"a photo of {mission.WORDS}"], seed=seed)[0]) for seed in range(1, 7)]
    return float(np.mean([min(np.sqrt(np.mean((one - photo) ** 2)) for photo in photos) for one in drawn]))


@pytest.fixture(scope="module")
def masked(tmp_path_factory) -> Dataset:
    return two_masked_photos(tmp_path_factory.mktemp("masked"))


@pytest.fixture(scope="module")
def without_masks(learn, masked) -> Learned:
    """The U-Net, trained on the two photos as they are."""
    return learn("two photos without masks", LEARNING.replace(steps=160), replace(masked, mask_weight=1.0))


@pytest.mark.nightly
def test_with_masks_the_subject_is_kept_and_the_backgrounds_of_its_photos_are_not(taught_base, learn, masked, without_masks):
    """Two photos on strong backgrounds. Without masks these come along wherever a prompt names no place.

    With mask_weight 0 nothing says what is there: the picture falls apart, unless the base says it. The default of the loader,
    0.1, learns the backgrounds, too, only later.
    """
    settings = LEARNING.replace(steps=160)
    runs = {
        "without masks": without_masks,
        "a tenth": learn("two photos, a tenth outside", settings, replace(masked, mask_weight=0.1)),
        "masks": learn("two photos with masks", settings, masked),
        "held": learn("two photos, the base outside", settings.replace(prior="teacher_outside_masks"), masked),
    }
    far = {name: distance_from_backgrounds(run.file) for name, run in runs.items()}
    far["base"] = distance_from_backgrounds(taught_base)
    print(f"\ndistance from the photos' backgrounds: {', '.join(f'{name} {value:.2f}' for name, value in far.items())}")
    assert far["without masks"] < far["a tenth"] < 0.15
    assert min(far["masks"], far["held"], far["base"]) > 3 * far["without masks"]
    new = {name: run.new for name, run in runs.items()}
    assert min(figures.thing for figures in new.values()) >= 4
    assert new["held"].whole >= new["without masks"].whole
    assert new["held"].likeness > new["masks"].likeness


@pytest.mark.nightly
def test_any_random_encoder_finds_what_is_trained_more_like_the_photos_than_the_base(taught_base, without_masks):
    """By EvaluateSubject's likeness, of pictures whose prompt leaves all but the subject open."""
    photos = [subject.subject_scene(place, seed=700 + number) for number, place in enumerate(STRONG)]
    prompt = f"a photo of {mission.WORDS}"
    drawn = [[draw(file, [prompt], seed=seed)[0] for seed in range(1, 5)] for file in (taught_base, without_masks.file)]
    for seed in range(3):
        encoder = random_encoder(seed)
        wanted = encoder(photos)
        base, trained = (similarity.score(encoder(pictures), wanted, wanted, 0.95).likeness for pictures in drawn)
        print(f"\nencoder {seed}: likeness of the base's pictures {base:.3f}, of those after training {trained:.3f}")
        assert trained > base + 0.05


def random_encoder(seed: int) -> Callable[[Sequence[Image.Image]], torch.Tensor]:
    """Return CLIP's image encoder, small and with random weights: pictures -> vectors (N, 32)."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, image_size=128, patch_size=16, projection_dim=32)).eval()

    @torch.no_grad()
    def encode(pictures: Sequence[Image.Image]) -> torch.Tensor:
        arrays = [np.asarray(picture.convert("RGB").resize((128, 128)), np.float32) for picture in pictures]
        return model(pixel_values=torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 127.5 - 1).image_embeds

    return encode


@pytest.mark.nightly
def test_a_lora_of_more_layers_learns_the_subject_better(learn):
    lora = LEARNING.replace(train="lora", learning_rate=1e-3)
    by_layers = {
        layers: learn(f"LoRA of {layers}", lora.replace(lora_layers=layers))
        for layers in ("attention", "attention_and_feed_forward")
    }
    attention, more = by_layers.values()
    assert more.new.likeness > attention.new.likeness
    assert more.new.thing >= attention.new.thing


@pytest.mark.nightly
def test_an_inversion_changes_nothing_but_what_its_token_means(learn):
    """150 steps move four vectors towards the subject's colours, and not to its shape: the judge knows it in no picture."""
    settings = INVERSION.replace(
        steps=150, batch_size=4, learning_rate=0.1, vectors=4, lr_scheduler="constant", lr_warmup_steps=0, precision="bf16"
    )
    inversion = learn("inversion", settings)
    assert inversion.changed == 0
    assert min(inversion.new.place, inversion.new.style) >= 5 / 6 * inversion.new.pictures
