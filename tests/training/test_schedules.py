"""Each learning-rate schedule is what its name says, by a formula of its own."""

import math

import pytest

from trainer.run.settings import OptimizerSettings, Settings
from trainer.run.slow import mean_factor
from trainer.training.optimizers import learning_rate_schedule

STEPS, WARMUP = 120, 20


def after_warmup(step: int) -> float:
    """How much of the run is done, 0 at the end of the warm-up, 1 at the end."""
    return (step - WARMUP) / (STEPS - WARMUP)


FORMULAS = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "cosine_with_restarts": lambda done: (1 + math.cos(math.pi * (3 * done % 1))) / 2,
    "polynomial": lambda done: (1 - done) ** 2,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_schedule_is_its_formula(name):
    factor = learning_rate_schedule(OptimizerSettings(lr_scheduler=name, lr_warmup_steps=WARMUP), STEPS)
    for step in range(STEPS):
        wanted = step / WARMUP if step < WARMUP else FORMULAS[name](after_warmup(step))
        assert factor(step) == pytest.approx(wanted, abs=1e-6), step


@pytest.mark.parametrize("warmup", [0, WARMUP])
@pytest.mark.parametrize("name", FORMULAS)
def test_the_mean_that_is_told_of_a_schedule_is_its_own(name, warmup):
    settings = Settings.of(method="dreambooth", token="mysks", steps=STEPS, lr_scheduler=name, lr_warmup_steps=warmup)
    factor = learning_rate_schedule(settings.optimizer, STEPS)
    assert mean_factor(settings) == pytest.approx(sum(map(factor, range(STEPS))) / STEPS, abs=0.02)


def test_no_two_schedules_are_the_same():
    middle = {
        name: learning_rate_schedule(OptimizerSettings(lr_scheduler=name, lr_warmup_steps=WARMUP), STEPS)(WARMUP + 40)
        for name in FORMULAS
    }
    assert len({round(value, 3) for value in middle.values()}) == len(FORMULAS)
