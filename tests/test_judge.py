"""The protocol for digits orders samples whose order is known, and sees the two known dummies."""

import math

import pytest
import torch
from torch.nn.functional import conv2d, pad

from minigen import data, judge


@pytest.fixture(scope="module")
def splits():
    return (*data.digits("train"), *data.digits("test"))


@pytest.fixture
def grain(generator):
    return lambda x, std: x + std * torch.randn(x.shape, generator=generator)


def blurred(x, side):
    kernel = torch.full((1, 1, 3, 3), side)
    kernel[..., 1, 1] = 1 - 8 * side
    return conv2d(pad(x, (1, 1, 1, 1), value=-1.0), kernel)


def test_the_floor_is_the_test_digits(splits):
    floor = judge.floor()
    assert floor == judge.digits(splits[2], splits[3])
    assert floor.accuracy > 0.98 and floor.frechet < 4 and floor.memorised < 0.03
    assert min(floor.recall, floor.precision) > 0.85


def test_faint_noise_lowers_precision_and_no_other_number(splits, grain):
    rows = [judge.digits(grain(splits[2], std), splits[3]) for std in (0.1, 0.2)]
    falls = [judge.floor().precision, *(row.precision for row in rows)]
    assert falls[0] > falls[1] + 0.04 > falls[2] + 0.2, falls
    assert abs(rows[0].frechet - judge.floor().frechet) < 0.3  # to it the judge is blind


def test_the_cut_does_not_move_the_mean_of_noisy_digits(splits, grain):
    """At ±1 it does: noise of 0.1, which the judge's features do not see, scores 5.9 for 3.5."""
    noisy = grain(splits[2], 0.1)
    at_one = judge.digits(noisy.clamp(-1, 1)).frechet
    assert at_one > judge.digits(noisy).frechet + 1.5


def test_blurred_digits_and_a_missing_class_score_badly(splits, generator):
    x, label = splits[2:]
    floor, soft = judge.floor(), judge.digits(blurred(x, 0.05), label)
    assert soft.frechet > 5 * floor.frechet and soft.recall < 0.3
    others = (label != 3).nonzero()[:, 0]
    pick = others[torch.randint(len(others), (360,), generator=generator)]
    without = judge.digits(torch.where((label == 3)[:, None, None, None], x[pick], x), label)
    assert without.frechet > 3 * floor.frechet and without.recall < floor.recall - 0.05


def test_a_few_exploded_samples_count_as_a_few(splits):
    x = splits[2].clone()
    x[:7] *= 1e4
    got = judge.digits(x, splits[3])
    assert judge.floor().frechet < got.frechet < 2.5 * judge.floor().frechet


def test_memory_is_seen_through_grain(splits, grain):
    label = torch.arange(10).repeat_interleave(36)
    some = torch.cat([splits[0][splits[1] == k][:36] for k in range(10)])
    for std in (0.0, 0.2):
        copies = judge.digits(grain(some, std), label)
        assert copies.memorised > 0.35 and copies.precision > judge.floor().precision + 0.08
        assert copies.frechet < judge.floor().frechet + 0.5  # to it copies are the best of samples


def test_one_gaussian_a_class_reads_well_and_lacks_precision(splits, generator):
    x, label = splits[:2]
    made = []
    for k in range(10):
        z = x[label == k].flatten(1).double()
        root = torch.linalg.cholesky(z.T.cov() + 1e-6 * torch.eye(64, dtype=torch.double))
        made.append(z.mean(0) + torch.randn(36, 64, generator=generator).double() @ root.T)
    dummy = judge.digits(
        torch.cat(made).reshape(-1, 1, 8, 8), torch.arange(10).repeat_interleave(36)
    )
    assert dummy.accuracy > 0.97 and dummy.precision < judge.floor().precision - 0.15


def test_a_sample_without_labels_has_no_accuracy(splits):
    row = judge.digits(splits[2])
    assert math.isnan(row.accuracy) and row[1:] == judge.floor()[1:]


def test_the_table_gives_mean_and_standard_error_beside_the_floor():
    a, b = judge.Verdict(0.9, 4.0, 0.5, 0.6, 0.0), judge.Verdict(0.8, 6.0, 0.7, 0.6, 0.0)
    head, two, one, unlabelled, floor = judge.table(
        {"two runs": [a, b], "one": a, "any": a._replace(accuracy=math.nan)}
    ).splitlines()
    assert head.split() == ["accuracy", "Fréchet", "recall", "precision", "memorised"]
    assert two.split()[2:8] == ["0.850", "±", "0.050", "5.00", "±", "1.00"]
    assert one.split() == ["one", "0.900", "4.00", "0.500", "0.600", "0.000"]
    assert unlabelled.split()[1] == "–" and floor.startswith("test digits ")
    assert len({len(line) for line in (head, two, one, floor)}) == 1


def test_what_is_not_finite_or_no_digit_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        judge.digits(torch.full((9, 1, 8, 8), torch.nan))


# Letters and words ------------------------------------------------------------------------------


def test_letters_are_judged_by_the_same_protocol(generator):
    x, label = data.letters("test")
    floor = judge.letters.floor()
    assert floor.accuracy > 0.98 and floor.memorised < 0.03
    assert min(floor.recall, floor.precision) > 0.85
    soft = judge.letters(blurred(x, 0.1), label)
    assert soft.frechet > 3 * floor.frechet and soft.recall < floor.recall - 0.3
    shifted = judge.letters(x, (label + 1) % 26)
    assert shifted.accuracy < 0.02 and shifted[1:] == floor[1:]
    copies = judge.letters(data.letters()[0][:520])
    assert copies.memorised > 0.15 and copies.precision == 1  # most letters have near twins
    assert judge.table({"soft": soft}, judge.letters).splitlines()[-1].startswith("test images")


def test_words_are_read_in_order(generator):
    x, ids, _ = data.words(500, characters=data.CAPITALS, generator=generator)
    read = judge.read(x)
    assert (read == ids).all(1).float().mean() > 0.97
    assert (read == ids.flip(1)).all(1).float().mean() < 0.1  # of AA, both orders are right
    with pytest.raises(ValueError, match="not finite"):
        judge.read(torch.full((2, 1, 16, 32), torch.inf))


def test_a_fifth_of_all_pairs_is_unseen_and_every_letter_is_seen_in_each_place():
    first = data.CHARACTERS.index("A")
    pairs = first + torch.cartesian_prod(torch.arange(26), torch.arange(26))
    hidden = judge.unseen(pairs)
    assert abs(hidden.float().mean() - 0.2) < 0.005
    for place in (0, 1):
        assert len(pairs[~hidden][:, place].unique()) == len(pairs[hidden][:, place].unique()) == 26
