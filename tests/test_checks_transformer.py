"""The checks of lecture 12 accept every right answer, and name what no value tells."""

import math

import pytest
import torch
import torch.nn.functional as F

from minigen.checks import Wrong
from minigen.checks import transformer as check


def by_torch(x, W_qkv, W_out, heads):
    """nn.MultiheadAttention's own function, which takes (N, B, E)."""
    x = x.transpose(0, 1)
    out, _ = F.multi_head_attention_forward(
        x, x, x, x.shape[2], heads, W_qkv, None, None, None, False, 0.0, W_out, None,
        need_weights=False,
    )  # fmt: skip
    return out.transpose(0, 1)


def by_einsum(x, W_qkv, W_out, heads):
    B, N, E = x.shape
    W = W_qkv.reshape(3, heads, E // heads, E)
    q, k, v = torch.einsum("bne,thde->tbhnd", x, W)
    weights = (torch.einsum("bhid,bhjd->bhij", q, k) * (E // heads) ** -0.5).softmax(-1)
    return torch.einsum("bhij,bhjd,ehd->bie", weights, v, W_out.reshape(E, heads, E // heads))


def head_by_head(x, W_qkv, W_out, heads):
    """The sum of what each head adds; exponentials with each row's largest taken out."""
    d, answer = x.shape[2] // heads, torch.zeros_like(x)
    for W_q, W_k, W_v, W_o in zip(
        *(W.split(d) for W in W_qkv.chunk(3)), W_out.split(d, 1), strict=True
    ):
        logits = (x @ W_q.T) @ (x @ W_k.T).mT / math.sqrt(d)
        e = torch.exp(logits - logits.amax(2, keepdim=True))
        answer = answer + e / e.sum(2, keepdim=True) @ (x @ W_v.T) @ W_o.T
    return answer


def by_kernel(x, W_qkv, W_out, heads):
    q, k, v = (x @ W_qkv.T).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape) @ W_out.T


def by_cumulation(q, k, v):
    q, k = F.relu(q), F.relu(k)
    state = torch.einsum("bhnd,bhne->bhnde", k, v).cumsum(2)
    below = (q * k.cumsum(2)).sum(3, keepdim=True)
    return torch.einsum("bhnd,bhnde->bhne", q, state) / below.masked_fill(below == 0, 1)


def token_by_token(q, k, v):
    q, k, answers = q.clamp(min=0), k.clamp(min=0), []
    state, keys = torch.zeros_like(k).mT @ v * 0, torch.zeros_like(k[:, :, 0])
    for i in range(q.shape[2]):
        state = state + k[:, :, i, :, None] * v[:, :, i, None, :]
        keys = keys + k[:, :, i]
        below = (q[:, :, i] * keys).sum(2, keepdim=True)
        above = (q[:, :, i, None] @ state).squeeze(2)
        answers.append(above / torch.where(below > 0, below, torch.ones_like(below)))
    return torch.stack(answers, 2)


def with_ones(q, k, v):
    """The denominator as one more value, 1 for every token; filled in place."""
    q, k, filled = q.relu(), k.relu(), torch.zeros_like(v)
    v = torch.cat([v, torch.ones_like(v[..., :1])], 3)
    state = 0
    for i in range(q.shape[2]):
        state = state + k[:, :, i : i + 1].mT @ v[:, :, i : i + 1]
        sums = (q[:, :, i : i + 1] @ state).squeeze(2)
        below = sums[..., -1:]
        filled[:, :, i] = sums[..., :-1] / (below + (below == 0))
    return filled


HEADS = [by_torch, by_einsum, head_by_head, by_kernel]
CAUSAL = [by_cumulation, token_by_token, with_ones]


@pytest.mark.parametrize(
    "exercise, right",
    [(check.self_attention, f) for f in HEADS] + [(check.causal_linear, f) for f in CAUSAL],
)
def test_every_right_form_is_accepted(exercise, right, capsys):
    exercise(right)
    assert capsys.readouterr().out.startswith("right")


def test_a_running_state_is_the_masked_quadratic_form():
    """The truth of the check against weights written out, and the last token against no mask."""
    q, k, v = check._tokens()
    weights = (q.relu() @ k.relu().mT).tril()
    total = weights.sum(3, keepdim=True)
    truth = torch.where(total > 0, weights / total, 0.0) @ v
    torch.testing.assert_close(check._causal(q, k, v), truth, rtol=1e-12, atol=1e-12)
    assert bool((total[:, :, 4] == 0).all()) and bool((total[0, 0, 0] == 0).all())
    assert 0 < float(total[:, :, 5].max()) < 1e-7


def masked(q, k, v):
    weights = (q.relu() @ k.relu().mT).tril()
    total = weights.sum(3, keepdim=True)
    return weights / torch.where(total == 0, 1.0, total) @ v


def mended(mend):
    """A quotient that is mended after the division."""

    def answer(q, k, v):
        q, k = q.relu(), k.relu()
        state = (k[..., None] * v[..., None, :]).cumsum(2)
        below = (q * k.cumsum(2)).sum(3, keepdim=True)
        return mend((q[..., None, :] @ state).squeeze(3) / below, below)

    return answer


def in_place(q, k, v):
    q, k, answers = q.relu(), k.relu(), []
    state, keys = k.new_zeros(*k.shape[:2], k.shape[3], v.shape[3]), k.new_zeros(*k[:, :, 0].shape)
    for i in range(q.shape[2]):
        state += k[:, :, i, :, None] * v[:, :, i, None]
        keys += k[:, :, i]
        below = (q[:, :, i] * keys).sum(2, keepdim=True)
        answers.append((q[:, :, i, None] @ state)[:, :, 0] / torch.where(below == 0, 1.0, below))
    return torch.stack(answers, 2)


def relued_in_place(q, k, v):
    return by_cumulation(q.relu_(), k.relu_(), v)


def cut_off(q, k, v):
    return by_cumulation(q, k, v).detach()


@pytest.mark.parametrize(
    "exercise, answer, message",
    [
        (check.self_attention, lambda x, *W: by_torch(x, *W).mT, r"has shape \(2, 12, 5\), exp"),
        (check.self_attention, lambda x, *W: by_torch(x, *W).flatten(1), r"has shape \(2, 60\)"),
        (check.self_attention, lambda *a: 2 * by_torch(*a), r"is 2 times what is right"),
        (check.self_attention, lambda x, *W: x, "is wrong: where"),
        (check.self_attention, lambda *a: (by_torch(*a), None), "got a tuple of 2"),
        (check.causal_linear, relued_in_place, "writes into"),
        (check.causal_linear, masked, "of 96 tokens you made a tensor of 9216 numbers"),
        (check.causal_linear, mended(lambda y, below: y.nan_to_num()), "the gradient is NaN"),
        (
            check.causal_linear,
            mended(lambda y, below: torch.where(below == 0, 0.0, y)),
            "the gradient is NaN",
        ),
        (check.causal_linear, in_place, "is the state changed in place"),
        (check.causal_linear, cut_off, "no gradient comes back: is it cut off"),
        (check.causal_linear, lambda q, k, v: v, "is wrong: where"),
    ],
)
def test_what_no_value_tells_is_named_too(exercise, answer, message):
    with pytest.raises(Wrong, match=message):
        exercise(answer)
