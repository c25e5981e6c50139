"""Lecture 12: what do tokens that hear nothing of one another draw?

A DiT of two blocks, in 16 tokens, with the label and the place as ever, trained two ways from the
start: with attention, and with attention that answers 0, so that each patch is drawn alone, from
its noise, its place and the label. Digits in patches of 2, 350 steps; letters of 32 × 32 pixels in
patches of 8, 300 steps. Rectified flow's velocity, batches of 64, a tenth of the labels dropped,
EMA 0.99, warm-up and half a cosine from a rate of 1e-2. Weights at birth, batches and noise are
equal, so losses are paired. Three trainings each; 20 Euler steps. "Held-out loss": of the velocity
on the test images, per pixel. Dummies: one Gaussian a class, and test images whose patches were
exchanged among images of the same label: each patch is real, and none knows of the others.
"""

import torch

from benchmarks.claims.judge_controls import Controls, judged
from benchmarks.claims.transformer_nets import cell, drawn, held_out, velocity_loss
from minigen import data, guidance, judge, train
from minigen.transformer import DiT, attention, patchify, unpatchify

SEEDS, RATE = 3, 1e-2
WAYS = {
    "attention": attention,
    "attention 0": lambda q, k, v: 0 * v,
}
TASKS = {  # name -> data, judge, shape, patch, classes, labels drawn, grain, steps
    "digits": (data.digits, judge.digits, (1, 8, 8), 2, 10, 360, 1 / 8, 350),
    "letters": (data.letters, judge.letters, (1, 32, 32), 8, 26, 520, 0.0, 300),
}


def trained(net, split, grain, steps, seed):
    """The net with the averaged weights of a training."""
    g, ema = torch.Generator().manual_seed(seed), train.Ema(net, 0.99)
    batches = data.batches(*split("train"), size=64, generator=g)

    def loss():
        x, label = next(batches)
        return velocity_loss(
            net, x, guidance.drop_label(label, 0.1, net.classes, generator=g), grain, g
        )

    rate = train.cosine(RATE, steps, warmup=20)
    for _ in train.fit(loss, net, steps=steps, lr=rate, ema=ema, progress=False):
        pass
    ema.copy_to(net)
    return net


class Dummies(Controls):
    """Samples that took no learning."""

    def exchanged(self, patch):
        """Test images whose patches change places with those of others of the same label."""
        tokens = patchify(self.x, patch)
        for k in range(self.classes):
            own = (self.y == k).nonzero()[:, 0]
            for place in range(tokens.shape[1]):
                tokens[own, place] = tokens[own[self.shuffled(len(own))], place]
        return unpatchify(tokens, tuple(self.x.shape[1:]), patch)


def main():
    for name, (split, verdict, shape, patch, classes, n, grain, steps) in TASKS.items():
        rows, losses, label = {}, {}, torch.arange(n) % classes
        for way, mix in WAYS.items():
            for seed in range(SEEDS):
                torch.manual_seed(seed)
                net = DiT(shape, patch, 64, 2, 4, classes, mix=mix)
                trained(net, split, grain, steps, seed)
                rows.setdefault(way, []).append(verdict(drawn(net, label, seed)[0], label))
                losses.setdefault(way, []).append(held_out(net, *split("test"), grain))
        none = Dummies(split)
        rows["exchanged"] = judged(verdict, none, lambda none=none, p=patch: none.exchanged(p), 3)
        rows["a Gaussian a class"] = judged(verdict, none, none.gaussians, 3)
        print(f"{name}\n{judge.table(rows, verdict)}\n")
        first = torch.tensor(losses["attention"])
        for way, each in losses.items():
            less = (torch.tensor(each) - first).tolist()
            print(f"{way:16s}held-out loss {cell(each, 4)}   less attention's {cell(less, 4)}")
        print()


if __name__ == "__main__":
    main()
