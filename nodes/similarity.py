"""How alike pictures are, by the vectors that an image encoder makes of them: plain functions of tensors.

A set of pictures is (N, D): a vector each, of any length. docs/evaluate.md says where the definitions come from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Scores:
    """What is measured of a set of pictures against the photos; NaN where there is nothing to measure."""

    likeness: float
    """Mean cosine of all pairs of a picture and a photo: DINO or CLIP-I of Ruiz et al. 2022, by the encoder.

    Of photos with masks, it is that of the subject alone.
    """
    copying: float
    """The largest of these cosines: of the picture that is nearest to a photo."""
    copied: float
    """Share of the pictures whose nearest photo is at least as near as the threshold."""
    variety: float
    """1 - mean cosine of all pairs of two pictures."""


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """Return (N, M) fp64: the cosine of each of N vectors with each of M."""
    return F.normalize(one.double(), dim=1) @ F.normalize(other.double(), dim=1).T


def by_step(vectors: Tensor, sizes: Sequence[int], steps: int) -> list[Tensor]:
    """Return the vectors of each step's pictures: those of its batch, or all of them where there is not a batch for each."""
    return list(vectors.split(list(sizes))) if len(sizes) == steps else [vectors] * steps


def score(pictures: Tensor, photos: Tensor, subjects: Tensor, threshold: float) -> Scores:
    """Return what is measured of pictures (N, D) against photos (M, D), and against these without what is around the subject."""
    nearest = cosines(pictures, photos).max(dim=1).values
    return Scores(
        likeness=float(cosines(pictures, subjects).mean()),
        copying=float(nearest.max()),
        copied=float((nearest >= threshold).double().mean()),
        variety=1 - _mean_of_pairs(pictures, pictures),
    )


def score_photos(photos: Tensor, subjects: Tensor, threshold: float) -> Scores:
    """Return the same of the photos among themselves, each measured against the others: what real photos reach."""
    if len(photos) < 2:
        return Scores(math.nan, math.nan, math.nan, math.nan)
    nearest = cosines(photos, photos).fill_diagonal_(-1).max(dim=1).values
    return Scores(
        likeness=_mean_of_pairs(photos, subjects),
        copying=float(nearest.max()),
        copied=float((nearest >= threshold).double().mean()),
        variety=1 - _mean_of_pairs(photos, photos),
    )


def drift(before: Tensor, after: Tensor) -> float:
    """Return 1 - mean cosine of picture i before (N, D) with picture i after (N, D), made from the same seed."""
    return 1 - float(F.cosine_similarity(before.double(), after.double(), dim=1).mean())


def fidelity(pictures: Tensor, prompt: Tensor) -> float:
    """Return the mean cosine of pictures (N, D) with the vector of their prompt (1, D): CLIP-T of Ruiz et al. 2022."""
    return float(cosines(pictures, prompt).mean())


def _mean_of_pairs(pictures: Tensor, again: Tensor) -> float:
    """Return the mean cosine of picture i (N, D) with `again` j (N, D), for all i != j; NaN of one picture."""
    count = len(pictures)
    if count < 2:
        return math.nan
    found = cosines(pictures, again)
    return float((found.sum() - found.diagonal().sum()) / (count * (count - 1)))
