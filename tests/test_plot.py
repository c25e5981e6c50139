"""What the figures show is what they were given; read from the axes, not from pixels."""

import math

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb

from minigen import oracle, plot


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def lightness(colour):
    """CIE L*, what is left of a colour in greyscale: 0 black, 100 white."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def test_data_model_and_exact_stay_apart_in_greyscale():
    levels = sorted(lightness(c) for c in (plot.DATA, plot.MODEL, plot.EXACT))
    assert all(b - a > 12 for a, b in zip(levels, levels[1:], strict=False)) and levels[-1] < 80
    assert matplotlib.rcParams["figure.figsize"] == list(plot.STYLE["figure.figsize"])


def draws():
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    return {
        "points": lambda ax: plot.points(x, ax),
        "density": lambda ax: plot.density(lambda z: -z.square().sum(1), ax, n=9),
        "field": lambda ax: plot.field(lambda z: -z, ax, n=3),
        "trajectories": lambda ax: plot.trajectories(torch.stack([x, 2 * x]), ax),
        "images": lambda ax: plot.images(torch.zeros(3, 1, 4, 4), ax),
        "losses": lambda ax: plot.losses([1.0, 0.5], ax),
        "curve": lambda ax: plot.curve([1, 2], [3, 4], ax),
        "level": lambda ax: plot.level(1.0, ax),
        "histogram": lambda ax: plot.histogram(x[:, 0], ax),
    }


@pytest.mark.parametrize("name", draws())
def test_a_figure_is_drawn_on_the_axes_given_or_on_new_ones(name):
    _, ax = plt.subplots()
    assert draws()[name](ax) is ax and ax.has_data()
    new = draws()[name](None)
    assert new is not ax and new.has_data()
    new.figure.canvas.draw()


def test_points_show_each_sample_on_one_scale():
    x = torch.tensor([[1.0, 2.0], [3.0, -4.0], [0.0, 1.0]], requires_grad=True)
    ax = plot.points(x, label="data", colour=plot.MODEL)
    line, shown = ax.lines
    assert line.get_xydata().tolist() == x.tolist() and shown.get_label() == "data"
    assert line.get_color() == shown.get_color() == plot.MODEL and ax.get_aspect() == 1
    assert len(shown.get_xydata()) == 0 and shown.get_markersize() > line.get_markersize()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$x_1$", "$x_2$")


def test_points_keep_one_scale_on_axes_that_share_theirs():
    fig, axes = plt.subplots(1, 2, sharex=True, sharey=True)
    for ax in axes:
        assert plot.points(torch.tensor([[0.0, 1.0], [4.0, 2.0]]), ax).get_aspect() == 1
    fig.canvas.draw()  # matplotlib refuses here, not before


def test_density_puts_x1_to_the_right_and_x2_up():
    peak = torch.tensor([[2.0, -1.0]])
    mixture = oracle.GaussianMixture(torch.ones(1), peak, torch.full((1, 2), 0.3))
    (image,) = plot.density(mixture.log_prob, span=3.0, n=61).images
    p, (left, right, bottom, top) = image.get_array(), image.get_extent()
    row, column = np.unravel_index(np.argmax(p), p.shape)
    assert (left, right, bottom, top) == (-3, 3, -3, 3) and image.origin == "lower"
    assert (column, row) == (50, 20)  # x = -3 + 0.1 · index
    assert float(p.max()) == pytest.approx(1 / (2 * math.pi * 0.09), rel=1e-4)


def test_field_and_trajectories_show_what_they_are_given():
    (arrows,) = plot.field(lambda x: 2 * x + 1, span=1.0, n=3).collections
    where = arrows.XY
    np.testing.assert_allclose(np.stack([arrows.U, arrows.V], 1), 2 * where + 1)
    states = torch.arange(24.0).reshape(4, 3, 2)
    ax = plot.trajectories(states)
    assert [line.get_xydata().tolist() for line in ax.lines[:3]] == states.movedim(0, 1).tolist()
    assert ax.lines[3].get_xydata().tolist() == states[0].tolist()
    assert ax.lines[4].get_xydata().tolist() == states[-1].tolist()
    assert ax.lines[3].get_color() == plot.NOISE and ax.lines[4].get_color() == plot.MODEL


def test_images_stand_row_by_row_with_their_labels():
    x = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 1, 6, 4)
    ax = plot.images(x, columns=3, labels=torch.tensor([7, 1, 2, 3, 9]))
    sheet = ax.images[0].get_array()
    assert sheet.shape == (2 * (6 + 3 + 1), 3 * 5)
    assert sheet[3, 0] == 0 and sheet[3, 5] == 0.25 and sheet[13, 5] == 1 and sheet[9, 0] == 1
    assert [t.get_text() for t in ax.texts] == ["7", "1", "2", "3", "9"]
    assert ax.texts[4].get_position()[0] == 5 + 1.5 and ax.texts[4].get_position()[1] < 13
    colour = plot.images(torch.zeros(2, 3, 6, 6), columns=2).images[0].get_array()
    assert colour.shape == (7, 14, 3)
    clipped = plot.images(torch.full((1, 1, 2, 2), 3.0), columns=1).images[0].get_array()
    assert clipped.max() == 1


def test_losses_show_every_step_their_running_mean_and_the_floor():
    values = [torch.tensor(float(k)) for k in range(10)]
    ax = plot.losses(values, floor=torch.tensor(0.5), smooth=4)
    raw, mean, floor = ax.lines
    assert raw.get_ydata().tolist() == list(range(10))
    assert mean.get_ydata().tolist() == [1.5 + k for k in range(7)]
    assert mean.get_xdata().tolist() == mean.get_ydata().tolist()  # a straight line stays in place
    assert set(floor.get_ydata()) == {0.5} and floor.get_linestyle() == "--"
    assert floor.get_color() == plot.EXACT
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["each step", "mean of 4", "exact floor"]


def test_curves_carry_bars_and_levels_a_band_of_one_standard_error():
    ax = plot.curve([1, 2], torch.tensor([3.0, 5.0]), stderr=[0.5, 0.25], label="DDIM")
    (bars,) = ax.containers[0].lines[2]
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [[2.5, 3.5], [4.75, 5.25]]
    plot.level(4.0, ax, stderr=0.5, label="floor")
    band = ax.patches[-1].get_window_extent().transformed(ax.transData.inverted())
    assert (band.y0, band.y1) == (pytest.approx(3.5), pytest.approx(4.5))


def test_a_histogram_has_area_1_under_its_exact_density():
    x = torch.randn(500, generator=torch.Generator().manual_seed(0))
    ax = plot.histogram(x, density=lambda z: torch.exp(-z * z / 2) / math.sqrt(2 * math.pi))
    area = sum(bar.get_width() * bar.get_height() for bar in ax.patches)
    assert area == pytest.approx(1)
    (line,) = ax.lines
    z, p = line.get_data()
    np.testing.assert_allclose(p, np.exp(-z * z / 2) / math.sqrt(2 * math.pi), rtol=1e-5)


def test_a_strip_draws_each_value_on_its_own_panel():
    row = plot.strip(lambda value, ax: ax.set_title(f"t = {value}"), [0, 0.5, 1])
    assert [ax.get_title() for ax in row] == ["t = 0", "t = 0.5", "t = 1"]
    assert len(plot.panels(2, size=2.0)) == 2
