"""Lecture 8: uniform against logit-normal times, on two data sets.

One network, one number of steps; only the law of the training times differs. Eight trainings each.
Three heaps in the plane: how far the learned velocity lies from the exact one, at the ends and
midway. Glyphs: the grain of a sample is the root mean square distance from the background, over the
pixels where the letter asked for never has ink; the median over 252 samples. A last row trains four
times as long, a last column takes four times as many steps on the walk.
"""

import torch

from minigen import data, flow, guidance, nets, oracle, paths, targets, train

SEEDS = 8
TIMES = {"uniform": flow.uniform_times, "logit-normal": flow.logit_normal_times}
linear = paths.Linear()
heaps = oracle.GaussianMixture.isotropic(
    torch.tensor([[-1.5, 0.0], [1.0, 1.0], [0.5, -1.5]]), 0.35, torch.tensor([0.5, 0.2, 0.3])
)


def trained(net, batch, times, steps, lr, average, g):
    """net after `steps` steps of the flow loss on batch() = (x0, label), weights averaged."""
    ema = train.Ema(net, average)

    def loss():
        x0, label = batch()
        eps = torch.randn(x0.shape, generator=g)
        return flow.loss(net, x0, eps, times(len(x0), generator=g), label).mean()

    rate = train.cosine(lr, steps, 50)
    for _ in train.fit(loss, net, steps=steps, lr=rate, ema=ema, progress=False):
        pass
    ema.copy_to(net)
    return net


def heaps_error(times, seed):
    """E‖network − u‖², the mean over two axes: over all t, t < 0.1, midway, t > 0.9."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    batch = lambda: (heaps.sample(512, generator=g)[0], None)
    net = trained(nets.MLP(2, hidden=96, depth=3), batch, times, 1500, 4e-3, 0.99, g)
    moments, errors = (torch.arange(40) + 0.5) / 40, []
    for t in moments:
        x = heaps.at(linear, t).sample(4000, generator=g)[0]
        with torch.no_grad():
            errors.append((net(x, t) - heaps.velocity(linear)(x, t)).square().mean())
    error = torch.stack(errors)
    middle = (moments > 0.25) & (moments < 0.75)
    parts = error, error[moments < 0.1], error[middle], error[moments > 0.9]
    return [float(part.mean()) for part in parts]


def glyph_data(jitter, n, seed):
    """n glyphs of A, G, R and their 63 labels, letter and font."""
    g = torch.Generator().manual_seed(seed)
    x, letter, font = data.glyphs(n, 16, characters="AGR", jitter=jitter, generator=g)
    return x, letter * len(data.FONTS) + font


def grain(x, empty):
    """Root mean square distance from the background, -1, where there is no ink: the median."""
    square = ((x + 1) ** 2 * empty).flatten(1).sum(1) / empty.flatten(1).sum(1)
    return float(square.sqrt().median())


def glyph_rows(times, seed, steps=500):
    """The grain of 252 samples by 20 Heun steps at γ = 1, at γ = 2, and by 80 at γ = 1."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    x, label = glyph_data(0.3, 6000, seed)
    empty = torch.stack([x[label == k].amax(0) for k in range(63)]) == -1  # never any ink
    batches = data.batches(x, label, size=128, generator=g)
    net = nets.ResMLP((1, 16, 16), hidden=256, depth=3, classes=63)

    def batch():
        x0, label = next(batches)
        return x0, guidance.drop_label(label, 0.1, net.classes, generator=g)

    trained(net, batch, times, steps, 3e-3, 0.995, g)
    wanted, found = torch.arange(63).repeat(4), []
    asked, free = (paths.denoiser(net, linear, targets.velocity, k) for k in (wanted, None))
    for gamma, n in ((1.0, 20), (2.0, 20), (1.0, 80)):
        start = torch.randn(len(wanted), 1, 16, 16, generator=g)
        *_, made = flow.heun(guidance.cfg(asked, free, gamma), linear, start, flow.grid(n))
        found.append(grain(made, empty[wanted]))
    return found


def row(name, runs):
    """Mean ± standard error of each column over the seeds."""
    runs = torch.tensor(runs, dtype=torch.double)
    cells = zip(runs.mean(0).tolist(), (runs.std(0) / len(runs) ** 0.5).tolist(), strict=True)
    print(f"{name:32s}" + "".join(f"{f'{mean:.3f} ± {err:.3f}':>17s}" for mean, err in cells))


def main():
    print(f"{'heaps: E‖network − u‖²':32s}" + "".join(f"{k:>17s}" for k in COLUMNS))
    for name, times in TIMES.items():
        row(name, [heaps_error(times, seed) for seed in range(SEEDS)])
    columns = "γ = 1", "γ = 2", "γ = 1, 80 steps"
    print(f"\n{'glyphs: grain of the background':32s}" + "".join(f"{k:>17s}" for k in columns))
    for name, times in TIMES.items():
        row(name, [glyph_rows(times, seed) for seed in range(SEEDS)])
    longer = [glyph_rows(flow.logit_normal_times, seed, 2000) for seed in range(SEEDS)]
    row("logit-normal, 2,000 train steps", longer)


COLUMNS = "all t", "t < 0.1", "¼ < t < ¾", "t > 0.9"

if __name__ == "__main__":
    main()
