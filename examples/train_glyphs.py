"""Train a flow, or a noise predictor, on labelled glyphs: on a laptop, many GPUs, or under Slurm.

python examples/train_glyphs.py --bf16                        one process, on the best device
torchrun --nproc-per-node=8 examples/train_glyphs.py --bf16   one host, a process a GPU
torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=HOST:29500 examples/...
sbatch examples/train_glyphs.slurm --bf16                     the same on Slurm's nodes

All take the same steps, on the same joint batches. A run that was killed goes on from its last
checkpoint in --out by the same command, also on another number of processes.
"""

import argparse
import itertools
import sys
from pathlib import Path

import torch
from torch import Tensor

from minigen import data, ddim, guidance, metrics, nets, paths, targets, train
from minigen.transformer import DiT

# What is learned, on which path, and how a sampler takes it. The noise is read as x̂0 by a division
# by a(1) = 0.007, which blows errors up: cut to the range of images.
LOSSES = {
    "flow": (paths.Linear(), targets.velocity, lambda denoise: denoise),
    "eps": (paths.VP(), targets.eps, lambda denoise: guidance.clip(denoise, -1.0, 1.0)),
}

NETS = {
    "unet": lambda shape, width, classes: nets.UNet(shape, width, classes=classes),
    "dit": lambda shape, width, classes: DiT(shape, 4, 4 * width, classes=classes),
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of a run, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default="build/glyphs", help="where everything goes")
    parser.add_argument("--loss", choices=LOSSES, default="flow")
    parser.add_argument("--net", choices=NETS, default="unet")
    parser.add_argument("--size", type=int, default=28, help="pixels a side, a multiple of 4")
    parser.add_argument("--characters", default=data.CHARACTERS, help="the classes")
    parser.add_argument(
        "--channels", type=int, default=32, help="of the U-Net; a DiT is 4 × as wide"
    )
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=64, help="of all processes together")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--samples", type=int, default=124, help="to draw at each checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="compute the loss in mixed precision")
    return parser.parse_args(arguments)


def make_net(options: argparse.Namespace) -> nets.Conditioned:
    """A net for glyphs of a class, the same for the same seed."""
    torch.manual_seed(options.seed)
    shape, classes = (1, options.size, options.size), len(options.characters)
    return NETS[options.net](shape, options.channels, classes)


def glyphs(n: int, options: argparse.Namespace, generator: torch.Generator) -> tuple:
    """n glyphs and their classes."""
    x0, label, _ = data.glyphs(n, options.size, characters=options.characters, generator=generator)
    return x0, label


def batch_loss(net, options: argparse.Namespace, generator: torch.Generator) -> Tensor:
    """The mean loss on this process's share of a batch that all processes draw alike."""
    path, target, _ = LOSSES[options.loss]
    x0, label = glyphs(options.batch, options, generator)
    label = guidance.drop_label(label, 0.1, len(options.characters), generator=generator)
    t = torch.rand(len(x0), generator=generator, device=x0.device)
    eps = torch.randn(x0.shape, generator=generator, device=x0.device)
    x0, eps, t, label = train.shard(x0, eps, t, label)
    return targets.loss(net, path, target, x0, eps, t, label).mean()


def sample(net, label: Tensor, options: argparse.Namespace, generator: torch.Generator) -> Tensor:
    """A glyph of each class in `label`, in 30 steps of DDIM."""
    path, target, taken = LOSSES[options.loss]
    shape = (len(label), 1, options.size, options.size)
    xT = torch.randn(shape, generator=generator, device=label.device)
    denoise = taken(paths.denoiser(net, path, target, label))
    *_, x = ddim.sample(denoise, path, xT, torch.linspace(1, 0, 31).to(xT))
    return x


def report(net, step: int, loss: float, options: argparse.Namespace) -> None:
    """Draw samples, and say how far they are from glyphs, beside what other glyphs are."""
    from minigen import plot

    generator = torch.Generator(train.device()).manual_seed(options.seed + 1)
    (x0, label), (other, _) = (glyphs(options.samples, options, generator) for _ in range(2))
    x = sample(net, label, options, generator)
    distance, floor = (float(metrics.energy_distance(y, other)) for y in (x, x0))
    print(f"step {step}: loss {loss:.4f}, energy distance {distance:.3f} (glyphs {floor:.3f})")
    names = [options.characters[k] for k in label[:40].tolist()]
    figure = plot.images(x[:40], labels=names).figure
    figure.savefig(options.out / f"samples_{step:06d}.png")
    plot.plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Train, report at each checkpoint, and write the averaged net."""
    options, device = parse(arguments), train.device()
    net = make_net(options).to(device)
    generator, ema = torch.Generator(device).manual_seed(options.seed), train.Ema(net, 0.999)
    run = train.fit(
        lambda: batch_loss(net, options, generator),
        net,
        steps=options.steps,
        lr=train.cosine(options.lr, options.steps, warmup=options.steps // 20),
        clip=1.0,
        ema=ema,
        generator=generator,
        checkpoint=options.out / "run.safetensors",
        every=options.every,
        autocast=torch.bfloat16 if options.bf16 else None,
        progress=sys.stderr.isatty(),
    )
    while losses := [*itertools.islice(run, options.every)]:
        if train.rank() == 0:  # the others wait for it at the next step
            with ema.applied():
                report(net, run.step, float(torch.stack(losses).mean()), options)
    ema.copy_to(net)
    if train.rank() == 0:
        train.save(options.out / "net.safetensors", net, loss=options.loss, steps=options.steps)


if __name__ == "__main__":
    main()
