"""The chart of a run's losses as a picture for clients without our page."""

import json
import os

import pytest
from PIL import Image

from tests.pack import load
from trainer.dataset.photos import Dataset, Photo
from trainer.run.files import write_json
from trainer.run.run_dir import Run, RunDir
from trainer.run.settings import Settings

loss_chart, run_card = load("nodes.page.loss_chart"), load("nodes.page.run_card")


@pytest.fixture
def run_dir(tmp_path) -> RunDir:
    return RunDir(tmp_path)


def write(run_dir: RunDir, *entries: dict) -> None:
    run_dir.metrics.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def column_of(image: Image.Image, x: int, colour: tuple[int, int, int]) -> list[int]:
    """Return the rows of a column that have a colour, below the labels."""
    return [y for y in range(40, image.height) if image.getpixel((x, y)) == colour]


def test_a_falling_loss_is_drawn_falling_from_edge_to_edge(run_dir):
    write(run_dir, *({"step": step, "loss": 1.0 - step / 200} for step in range(101)))
    loss_chart.draw_loss_chart(run_dir)
    with Image.open(run_dir.loss_chart) as image:
        left, right = loss_chart.LEFT, image.width - loss_chart.RIGHT
        mean = (0x8A, 0xA4, 0xC8)
        first, last = column_of(image, left + 30, mean), column_of(image, right - 2, mean)
        assert image.size == loss_chart.SIZE
    assert min(first) < loss_chart.TOP + 40  # 0.98 of a range from 0.5 to 1.0 lies near the top,
    assert min(last) > image.height - loss_chart.BOTTOM - 10  # and 0.5 at the bottom


@pytest.mark.parametrize(
    "entries",
    [
        [{"step": 1, "loss": 0.5}],
        [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}],
        [{"step": 0, "held_out": 0.3, "trained": 0.2}],
        [{"step": 1, "loss": 0.5}, {"step": 2, "skipped": 1}, {"step": 2, "held_out": 0.4}, {"step": 4, "trained": 0.4}],
    ],
    ids=["one step", "all alike", "measured alone", "gaps"],
)
def test_few_numbers_are_a_chart_too(run_dir, entries):
    write(run_dir, *entries)
    loss_chart.draw_loss_chart(run_dir)
    with Image.open(run_dir.loss_chart) as image:
        assert len(image.getcolors(1 << 20)) > 5


@pytest.mark.parametrize("text", ["", "no json\n", '{"step": 1}\n'])
def test_without_numbers_there_is_no_chart(run_dir, text):
    run_dir.metrics.write_text(text)
    loss_chart.draw_loss_chart(run_dir)
    assert not run_dir.loss_chart.exists()


def test_without_metrics_there_is_no_chart(run_dir):
    loss_chart.draw_loss_chart(run_dir)
    assert not run_dir.loss_chart.exists()


def test_a_chart_is_drawn_again_when_its_run_has_gone_on(run_dir):
    write(run_dir, {"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4})
    loss_chart.draw_loss_chart(run_dir)
    first = run_dir.loss_chart.read_bytes()
    write(run_dir, *({"step": step, "loss": 1 / step} for step in range(1, 9)))
    later = run_dir.loss_chart.stat().st_mtime + 10
    os.utime(run_dir.metrics, (later, later))
    loss_chart.draw_loss_chart(run_dir)
    assert run_dir.loss_chart.read_bytes() != first


@pytest.mark.parametrize(("prior", "loss"), [({}, 2.0), ({"instance_loss": 1.0}, 1.0)])
def test_the_loss_of_the_photos_alone_is_drawn_as_the_measurements_are(run_dir, prior, loss):
    """2.0 is 1.0 of the photos and what is trained beside them, class images or a teacher."""
    settings = Settings.of(method="dreambooth", token="mysks", steps=10)
    photo = Photo(path="/a.png", sha256="ab", width=64, height=64, caption="a photo of mysks toy")
    dataset = Dataset(photos=(photo,), resolution=64, token="mysks")
    run = Run(name="toy", settings=settings, dataset=dataset, base_fingerprint="cd", export_path="/o", tokenizer_path="/t")
    write_json(run_dir.run_json, run.to_json())
    write(run_dir, {"step": 1, "loss": 2.0, "learning_rate": 1e-5, **prior}, {"step": 1, "held_out": 1.1})
    card = run_card.card(run_dir)
    assert card["loss"]["mean"] == card["loss"]["smooth"] == [pytest.approx(loss)]
    assert card["measured"]["held_out"] == [1.1]
    assert run_dir.losses() == [loss]
