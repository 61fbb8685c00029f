from collections import Counter
from dataclasses import replace

import pytest
import torch

from trainer.plan import Sampling, batch_photos, plan_step

SAMPLING = Sampling(concept="instance", buckets=((0, 1, 2, 3),), latent_shapes=((4, 8, 8),))
BUCKETS = Sampling(concept="instance", buckets=((0, 2, 2, 4), (1, 3)), latent_shapes=((4, 8, 8), (4, 4, 16)))


def same(one, two) -> bool:
    return all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True))


def test_a_step_is_a_function_of_seed_and_step_alone():
    torch.manual_seed(1)
    _, first = plan_step(0, 5, 3, SAMPLING)
    torch.manual_seed(2)
    _, again = plan_step(0, 5, 3, SAMPLING)
    assert same(first, again)
    for _, other in (
        plan_step(1, 5, 3, SAMPLING),
        plan_step(0, 6, 3, SAMPLING),
        plan_step(0, 5, 3, replace(SAMPLING, concept="class")),
    ):
        assert not torch.equal(first.noise, other.noise)
        assert not torch.equal(first.posterior_noise, other.posterior_noise)


def test_every_photo_is_seen_once_an_epoch_in_a_new_order():
    sampling = replace(SAMPLING, buckets=((0, 1, 2, 3, 4),))
    seen = torch.tensor([batch_photos(0, step, 3, sampling)[1] for step in range(10)]).view(-1, 5)  # 6 epochs of 5 photos
    assert all(sorted(epoch.tolist()) == [0, 1, 2, 3, 4] for epoch in seen)
    assert len({tuple(epoch.tolist()) for epoch in seen}) > 1


def test_timesteps_cover_the_whole_schedule():
    steps = torch.cat([plan_step(0, i, 8, SAMPLING)[1].timesteps for i in range(200)])
    assert steps.min() >= 0
    assert steps.max() < 1000
    assert len(Counter((steps // 100).tolist())) == 10


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_batch_is_of_one_bucket_and_an_epoch_has_every_photo_as_often_as_it_is_repeated(batch_size):
    batches = sum(-(-len(photos) // batch_size) for photos in BUCKETS.buckets)
    for epoch in range(3):
        seen = Counter()
        for step in range(epoch * batches, (epoch + 1) * batches):
            bucket, photos = batch_photos(0, step, batch_size, BUCKETS)
            assert set(photos) <= set(BUCKETS.buckets[bucket])
            assert len(photos) == batch_size
            seen.update(photos)
        assert set(seen) == {0, 1, 2, 3, 4}
        if batch_size < 3:
            assert seen == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1}


def test_the_shapes_are_the_buckets():
    for step in range(6):
        bucket, plan = plan_step(0, step, 2, BUCKETS)
        assert plan.noise.shape == plan.posterior_noise.shape == (2, *BUCKETS.latent_shapes[bucket])


def test_parts_of_a_plan_are_the_plan():
    _, plan = plan_step(0, 0, 4, SAMPLING)
    one, two = plan.part(0, 2), plan.part(1, 2)
    assert all(
        torch.equal(torch.cat([a, b]), whole)
        for a, b, whole in zip(vars(one).values(), vars(two).values(), vars(plan).values(), strict=True)
    )


def test_views_and_caption_dropout_are_drawn_and_leave_the_rest_alone():
    _, plain = plan_step(0, 0, 4, SAMPLING)
    plans = [plan_step(0, step, 4, replace(SAMPLING, views=3, caption_dropout=0.25))[1] for step in range(200)]
    assert set(torch.cat([p.views for p in plans]).tolist()) == {0, 1, 2}
    assert torch.cat([p.undropped for p in plans]).float().mean().item() == pytest.approx(0.75, abs=0.05)
    assert torch.equal(plans[0].noise, plain.noise)
    assert torch.equal(plans[0].timesteps, plain.timesteps)
    assert plain.undropped.all()


def test_offset_noise_is_constant_over_the_picture():
    _, plain = plan_step(0, 0, 4, SAMPLING)
    _, offset = plan_step(0, 0, 4, replace(SAMPLING, noise_offset=0.1))
    added = offset.noise - plain.noise
    assert torch.allclose(added, added[:, :, :1, :1].expand_as(added), atol=1e-6)
    assert 0.01 < added.std() < 0.3
