"""Lecture 16: one call on the ring of eight, every method for the same CPU time.

Radius 1.5, standard deviation 0.12, on the linear path; one net u(x, t, s) for all, three seeds,
18 seconds of one core each, teachers' calls included (not a trained teacher's own training:
that is the row "flow matching"). Columns: steps; RMS distance to the exact flow map Φ(eps, 1, 0)
after 1, 2 and 4 calls, and the share of samples within three standard deviations of a heap (the law
has 0.989). Consistency models put fresh noise back, so more than one call has no map. Dummies: a
draw of the data in place of the map, and the data's mean.
"""

import copy
import time

import torch

from minigen import distill, flow, nets, oracle, paths, targets

SEEDS, BUDGET, B, N, POOL = 3, 18.0, 512, 4000, 65_536
LINEAR, STD = paths.Linear(), 0.12
LAW = oracle.GaussianMixture.ring(8, 1.5, STD)
EXACT = LAW.denoiser(LINEAR)
CALLS = 1, 2, 4


def exact_map(eps, n=200):
    """Φ(eps, 1, 0) by Heun's method in float64, steps shorter near the data."""
    law = LAW.to(torch.float64)
    *_, x = flow.heun(law.denoiser(LINEAR), LINEAR, eps.double(), flow.grid(n, shift=0.5))
    return x.float()


def fresh():
    """The net of all methods; slow features of time, for some take its slope."""
    slow = nets.Sinusoidal(16, lowest=0.5, highest=8.0)
    return distill.TwoTimes(2, hidden=128, depth=3, embedding=slow)


def to_zero(net):
    """f(x, t) = x − t u(x, t, 0), which is x at t = 0 whatever the net."""
    return lambda x, t: x - t.reshape(-1, 1) * net(x, t, torch.zeros_like(t))


def velocity(net):
    """The net's u(x, t, t) as a denoiser of the linear path."""
    u = lambda x, t, label=None: net(x, t, t)
    return paths.denoiser(u, LINEAR, targets.velocity)


def trained(loss, net, budget=BUDGET, lr=2e-3):
    """The average of net's weights after `budget` CPU-s of loss(net, share of it spent): (B,)."""
    adam = torch.optim.Adam(net.parameters(), lr=lr)
    average, begun, steps = copy.deepcopy(net), time.process_time(), 0
    while (spent := (time.process_time() - begun) / budget) < 1:
        rate = lr * min(1, (steps + 1) / 100) * (1 - 0.98 * spent)
        adam.param_groups[0]["lr"] = rate
        adam.zero_grad()
        loss(net, spent).mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        steps += 1
        with torch.no_grad():
            pairs = [*average.parameters()], [*net.parameters()]
            torch._foreach_lerp_(*pairs, 1 - min(0.998, 1 - 1 / (steps / 4 + 1)))
    return average, steps


def robust(squares):
    """√(d² + c²) − c, in place of squares: a few pairs across two heaps would decide them."""
    return (squares + 1e-4).sqrt()


def draws(g):
    """Functions of the share spent: data and noise; two times s < t; a pair of neighbours."""
    both = lambda: (LAW.sample(B, generator=g)[0], torch.randn(B, 2, generator=g))
    rand = lambda: torch.rand(B, generator=g)

    def ways():
        t, s = rand(), rand()
        return torch.maximum(t, s), torch.minimum(t, s).where(rand() < 0.5, torch.maximum(t, s))

    def neighbours(spent):
        n = int(10 + 150 * spent)
        i = torch.randint(1, n + 1, (B,), generator=g)
        return i / n, (i - 1) / n, n

    return both, rand, ways, neighbours


def losses(g, teacher):
    """name: loss(net, spent) -> (B,), of those that are trained in one go."""
    both, rand, ways, neighbours = draws(g)
    exact_u = flow.velocity(EXACT, LINEAR)

    def consistency(guide):
        def loss(net, spent):
            (t, s, n), f = neighbours(spent), to_zero(net)
            return n**0.5 * robust(
                distill.consistency_loss(f, f, LINEAR, *both(), t, s, teacher=guide)
            )

        return loss

    def mean_flow(oracle_v):
        def loss(net, spent):
            (x0, eps), (t, s) = both(), ways()
            if oracle_v:  # the pair on whose line lies xt, and whose velocity is the mean one
                t = t.clamp(min=1e-3)
                s, xt, row = torch.minimum(s, t), LINEAR.mix(x0, eps, t), t[:, None]
                v = exact_u(xt, t)
                x0, eps = xt - row * v, xt + (1 - row) * v
            squares = distill.mean_flow_loss(net, x0, eps, t, s)
            return squares / (squares.detach() + 1e-2).sqrt()

        return loss

    def matching(net, spent):
        (x0, eps), t = both(), rand()
        return flow.loss(lambda x, t, label: net(x, t, t), x0, eps, t)

    def shortcut(net, spent):
        x0, eps = both()
        m = B // 4
        half = 0.5 ** torch.randint(1, 7, (m,), generator=g)
        t = 2 * half + (1 - 2 * half) * rand()[:m]
        with torch.no_grad():
            x, row = LINEAR.mix(x0[:m], eps[:m], t), half[:, None]
            one = net(x, t, t - half)
            goal = (one + net(x - row * one, t - half, (t - 2 * half).clamp(min=0))) / 2
        joined = (net(x, t, (t - 2 * half).clamp(min=0)) - goal).square().mean(1)
        t = rand()[m:]
        still = flow.loss(lambda x, t, label: net(x, t, t), x0[m:], eps[m:], t)
        return torch.cat([joined, still])

    pool = []

    def regression(net, spent):
        if not pool:  # within the budget
            eps = torch.randn(POOL, 2, generator=g)
            *_, x = flow.heun(EXACT, LINEAR, eps, flow.grid(40, shift=0.5))
            pool.extend((eps, x))
        row, one = torch.randint(POOL, (B,), generator=g), torch.ones(B)
        eps, x = (part[row] for part in pool)
        return (net(eps, one, 0 * one) - (eps - x)).square().mean(1)

    return {
        "consistency, from data": consistency(None),
        "consistency, exact teacher": consistency(EXACT),
        "consistency, trained teacher": consistency(velocity(teacher)),
        "mean flow, v from data": mean_flow(False),
        "mean flow, exact v": mean_flow(True),
        "shortcut": shortcut,
        "the exact map by regression": regression,
    }, matching


def progressive(g, halvings=6):
    """64 steps of the exact teacher halved to 1: {calls: net}, the steps of all trainings."""
    both, _, _, _ = draws(g)
    net, guide, found, total = fresh(), EXACT, {}, 0
    for k in reversed(range(halvings)):
        n = 2**k

        def loss(net, spent, n=n, guide=guide):
            t = torch.randint(1, n + 1, (B,), generator=g) / n
            xt = LINEAR.mix(*both(), t)
            s = (t - 1 / n).clamp(min=0)
            x0 = distill.progressive_target(guide, LINEAR, xt, t, t - 0.5 / n, s)
            return ((to_zero(net)(xt, t) - x0) / t[:, None]).square().mean(1)

        net, steps = trained(loss, net, BUDGET / halvings)
        found[n], total = copy.deepcopy(net), total + steps
        guide = to_zero(found[n])
    return found, total


def reflow(g, teacher):
    """The teacher trained on, on lines between the ends of its own trajectories."""
    pool = []

    def loss(net, spent):
        if not pool:  # within the budget
            eps = torch.randn(POOL // 4, 2, generator=g)
            pool.extend(flow.reflow_pairs(velocity(teacher), eps, flow.grid(10, shift=0.5)))
        row, t = torch.randint(POOL // 4, (B,), generator=g), torch.rand(B, generator=g)
        x0, eps = (part[row] for part in pool)
        return flow.loss(lambda x, t, label: net(x, t, t), x0, eps, t)

    return trained(loss, copy.deepcopy(teacher))


def near(x):
    """The share of points within three standard deviations of a heap."""
    return float((torch.cdist(x, LAW.means).amin(1) < 3 * STD).double().mean())


def rms(x, goal):
    return float((x - goal).square().sum(1).mean().sqrt())


def jumps(u, eps, calls):
    *_, x = distill.jump(u, eps, flow.grid(calls))
    return x


def rows(seed, eps, goal):
    """name: (steps, RMS after 1, 2, 4 calls, share near a heap after each)."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    table = {}
    still = lambda net: lambda x, t, s: net(x, t, t)
    long = lambda net: lambda x, t, s: net(x, t, 0 * t)

    def put(name, steps, points, has_map=True):
        far = [rms(x, goal) if has_map or i == 0 else float("nan") for i, x in enumerate(points)]
        table[name] = [steps, *far, *map(near, points)]

    _, matching = losses(g, fresh())
    teacher, steps = trained(matching, fresh())
    put("flow matching", steps, [jumps(still(teacher), eps, n) for n in CALLS])
    put("… 8, 32 calls", steps, [jumps(still(teacher), eps, n) for n in (8, 32)])
    for name, loss in losses(g, teacher)[0].items():
        net, steps = trained(loss, fresh())
        if name.startswith("consistency"):
            times = [torch.linspace(1, 0, n + 1)[:-1] for n in CALLS]
            walks = [distill.multistep(to_zero(net), LINEAR, eps, ts, generator=g) for ts in times]
            put(name, steps, [[*walk][-1] for walk in walks], False)
        elif name.endswith("regression"):
            put(name, steps, [jumps(net, eps, 1)])
        else:
            put(name, steps, [jumps(net, eps, n) for n in CALLS])
    found, steps = progressive(g)
    put("progressive, exact teacher", steps, [jumps(long(found[n]), eps, n) for n in CALLS])
    net, steps = reflow(g, teacher)
    put("reflow", steps, [jumps(still(net), eps, n) for n in CALLS])
    put("dummy: a draw of the data", 0, [LAW.sample(N, generator=g)[0]])
    put("dummy: the data's mean", 0, [torch.zeros(N, 2)])
    return table


def main():
    eps = torch.randn(N, 2, generator=torch.Generator().manual_seed(99))
    goal = exact_map(eps)
    assert rms(exact_map(eps, 100), goal) < 3e-4, "the exact map needs more steps"
    heads = "RMS, 1 call", "2 calls", "4 calls", "near, 1", "near, 2", "near, 4"
    print(f"{'':30s}{'steps':>8s}" + "".join(f"{head:>16s}" for head in heads), flush=True)
    tables = [rows(seed, eps, goal) for seed in range(SEEDS)]
    for name in tables[0]:
        runs = torch.tensor([table[name] for table in tables], dtype=torch.double)
        k = (runs.shape[1] - 1) // 2
        mean, error = runs.mean(0).tolist(), (runs.std(0) / SEEDS**0.5).tolist()
        cells = [
            "" if m != m else f"{m:.3f} ± {e:.3f}" for m, e in zip(mean[1:], error[1:], strict=True)
        ]
        cells = cells[:k] + [""] * (3 - k) + cells[k:]
        print(f"{name:30s}{mean[0]:8.0f}" + "".join(f"{cell:>16s}" for cell in cells))


if __name__ == "__main__":
    main()
