"""The loop of train_glyphs.py on Lightning Fabric: the same net, batches, options and loss curve.

python examples/fabric.py --bf16 --out build/fabric                        pip install '.[fabric]'
torchrun --nproc-per-node=8 examples/fabric.py --bf16 --out build/fabric   a process a GPU

Here the loop is yours: README.md beside this file says what to change in it, and for what.
"""

import os
from collections.abc import Iterator

import torch
from lightning_fabric import Fabric
from torch import Tensor
from train_glyphs import batch_loss, make_net, parse

from minigen import train


def make_fabric(options) -> Fabric:
    """As many processes as torchrun has started, each on the best device there is."""
    return Fabric(
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", 1)),
        precision="bf16-mixed" if options.bf16 else "32-true",
    )


def fit(fabric: Fabric, options) -> Iterator[tuple[int, Tensor]]:
    """Train as train_glyphs.py does, and yield how many steps are done and the loss of the last."""
    fabric.launch()
    net = make_net(options).to(fabric.device)
    generator = torch.Generator(fabric.device).manual_seed(options.seed)
    ema = train.Ema(net, 0.999)
    net, optimizer = fabric.setup(net, torch.optim.Adam(net.parameters()))
    rate = train.cosine(options.lr, options.steps, warmup=options.steps // 20)

    path, state = options.out / "fabric.ckpt", {"net": net, "optimizer": optimizer}
    first = 0
    if path.exists():
        rest = fabric.load(path, state)  # by torch.load: only a file of your own
        first, ema.updates = rest["step"], rest["step"]
        ema.put(ema.averages, rest["ema"])
        generator.set_state(rest["generator"].cpu())

    for n in range(first, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(n)
        loss = batch_loss(net, options, generator)
        optimizer.zero_grad()
        fabric.backward(loss)
        fabric.clip_gradients(net, optimizer, max_norm=1.0)
        optimizer.step()
        ema.update()
        if (n + 1) % options.every == 0 or n + 1 == options.steps:
            rest = {"step": n + 1, "ema": ema.averages, "generator": generator.get_state()}
            fabric.save(path, {**state, **rest})
        yield n + 1, fabric.all_reduce(loss.detach(), reduce_op="mean")


def main(arguments: list[str] | None = None) -> None:
    """Train, and say the loss at each checkpoint."""
    options = parse(arguments)
    fabric = make_fabric(options)
    for n, loss in fit(fabric, options):
        if n % options.every == 0:
            fabric.print(f"step {n}: loss {float(loss):.7f}")


if __name__ == "__main__":
    main()
