"""Whether 8-bit AdamW runs is asked once, in a process of its own, and known from then on."""

from trainer.run.eight_bit import is_known_to_fail, why_no_8bit_there


def test_that_8_bit_adamw_cannot_run_is_known_once_it_was_tried(tmp_path, monkeypatch):
    package = tmp_path / "bitsandbytes"
    package.mkdir()
    (package / "__init__.py").write_text('raise RuntimeError("no library")\n')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    device = "cpu:7"  # no other test asks of it
    assert not is_known_to_fail(device)
    assert why_no_8bit_there(device) == "RuntimeError: no library"
    assert is_known_to_fail(device)
    (package / "__init__.py").unlink()
    assert why_no_8bit_there(device) == "RuntimeError: no library"
