"""Lecture 3: the protocol for digits orders samples whose order is known, and sees two dummies.

The controls are real digits that were spoilt on purpose; each random one is drawn five times,
the samplers 24 times. The
two dummies have learnt nothing: training digits with grain on them, and one Gaussian a class. Two
samplers of one network are judged once more with the pixels cut at ±1, as images are stored: the
cut alone reverses their order in the Fréchet distance.
"""

import torch
from torch.nn.functional import conv2d, pad

from minigen import data, ddim, ddpm, judge, nets, paths, targets, train

train_x, train_y = data.digits("train")
test_x, test_y = data.digits("test")
g = torch.Generator().manual_seed(0)


def grain(x, std):
    """x with normal noise of this standard deviation on each pixel."""
    return x + std * torch.randn(x.shape, generator=g)


def blurred(share):
    """Each pixel gives this share to each of its eight neighbours."""
    kernel = torch.full((1, 1, 3, 3), share)
    kernel[..., 1, 1] = 1 - 8 * share
    return conv2d(pad(test_x, (1, 1, 1, 1), value=-1.0), kernel)


def without(digit):
    """The test digits, those of one class replaced by others."""
    others = test_x[test_y != digit]
    x = test_x.clone()
    x[test_y == digit] = others[
        torch.randperm(len(others), generator=g)[: int((test_y == digit).sum())]
    ]
    return x


def spoilt(std):
    """The test digits, seven of the 360 (2 %) replaced by noise."""
    x = test_x.clone()
    x[torch.randperm(360, generator=g)[:7]] = std * torch.randn(7, 1, 8, 8, generator=g)
    return x


def copies():
    """Training digits, as many of each class as the test set has."""
    pick = lambda k: train_x[train_y == k][torch.randperm(int((train_y == k).sum()), generator=g)]
    x = torch.empty_like(test_x)
    for k in range(10):
        x[test_y == k] = pick(k)[: int((test_y == k).sum())]
    return x


def gaussians():
    """Each test digit replaced by a draw from the Gaussian with its class's mean and covariance."""
    x = torch.empty(360, 64)
    for k in range(10):
        z = train_x[train_y == k].flatten(1).double()
        root = torch.linalg.cholesky(z.T.cov() + 1e-6 * torch.eye(64))
        noise = torch.randn(int((test_y == k).sum()), 64, generator=g).double()
        x[test_y == k] = (z.mean(0) + noise @ root.T).float()
    return x.reshape(-1, 1, 8, 8)


def sampler(eta, cut=10.0):
    """20 steps of the lectures' noise network."""
    net = nets.ResMLP((1, 8, 8), hidden=256, depth=4, classes=10)
    train.load(data.checkpoint("digits_eps"), net)
    path = paths.DDPM(ddpm.quadratic_betas(1000))
    denoise, ts = paths.denoiser(net, path, targets.eps, test_y), torch.linspace(1, 0, 21)

    def draw():
        xT = torch.randn(360, 1, 8, 8, generator=g)
        *_, x = ddim.sample(denoise, path, xT, ts, eta=eta, generator=g)
        return x.clamp(-cut, cut)

    return draw


def main():
    controls = {
        f"faint noise {std:g}": lambda std=std: grain(test_x, std) for std in (0.03, 0.06, 0.1, 0.2)
    }
    controls |= {
        f"blurred {share:g}": lambda share=share: blurred(share) for share in (0.02, 0.05, 0.1)
    }
    controls |= {
        "no 3": lambda: without(3),
        "2 % noise": lambda: spoilt(1.0),
        "2 % wild noise": lambda: spoilt(10.0),
        "copies": copies,
        "copies, grain 0.1": lambda: grain(copies(), 0.1),
        "copies, grain 0.2": lambda: grain(copies(), 0.2),
        "a Gaussian a class": gaussians,
        "DDIM, η = 0": sampler(0.0),
        "DDIM, η = 1": sampler(1.0),
        "η = 0, cut at ±1": sampler(0.0, cut=1.0),
        "η = 1, cut at ±1": sampler(1.0, cut=1.0),
    }
    draws = lambda name: 1 if name.startswith("blurred") else 24 if "η" in name else 5
    rows = {
        name: [judge.digits(make(), test_y) for _ in range(draws(name))]
        for name, make in controls.items()
    }
    print(judge.table(rows))


if __name__ == "__main__":
    main()
