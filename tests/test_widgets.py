"""The slider draws what it points at, once for each move, and leaves no figure behind."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from minigen import widgets


def test_moving_the_slider_redraws_at_the_value_it_shows(capsys):
    drawn = []
    control = widgets.slider(lambda value, ax: drawn.append(value), [0.1, 0.25, 7], start=1)
    slider = control.children[0]
    assert drawn == [0.25] and slider.label == "0.25" and slider.continuous_update
    slider.index = 2
    assert drawn == [0.25, 7] and slider.label == "7"
    assert plt.get_fignums() == []
    assert "Figure(500x400)" in capsys.readouterr().out  # the figure itself was displayed


def test_a_slider_takes_tensors_a_name_and_patience():
    control = widgets.slider(lambda v, ax: None, torch.linspace(0, 1, 3), name="eta", live=False)
    slider = control.children[0]
    assert [name for name, _ in slider.options] == ["0", "0.5", "1"]
    assert slider.description == "eta" and not slider.continuous_update


def test_a_draw_that_fails_leaves_no_figure(caplog):
    def fail(value, ax):
        raise RuntimeError("no")

    widgets.slider(fail, [1, 2])
    assert plt.get_fignums() == [] and "Exception in interact callback: no" in caplog.text


def test_a_start_beyond_the_values_is_refused():
    with pytest.raises(ValueError, match="start must be a position among 2 values, got 2"):
        widgets.slider(lambda v, ax: None, [1, 2], start=2)
    with pytest.raises(ValueError, match="among 0 values"):
        widgets.slider(lambda v, ax: None, [])
