"""Lecture 6: is the unconditional field poor because only one label in ten was dropped?

Three trainings of the lecture's noise network with a label in ten dropped, a label in two, and all
labels; each is asked without a label (γ = 0) and, where it knows labels, with them (γ = 1).
1,300 steps, half of those of the bundled network. 360 digits by 20 DDIM steps.
"""

import torch

from minigen import data, ddim, ddpm, guidance, judge, nets, paths, targets, train

SEEDS, STEPS = 3, 1300
chain = paths.DDPM(ddpm.quadratic_betas(1000))
label = torch.arange(10).repeat(36)


def trained(drop, seed):
    """The noise network of data/make_checkpoints.py, this share of its labels dropped."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    net = nets.ResMLP((1, 8, 8), hidden=256, depth=4, classes=10)
    batches = data.batches(*data.digits("train"), size=256, generator=g)
    ema = train.Ema(net, 0.998)

    def loss():
        x0, y = next(batches)
        y = guidance.drop_label(y, drop, net.classes, generator=g)
        t = torch.randint(1, chain.T + 1, (len(x0),), generator=g) / chain.T
        eps = torch.randn(x0.shape, generator=g)
        return ddpm.simple_loss(net, chain, x0, t, eps, y).mean()

    rate = train.cosine(3e-3, STEPS, warmup=100)
    for _ in train.fit(loss, net, steps=STEPS, lr=rate, ema=ema, progress=False):
        pass
    ema.copy_to(net)
    return net


def verdict(net, asked, seed):
    """360 digits of these labels, or of none, judged."""
    g = torch.Generator().manual_seed(1000 + seed)
    denoise = paths.denoiser(net, chain, targets.eps, asked)
    start = torch.randn(360, 1, 8, 8, generator=g)
    *_, x = ddim.sample(denoise, chain, start, torch.linspace(1, 0, 21))
    return judge.digits(x, asked)


def main():
    rows = {}
    for drop in (0.1, 0.5, 1.0):
        made = [trained(drop, seed) for seed in range(SEEDS)]
        for name, asked in (("without a label", None), ("with one", label)):
            if asked is None or drop < 1:
                runs = [verdict(net, asked, seed) for seed, net in enumerate(made)]
                rows[f"{drop:.0%} dropped, {name}"] = runs
    print(judge.table(rows))


if __name__ == "__main__":
    main()
