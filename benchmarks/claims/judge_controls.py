"""Lecture 3: the protocol for digits orders samples whose order is known, and sees two dummies.

The controls are real digits that were spoilt on purpose; each random one is drawn five times,
the samplers 24 times. The
two dummies have learnt nothing: training digits with grain on them, and one Gaussian a class. Two
samplers of one network are judged once more with the pixels cut at ±1, as images are stored: the
cut alone reverses their order in the Fréchet distance.
"""

from functools import partial

import torch
from torch.nn.functional import conv2d, pad

from minigen import data, ddim, ddpm, judge, paths, targets, train


class Controls:
    """Samples of a data set whose order is known: its test images, spoilt on purpose."""

    def __init__(self, dataset):
        self.train_x, self.train_y = dataset("train")
        self.x, self.y = dataset("test")
        self.classes, self.generator = int(self.y.max()) + 1, torch.Generator().manual_seed(0)

    def noise(self, *shape):
        return torch.randn(*shape, generator=self.generator)

    def shuffled(self, n):
        return torch.randperm(n, generator=self.generator)

    def grain(self, x, std):
        """x with normal noise of this standard deviation on each pixel."""
        return x + std * self.noise(*x.shape)

    def blurred(self, share):
        """Each pixel gives this share to each of its eight neighbours."""
        kernel = torch.full((1, 1, 3, 3), share)
        kernel[..., 1, 1] = 1 - 8 * share
        return conv2d(pad(self.x, (1, 1, 1, 1), value=-1.0), kernel)

    def without(self, k):
        """The test images, those of one class replaced by others."""
        others, x = self.x[self.y != k], self.x.clone()
        x[self.y == k] = others[self.shuffled(len(others))[: int((self.y == k).sum())]]
        return x

    def spoilt(self, std):
        """The test images, one in 50 replaced by noise."""
        x, n = self.x.clone(), len(self.x) // 50
        x[self.shuffled(len(x))[:n]] = std * self.noise(n, *x.shape[1:])
        return x

    def copies(self):
        """Training images, as many of each class as the test set has."""
        x = torch.empty_like(self.x)
        for k in range(self.classes):
            real = self.train_x[self.train_y == k]
            x[self.y == k] = real[self.shuffled(len(real))][: int((self.y == k).sum())]
        return x

    def gaussians(self):
        """Each test image replaced by a draw from one Gaussian with its class's moments."""
        x = torch.empty(len(self.x), self.x[0].numel())
        for k in range(self.classes):
            z = self.train_x[self.train_y == k].flatten(1).double()
            root = torch.linalg.cholesky(z.T.cov() + 1e-6 * torch.eye(z.shape[1]))
            noise = self.noise(int((self.y == k).sum()), z.shape[1]).double()
            x[self.y == k] = (z.mean(0) + noise @ root.T).float()
        return x.reshape(self.x.shape)

    def all(self):
        """name -> a function that draws the control anew."""
        rows = {
            f"faint noise {s:g}": partial(self.grain, self.x, s) for s in (0.03, 0.06, 0.1, 0.2)
        }
        rows |= {f"blurred {share:g}": partial(self.blurred, share) for share in (0.02, 0.05, 0.1)}
        return rows | {
            "no 3": partial(self.without, 3),
            "2 % noise": partial(self.spoilt, 1.0),
            "2 % wild noise": partial(self.spoilt, 10.0),
            "copies": self.copies,
            "copies, grain 0.1": lambda: self.grain(self.copies(), 0.1),
            "copies, grain 0.2": lambda: self.grain(self.copies(), 0.2),
            "a Gaussian a class": self.gaussians,
        }


def sampler(controls, eta, cut=10.0):
    """20 steps of the lectures' noise network."""
    net = train.rebuild(data.checkpoint("digits_eps"))
    path = paths.DDPM(ddpm.quadratic_betas(1000))
    denoise, ts = paths.denoiser(net, path, targets.eps, controls.y), torch.linspace(1, 0, 21)

    def draw():
        xT, g = controls.noise(360, 1, 8, 8), controls.generator
        *_, x = ddim.sample(denoise, path, xT, ts, eta=eta, generator=g)
        return x.clamp(-cut, cut)

    return draw


def main():
    controls = Controls(data.digits)
    samplers = {
        "DDIM, η = 0": sampler(controls, 0.0),
        "DDIM, η = 1": sampler(controls, 1.0),
        "η = 0, cut at ±1": sampler(controls, 0.0, cut=1.0),
        "η = 1, cut at ±1": sampler(controls, 1.0, cut=1.0),
    }
    rows = {name: judged(judge.digits, controls, make) for name, make in controls.all().items()}
    rows |= {name: judged(judge.digits, controls, make, 24) for name, make in samplers.items()}
    print(judge.table(rows))


def judged(judge, controls, make, n=5):
    """The verdicts on n draws, on one where nothing is random."""
    n = 1 if getattr(make, "func", None) == controls.blurred else n
    return [judge(make(), controls.y) for _ in range(n)]


if __name__ == "__main__":
    main()
