from collections import Counter

import torch

from trainer.plan import photo_indices, plan_step

SHAPE = (4, 8, 8)


def test_a_step_is_a_function_of_seed_and_step_alone():
    torch.manual_seed(1)
    first = plan_step(0, 5, 3, 4, SHAPE)
    torch.manual_seed(2)
    again = plan_step(0, 5, 3, 4, SHAPE)
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(again).values(), strict=True))
    for other in (plan_step(1, 5, 3, 4, SHAPE), plan_step(0, 6, 3, 4, SHAPE)):
        assert not torch.equal(first.noise, other.noise)
        assert not torch.equal(first.posterior_noise, other.posterior_noise)


def test_every_photo_is_seen_once_an_epoch_in_a_new_order():
    seen = torch.cat([photo_indices(0, step, 3, 5, "instance") for step in range(10)]).view(-1, 5)  # 6 epochs of 5 photos
    assert all(sorted(epoch.tolist()) == [0, 1, 2, 3, 4] for epoch in seen)
    assert len({tuple(epoch.tolist()) for epoch in seen}) > 1


def test_timesteps_cover_the_whole_schedule():
    steps = torch.cat([plan_step(0, i, 8, 4, SHAPE).timesteps for i in range(200)])
    assert steps.min() >= 0
    assert steps.max() < 1000
    assert len(Counter((steps // 100).tolist())) == 10
