from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainer.data.batches import BatchSource, batch_photos, plan_batch

SOURCE = BatchSource(concept="instance", buckets=((0, 1, 2, 3),), latent_shapes=((4, 8, 8),))
BUCKETS = BatchSource(concept="instance", buckets=((0, 2, 2, 4), (1, 3)), latent_shapes=((4, 8, 8), (4, 4, 16)))


def same(one, two) -> bool:
    return all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True))


def test_a_step_is_a_function_of_seed_and_step_alone():
    torch.manual_seed(1)
    _, first = plan_batch(0, 5, 3, SOURCE)
    torch.manual_seed(2)
    _, again = plan_batch(0, 5, 3, SOURCE)
    assert same(first, again)
    for _, other in (
        plan_batch(1, 5, 3, SOURCE),
        plan_batch(0, 6, 3, SOURCE),
        plan_batch(0, 5, 3, replace(SOURCE, concept="class")),
    ):
        assert not torch.equal(first.noise, other.noise)
        assert not torch.equal(first.posterior_noise, other.posterior_noise)


def test_every_photo_is_seen_once_an_epoch_in_a_new_order():
    source = replace(SOURCE, buckets=((0, 1, 2, 3, 4),))
    seen = torch.tensor([batch_photos(0, step, 3, source)[1] for step in range(10)]).view(-1, 5)  # 6 epochs of 5 photos
    assert all(sorted(epoch.tolist()) == [0, 1, 2, 3, 4] for epoch in seen)
    assert len({tuple(epoch.tolist()) for epoch in seen}) > 1


def test_timesteps_cover_the_whole_schedule():
    steps = torch.cat([plan_batch(0, i, 8, SOURCE)[1].timesteps for i in range(200)])
    assert steps.min() >= 0
    assert steps.max() < 1000
    assert len(Counter((steps // 100).tolist())) == 10


@st.composite
def bucket_mixes(draw) -> tuple[tuple[int, ...], ...]:
    """Buckets of any sizes, whose photos are repeated up to four times."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    photos = iter(range(sum(sizes)))
    return tuple(tuple(p for p in (next(photos) for _ in range(size)) for _ in range(draw(st.integers(1, 4)))) for size in sizes)


@settings(max_examples=60)
@example(buckets=((0, 0), (*range(1, 6), 6, 6, 6, 6, 7, 7, 7, 7), (8,), (9, 9, 9)), batch_size=1, seed=1)
@given(buckets=bucket_mixes(), batch_size=st.integers(1, 9), seed=st.integers(0, 3))
def test_a_photo_is_seen_as_often_as_it_is_repeated_whatever_the_buckets(buckets, batch_size, seed):
    """Counted over a round, of as many batches as there are photos, and on the way to its end."""
    source = BatchSource(concept="instance", buckets=buckets, latent_shapes=((4, 8, 8),) * len(buckets))
    repeats = Counter(photo for photos in buckets for photo in photos)
    total = repeats.total()
    seen, of_bucket = Counter(), Counter()
    for index in range(2 * total):
        bucket, photos = batch_photos(seed, index, batch_size, source)
        assert len(photos) == batch_size
        assert set(photos) <= set(buckets[bucket])
        seen.update(photos)
        of_bucket[bucket] += 1
        for number, members in enumerate(buckets):
            # At any time of the round each bucket is less than a batch from its share; their sum is the number of batches.
            share = len(members) / total
            assert abs(of_bucket[number] - (index + 1) * share) <= (1 - share) + share * (len(buckets) - 1) + 1e-9
        if index + 1 in (total, 2 * total):
            assert seen == {photo: batch_size * count * (index + 1) // total for photo, count in repeats.items()}


def test_the_shapes_are_the_buckets():
    for step in range(6):
        bucket, plan = plan_batch(0, step, 2, BUCKETS)
        assert plan.noise.shape == plan.posterior_noise.shape == (2, *BUCKETS.latent_shapes[bucket])


def test_parts_of_a_plan_are_the_plan():
    _, plan = plan_batch(0, 0, 4, SOURCE)
    one, two = plan.shard(0, 2), plan.shard(1, 2)
    assert all(
        torch.equal(torch.cat([a, b]), whole)
        for a, b, whole in zip(vars(one).values(), vars(two).values(), vars(plan).values(), strict=True)
    )


def test_views_and_caption_dropout_are_drawn_and_leave_the_rest_alone():
    _, plain = plan_batch(0, 0, 4, SOURCE)
    plans = [plan_batch(0, step, 4, replace(SOURCE, views=3, caption_dropout=0.25))[1] for step in range(200)]
    assert set(torch.cat([p.views for p in plans]).tolist()) == {0, 1, 2}
    assert torch.cat([p.keep_caption for p in plans]).float().mean().item() == pytest.approx(0.75, abs=0.05)
    assert torch.equal(plans[0].noise, plain.noise)
    assert torch.equal(plans[0].timesteps, plain.timesteps)
    assert plain.keep_caption.all()


def test_offset_noise_is_constant_over_the_picture():
    _, plain = plan_batch(0, 0, 4, SOURCE)
    _, offset = plan_batch(0, 0, 4, replace(SOURCE, noise_offset=0.1))
    added = offset.noise - plain.noise
    assert torch.allclose(added, added[:, :, :1, :1].expand_as(added), atol=1e-6)
    assert 0.01 < added.std() < 0.3
