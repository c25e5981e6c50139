"""Lecture 13: diffusion in latents against diffusion in pixels, for the same CPU time of training.

32 × 32 letters, velocity nets, DiT of width 96 and depth 4, with the letter; 16 tokens of the
latents of `letters_autoencoder` (4 × 8 × 8, patches of 2), 64 tokens of the pixels (patches of 4)
or 16 (patches of 8). The autoencoder's own 121 s, spent once, are not counted. The steps that fit
into the time are found by timing all nets in turn.

Judged by `judge.letters`, 520 from 20 or 5 Euler steps from the same noise; ms an image is CPU time
with the decoder's, the least of 3 timings in turn. Mean ± standard error over trainings; of 520.
Rows without a net: test letters encoded and decoded, the most that latents can give; one Gaussian a
letter in the latents; and as a dummy N(0, I) in their place.
"""

import time

import torch

from data.letter_recipes import LetterLatents, lettered, sample_letters
from minigen import data, judge, transformer

SEEDS, SECONDS = 3, 45.0  # of CPU time for a training
TRAIN, TRAIN_LABEL = data.letters("train")
TURN = torch.arange(520) % 26


def pixels(rows, generator):
    """Letters as they are."""
    return TRAIN[rows], TRAIN_LABEL[rows]


def nets(space):
    """name: (net, what it learns, seconds of training, what makes images of samples)."""
    same = {"width": 96, "depth": 4, "classes": 26}
    dit = transformer.DiT
    image = (1, 32, 32)
    as_it_is = lambda x: x
    return {
        "latents": (dit(space.shape, 2, **same), space.draw, SECONDS, space.decode),
        "pixels": (dit(image, 4, **same), pixels, SECONDS, as_it_is),
        "pixels, patch 8": (dit(image, 8, **same), pixels, SECONDS, as_it_is),
    }


def seconds(work):
    """CPU time of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turn(jobs, rounds):
    """name: the least CPU time of each, over rounds in which all take their turn."""
    for work in jobs.values():
        work()
    runs = [{name: seconds(work) for name, work in jobs.items()} for _ in range(rounds)]
    return {name: min(run[name] for run in runs) for name in jobs}


def steps_that_fit(space):
    """name: the steps of training that fit into its seconds."""
    jobs = {
        name: lambda net=net, draw=draw: lettered(net, draw, seed=0, steps=2)
        for name, (net, draw, _, _) in nets(space).items()
    }
    cost = in_turn(jobs, 2)
    return {name: round(2 * nets(space)[name][2] / cost[name]) for name in jobs}


def speed(space):
    """(name, steps) -> ms an image, sampled 52 at once."""
    jobs = {
        (name, n): lambda net=net, n=n, decode=decode: decode(sample_letters(net, 0, 52, n))
        for name, (net, _, _, decode) in nets(space).items()
        for n in (20, 5)
    }
    return {key: 1000 * s / 52 for key, s in in_turn(jobs, 3).items()}


def judged(space, steps, seed):
    """(name, steps of sampling) -> Verdict, for one training of each net."""
    found = {}
    torch.manual_seed(seed)
    for name, (net, draw, _, decode) in nets(space).items():
        lettered(net, draw, seed, steps[name])
        for n in (20, 5):
            found[f"{name}, {n} steps"] = judge.letters(
                decode(sample_letters(net, seed, 520, n)), TURN
            )
    g = torch.Generator().manual_seed(seed)
    z = space.draw(torch.arange(5200), g)[0]
    eps = torch.randn(520, *space.shape, generator=g)
    own = [z[space.label == k].flatten(1) for k in range(26)]
    roots = torch.stack(
        [torch.linalg.cholesky(x.T.cov() + 1e-4 * torch.eye(x.shape[1])) for x in own]
    )
    means = torch.stack([x.mean(0) for x in own])
    drawn = means[TURN] + torch.einsum("bij,bj->bi", roots[TURN], eps.flatten(1))
    found["a Gaussian a letter"] = judge.letters(space.decode(drawn.view_as(eps)), TURN)
    found["N(0, I) latents"] = judge.letters(space.decode(eps), TURN)
    return found


def main() -> None:
    space = LetterLatents()
    steps, ms = steps_that_fit(space), speed(space)
    print(f"{'':18s}{'training':>12s}{'steps':>8s}{'ms an image, 20 steps':>24s}{'5 steps':>10s}")
    for name, (_, _, budget, _) in nets(space).items():
        line = f"{name:18s}{f'{budget:.0f} s':>12s}{steps[name]:8d}"
        times = [ms[name, n] for n in (20, 5)]
        print(f"{line}{times[0]:24.2f}{times[1]:10.2f}")
    runs = [judged(space, steps, seed) for seed in range(SEEDS)]
    rows = {name: [run[name] for run in runs] for name in runs[0]}
    x, label = data.letters("test")
    again = space.net.decode(space.net.encode(x)[0])
    rows["test letters, decoded"] = judge.letters(again, label)
    print(f"\nmean ± standard error over {SEEDS} trainings; samples of 520\n")
    print(judge.table(rows, judge.letters))


if __name__ == "__main__":
    main()
