"""Of several captions of a photo, one is drawn each time it is seen: each as often as the others, the same after resuming."""

from collections import Counter

import torch
from diffusers import DDPMScheduler

from trainer.data.batches import BatchSource
from trainer.data.caption_cache import distinct_captions
from trainer.data.concepts import Concept
from trainer.data.latent_cache import LatentCache
from trainer.dataset.photos import Dataset, Photo

PHOTOS = (
    Photo(path="/a.png", sha256="a", width=64, height=64, caption="mysks one", alternatives=("mysks two", "mysks three")),
    Photo(path="/b.png", sha256="b", width=64, height=64, caption="mysks two"),
)


def concept(dataset: Dataset, texts: list[str]) -> Concept:
    """Latents of zeros: which captions go with which photo is all that is looked at."""
    latents = LatentCache((torch.zeros(2, 1, 2, 4, 8, 8),), ((0, 1),), torch.tensor([0, 1]), torch.device("cpu"))
    source = BatchSource(concept="instance", buckets=((0, 1),), latent_shapes=((4, 8, 8),))
    return Concept(latents, tuple(tuple(map(texts.index, photo.captions)) for photo in dataset.photos), source)


def test_each_alternative_is_drawn_as_often_as_the_others_and_always_the_same():
    dataset = Dataset(photos=PHOTOS, resolution=64)
    texts = distinct_captions([dataset])
    assert texts == ["", "mysks one", "mysks three", "mysks two"]
    made, schedule = concept(dataset, texts), DDPMScheduler()
    seen = Counter()
    for index in range(300):
        captions = made.training_batch(0, index, 2, schedule).captions
        assert captions == made.training_batch(0, index, 2, schedule).captions
        seen.update(captions)
    two_of_b = 300
    assert 60 < seen[texts.index("mysks one")] < 140
    assert 60 < seen[texts.index("mysks three")] < 140
    assert 60 < seen[texts.index("mysks two")] - two_of_b < 140


def test_alternatives_decide_the_key_and_one_caption_alone_does_not_change_it():
    def key(*photos: Photo) -> list:
        return Dataset(photos=photos, resolution=64).deciding()["photos"]

    assert key(PHOTOS[1]) == [("b", "mysks two", 1)]
    assert key(PHOTOS[0]) == [("a", "mysks one", "mysks two", "mysks three", 1)]
