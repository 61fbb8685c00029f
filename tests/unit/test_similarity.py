"""What EvaluateSubject measures, against the definitions computed from scratch, a pair at a time."""

import math
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
import torch

from tests.pack import load
from trainer.dataset.photos import Dataset, Photo
from trainer.run.evaluations import append_evaluation, latest_by_step, measured_with, read_evaluations, step_to_use

similarity = load("nodes.similarity")
chart = load("nodes.page.evaluation_chart")

SEEDS = range(5)


def vectors(seed: int, count: int, width: int = 24) -> np.ndarray:
    """Vectors of different lengths that have something in common, as those of an encoder."""
    numbers = np.random.default_rng(seed)
    return numbers.normal(size=(count, width)) * numbers.uniform(0.1, 9, (count, 1)) + numbers.normal(size=width)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values).float()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_numbers_are_those_of_the_definitions(seed):
    pictures, photos, subjects = vectors(seed, 7), vectors(seed + 100, 4), vectors(seed + 200, 4)
    nearest = [max(cosine(p, q) for q in photos) for p in pictures]
    threshold = sorted(nearest)[3] - 1e-4  # four of seven are nearer
    found = similarity.score(tensor(pictures), tensor(photos), tensor(subjects), threshold)
    assert found.likeness == pytest.approx(mean(cosine(p, q) for p in pictures for q in subjects), abs=1e-5)
    assert found.copying == pytest.approx(max(nearest), abs=1e-5)
    assert found.copied == pytest.approx(4 / 7)
    assert found.variety == pytest.approx(1 - mean(cosine(p, q) for p, q in combinations(pictures, 2)), abs=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_photos_are_measured_against_the_other_photos(seed):
    photos, subjects = vectors(seed, 5), vectors(seed + 100, 5)
    pairs = [cosine(p, q) for p, q in combinations(photos, 2)]
    found = similarity.score_photos(tensor(photos), tensor(subjects), max(pairs) - 1e-4)
    assert found.likeness == pytest.approx(mean(cosine(photos[i], subjects[j]) for i, j in permutations(range(5), 2)), abs=1e-5)
    assert found.variety == pytest.approx(1 - mean(pairs), abs=1e-5)
    assert found.copying == pytest.approx(max(pairs), abs=1e-5)
    assert found.copied == pytest.approx(2 / 5)  # the two that are nearest to each other


@pytest.mark.parametrize("seed", SEEDS)
def test_drift_and_fidelity_are_those_of_the_definitions(seed):
    before, after, prompt = vectors(seed, 6), vectors(seed + 100, 6), vectors(seed + 200, 1)
    pairs = mean(cosine(p, q) for p, q in zip(before, after, strict=True))
    assert similarity.drift(tensor(before), tensor(after)) == pytest.approx(1 - pairs, abs=1e-5)
    assert similarity.fidelity(tensor(after), tensor(prompt)) == pytest.approx(
        mean(cosine(p, prompt[0]) for p in after), abs=1e-5
    )


def test_a_copy_is_found_at_any_brightness_of_its_vector():
    photos = vectors(0, 3)
    pictures = np.concatenate([vectors(1, 3), 5 * photos[1:2]])
    found = similarity.score(tensor(pictures), tensor(photos), tensor(photos), 0.999)
    assert found.copying == pytest.approx(1, abs=1e-6)
    assert found.copied == 0.25


def test_what_needs_two_pictures_is_no_number_for_one():
    one = tensor(vectors(0, 1))
    assert math.isnan(similarity.score(one, *[tensor(vectors(1, 2))] * 2, 0.9).variety)
    assert all(map(math.isnan, vars(similarity.score_photos(one, one, 0.9)).values()))


def test_each_step_has_its_own_batch_or_all_pictures_where_there_is_not_one_for_each():
    five = torch.arange(5.0)[:, None]
    assert [part.flatten().tolist() for part in similarity.by_step(five, [2, 3], 2)] == [[0, 1], [2, 3, 4]]
    for sizes, steps in (([5], 2), ([5], 1), ([2, 3], 1)):
        assert [part.tolist() for part in similarity.by_step(five, sizes, steps)] == [five.tolist()] * steps


def test_what_the_photos_have_among_themselves_is_no_copying():
    def best(*copied: float, photos: float | None) -> int:
        of_photos = {} if photos is None else {"photos_copied": photos}
        return step_to_use([{"step": n, "likeness": n / 10, "copied": c, **of_photos} for n, c in enumerate(copied)])

    assert best(0.0, 0.125, 0.5, photos=None) == 0
    assert best(0.0, 0.125, 0.5, photos=0.25) == 1
    assert best(0.0, 0.125, 0.5, photos=0.5) == 2
    assert best(0.5, 0.25, 0.5, photos=0.0) == 1


def test_numbers_are_measured_with_the_encoder_the_photos_their_masks_and_the_threshold():
    photos = [Photo(path=f"/{n}.png", sha256=str(n), width=64, height=64, caption="", mask_sha256="m") for n in range(2)]
    plain, masked = Dataset(photos=tuple(photos), resolution=64), replace(photos[0], mask="/m.png")
    captioned = plain.with_captions(["a toy", "a dog"], token="mysks")
    weighted = replace(plain, photos=(masked, photos[1]), mask_weight=0.0)
    same = measured_with("dinov2 ab", plain, 0.95)
    assert same.startswith("dinov2-2-photos-")
    assert measured_with("dinov2 ab", replace(captioned, photos=captioned.photos[::-1]), 0.95) == same
    others = [("dinov2 cd", plain, 0.95), ("dinov2 ab", plain.subset([0]), 0.95), ("dinov2 ab", weighted, 0.95)]
    others += [("dinov2 ab", plain, 0.9), ("dinov2 ab", replace(plain, resolution=72), 0.95)]
    assert len({same, *(measured_with(*other) for other in others)}) == 6


def test_only_what_was_measured_with_the_same_is_compared(tmp_path):
    def entry(step: int, likeness: float, encoder: str) -> dict:
        return {"step": step, "likeness": likeness, "copied": 0.0, **({"measured_with": encoder} if encoder else {})}

    by_dino = [entry(200, 0.45, "dinov2"), entry(400, 0.6, "dinov2")]
    for added in (entry(200, 0.9, ""), *by_dino, entry(200, 0.81, "clip")):
        known = append_evaluation(tmp_path / "evaluations.jsonl", added)
    assert latest_by_step(known) == [entry(200, 0.81, "clip")]
    assert latest_by_step(known[:-1]) == by_dino
    assert latest_by_step(known[:1]) == known[:1]  # of a version that kept no encoder
    (tmp_path / "evaluations.jsonl").write_text(f'{{"step": 1, "measured_with": "{"x" * 300}"}}\n{{"step": 2, "other": "x"}}\n')
    assert read_evaluations(tmp_path / "evaluations.jsonl") == []


def test_the_step_to_use_is_the_likest_that_copies_least():
    def entry(step: int, likeness: float, copied: float) -> dict:
        return {"step": step, "likeness": likeness, "copied": copied}

    entries = [entry(300, 0.9, 0.5), entry(100, 0.5, 0.0), entry(200, 0.6, 0.0), entry(100, 0.7, 0.0), entry(400, 0.7, 0.0)]
    newest = latest_by_step([*entries, {"step": 500}])
    assert [e["step"] for e in newest] == [100, 200, 300, 400]
    assert newest[0]["likeness"] == 0.7
    assert step_to_use(newest) == 100


def test_bars_are_as_long_as_the_numbers():
    low, high = similarity.Scores(0.3, 0.5, 0.0, math.nan), similarity.Scores(0.5, 1.0, 0.5, 0.1)
    image = chart.draw_bars({"dataset": high, "pictures": low}, {"class_drift": math.nan})

    def length(row: int) -> int:
        y = chart.MARGIN + chart.ROW * row + chart.ROW // 2
        colours = [tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in chart.COLOURS.values()]
        return sum(image.getpixel((x, y)) in colours for x in range(image.width))

    rows = (image.height - 2 * chart.MARGIN) // chart.ROW
    assert rows == 7  # four of the photos, three of the pictures, and none that is no number
    whole = length(2)  # copying of the photos: 1
    assert [round(length(row) / whole, 1) for row in range(7)] == [0.5, 0.3, 1.0, 0.5, 0.5, 0.0, 0.1]


def test_steps_are_drawn_above_the_losses():
    entries = [{"step": s, "likeness": 0.5 + s / 1000, "copying": 0.9, "variety": 0.3} for s in (100, 200, 300)]
    alone = chart.curves_over_steps(entries, [])
    both = chart.curves_over_steps(entries, [{"step": 0, "held_out": 0.3}, {"step": 300, "held_out": 0.2}])
    assert both.size == (alone.width, 2 * alone.height)
    assert both.crop((0, 0, *alone.size)).tobytes() == alone.tobytes()
