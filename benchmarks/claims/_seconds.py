"""Training for so many CPU-seconds, where claims compare methods at equal cost."""

import time

from minigen import train


def fit(loss, net, seconds, lr, *, warmup=1, last=0.02, ema=None, clip=None) -> int:
    """The steps that Adam takes on loss(share of the time spent) until the time is over.

    The learning rate rises for `warmup` steps, then falls linearly with the time to `last` of it.
    """
    start = time.process_time()
    spent = lambda: (time.process_time() - start) / seconds
    rate = lambda n: lr * min(1, (n + 1) / warmup) * max(1 - (1 - last) * spent(), last)
    value = lambda: loss(spent()).mean()
    run = train.fit(value, net, steps=10**6, lr=rate, ema=ema, clip=clip, progress=False)
    while spent() < 1:
        next(run)
    run.close()
    return run.step
