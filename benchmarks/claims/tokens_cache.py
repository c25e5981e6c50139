"""Lecture 15: does a key–value cache change what is drawn, and how much time does it save?

A causal transformer of width 64, depth 4, 64 codes and random weights (none at 0) draws N tokens
one by one, with and without `cached`, from one seed, in turns. CPU-seconds, medians of three. N²
tokens pass through the blocks, or N. "Same": the share of tokens that are equal, at worst. "Logits
apart": the largest difference between the cache's and those of one call with all tokens known.
Control: another seed, whose tokens should differ.
"""

import time

import torch

from minigen import tokens

CODES, WIDTH, DEPTH, REPEATS = 64, 64, 4, 3


def network(length):
    torch.manual_seed(0)
    net = tokens.CausalTransformer(CODES, length, WIDTH, DEPTH)
    for p in net.parameters():  # a block is born as the identity
        torch.nn.init.normal_(p, std=0.1)
    return net.requires_grad_(False)


def drawn(net, n, seed, cache):
    """n samples, and the CPU-seconds that they took."""
    blank = torch.full((n, net.length), CODES)
    start, g = time.process_time(), torch.Generator().manual_seed(seed)
    *_, ids = tokens.autoregress(net.cached() if cache else net, blank, generator=g)
    return ids, time.process_time() - start


def apart(net, ids):
    """The largest difference of logits as the cache fills, token by token."""
    model, now = net.cached(), torch.full_like(ids, CODES)
    for i in range(net.length):
        logits = model(now)
        now[:, i] = ids[:, i]
    return float((logits - net(ids)).abs().max())


def main():
    print(f"{'N':>4s}{'samples':>9s}{'without, s':>12s}{'with, s':>9s}", end="")
    print(f"{'ratio':>7s}{'same':>7s}{'logits apart':>14s}{'other seed, same':>18s}")
    for length in (64, 85, 256):
        net = network(length)
        for n in (1, 8):
            drawn(net, n, 0, True)  # warm
            runs = [[drawn(net, n, s, cache) for cache in (False, True)] for s in range(REPEATS)]
            plain, kept = (sorted(r[k][1] for r in runs)[REPEATS // 2] for k in (0, 1))
            equal = [float((a[0] == b[0]).float().mean()) for a, b in runs]
            other = float((runs[0][0][0] == runs[1][1][0]).float().mean())
            print(f"{length:4d}{n:9d}{plain:12.2f}{kept:9.2f}{plain / kept:7.1f}", end="")
            print(f"{min(equal):7.3f}{apart(net, runs[0][0][0]):14.0e}{other:18.3f}", flush=True)


if __name__ == "__main__":
    main()
