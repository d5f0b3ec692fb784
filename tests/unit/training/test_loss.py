"""losses.py and divergences.py against loops written out by hand, closed forms, autograd, and the
limits of floating point.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.training import loss as losses
from fairseq_seqkd.training import soft_targets as divergences
from fairseq_seqkd.training.loss import Objective
from fairseq_seqkd.training.soft_targets import Dense, TopK, top_k


def softened(weights, temperature):
    powers = [w ** (1 / temperature) for w in weights]
    return [x / sum(powers) for x in powers]


def between(p, q, divergence):
    """How far p is from q, as the definitions say it: sums over two lists."""
    if divergence == "forward_kl":
        return -sum(b * math.log(a) for a, b in zip(p, q))
    if divergence == "reverse_kl":
        return sum(a * math.log(a / b) for a, b in zip(p, q))
    if divergence == "js":
        m = [(a + b) / 2 for a, b in zip(p, q)]
        return sum(a * math.log(a / c) + b * math.log(b / c) for a, b, c in zip(p, q, m)) / 2
    return sum(abs(a - b) for a, b in zip(p, q)) / 2


def by_hand(logits, teacher_probs, target, keep, objective):
    """(loss, nll, kd) as the paper and fairseq's label smoothing write them: loops and no torch."""
    loss = nll = kd = 0.0
    alpha, smoothing, temperature = (
        objective.alpha,
        objective.label_smoothing,
        objective.temperature,
    )
    for row in range(len(logits)):
        if not keep[row]:
            continue
        vocabulary = len(logits[row])
        weights = [math.exp(x - max(logits[row])) for x in logits[row]]
        p, eps = softened(weights, 1.0), smoothing / (vocabulary - 1)
        own = -math.log(p[target[row]])
        smooth = -sum(math.log(x) for x in p)
        p_t, q_t = softened(weights, temperature), softened(teacher_probs[row], temperature)
        far = temperature**2 * between(p_t, q_t, objective.divergence)
        nll, kd = nll + own, kd + far
        loss += (1 - alpha) * ((1 - smoothing - eps) * own + eps * smooth) + alpha * far
    return loss, nll, kd


def example(seed, rows, vocabulary, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        torch.randn(rows, vocabulary, generator=generator, dtype=dtype) * 3 for _ in range(2)
    )
    target = torch.randint(vocabulary, (rows,), generator=generator)
    keep = torch.rand(rows, generator=generator) > 0.3
    return student, torch.softmax(teacher, -1), target, keep


def dense(probabilities, temperature=1.0):
    return Dense(divergences.soften(probabilities.log(), temperature).exp())


OBJECTIVES = st.builds(
    Objective,
    alpha=st.floats(0, 1),
    label_smoothing=st.sampled_from([0.0, 0.1, 0.5]),
    temperature=st.one_of(st.just(1.0), st.floats(0.3, 5.0)),
    divergence=st.sampled_from(divergences.NAMES),
)


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 6),
    vocabulary=st.integers(2, 9),
    objective=OBJECTIVES,
)
@settings(max_examples=120, deadline=None)
def test_the_objective_equals_the_loops(seed, rows, vocabulary, objective):
    student, teacher, target, keep = example(seed, rows, vocabulary)
    found = losses.word_level(
        student, target, keep, dense(teacher, objective.temperature), objective
    )
    expected = by_hand(
        student.tolist(), teacher.tolist(), target.tolist(), keep.tolist(), objective
    )
    assert [rows.sum().item() for rows in found] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert all(not values[~keep].any() for values in found)


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 5),
    vocabulary=st.integers(2, 7),
    objective=OBJECTIVES,
)
@settings(max_examples=60, deadline=None)
def test_the_gradient_is_that_of_finite_differences(seed, rows, vocabulary, objective):
    student, teacher, target, keep = example(seed, rows, vocabulary)
    if objective.divergence == "tvd":  # it has a corner where p = q
        p = torch.softmax(student / objective.temperature, -1)
        if ((p - dense(teacher, objective.temperature).probabilities).abs() < 1e-4).any():
            return
    soft = dense(teacher, objective.temperature)
    weights = torch.linspace(
        0.5, 2.0, rows, dtype=torch.float64
    )  # as another reduction would weigh the rows

    def loss(logits):
        return (losses.word_level(logits, target, keep, soft, objective).loss * weights).sum()

    assert torch.autograd.gradcheck(loss, (student.requires_grad_(),), atol=1e-6)


@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 7),
    alpha=st.floats(0, 1),
    smoothing=st.sampled_from([0.0, 0.1]),
    temperature=st.one_of(st.just(1.0), st.floats(0.3, 5.0)),
    tail=st.sampled_from(divergences.TAILS),
)
@settings(max_examples=80, deadline=None)
def test_a_stored_distribution_is_a_whole_one_with_a_flat_tail(
    seed, k, alpha, smoothing, temperature, tail
):
    """Loss and gradient of the top k against those of the same distribution written out over the
    vocabulary.
    """
    student, teacher, target, keep = example(seed, 5, 7)
    probabilities, ids = teacher.topk(k, dim=-1)
    rest = 1 - probabilities.sum(-1)
    whole = (
        torch.zeros_like(teacher)
        if tail == "ignore" or k == 7
        else (rest / (7 - k)).unsqueeze(-1).repeat(1, 7)
    )
    whole.scatter_(-1, ids, probabilities)
    whole = whole / whole.sum(-1, keepdim=True)
    objective, gradients, values = Objective(alpha, smoothing, temperature), [], []
    for soft in (dense(whole, temperature), top_k(ids, probabilities, rest, 7, temperature, tail)):
        logits = student.clone().requires_grad_()
        found = losses.word_level(logits, target, keep, soft, objective)
        found.loss.sum().backward()
        gradients.append(logits.grad)
        values.append(torch.stack([rows.detach() for rows in found]))
    assert torch.allclose(*values, atol=1e-9) and torch.allclose(*gradients, atol=1e-9)


def test_worked_examples():
    """p = (1/2, 1/2) and q = (3/4, 1/4), with the logarithms done on paper."""
    student, keep, target = torch.zeros(1, 2), torch.tensor([True]), torch.tensor([0])
    teacher = torch.tensor([[0.75, 0.25]])

    def kd(divergence, temperature=1.0):
        objective = Objective(1.0, 0.0, temperature, divergence)
        return losses.word_level(
            student, target, keep, dense(teacher, temperature), objective
        ).kd.item()

    assert kd("forward_kl") == pytest.approx(math.log(2), abs=1e-6)
    assert kd("forward_kl", 2.0) == pytest.approx(4 * math.log(2), abs=1e-6)
    assert kd("reverse_kl") == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2), abs=1e-6)
    # m = (5/8, 3/8)
    js = (
        0.5 * math.log(4 / 5)
        + 0.5 * math.log(4 / 3)
        + 0.75 * math.log(6 / 5)
        + 0.25 * math.log(2 / 3)
    ) / 2
    assert kd("js") == pytest.approx(js, abs=1e-6)
    assert kd("tvd") == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_papers_gradient_is_the_closed_form(temperature):
    """d loss / d logits = T * (p_T - q_T), and nothing for padding."""
    torch.manual_seed(0)
    logits, teacher_logits = torch.randn(4, 7, requires_grad=True), torch.randn(4, 7)
    keep, target = torch.tensor([True, False, True, True]), torch.zeros(4, dtype=torch.long)
    q = torch.softmax(teacher_logits / temperature, -1)
    losses.word_level(
        logits, target, keep, Dense(q), Objective(1.0, 0.0, temperature)
    ).loss.sum().backward()
    expected = temperature * (torch.softmax(logits / temperature, -1) - q) * keep.unsqueeze(-1)
    assert torch.allclose(logits.grad, expected, atol=1e-5)


def test_chunks_change_nothing(monkeypatch):
    student, teacher, target, keep = example(3, 11, 6)
    found = []
    for size in (1, 13, 10**6):
        monkeypatch.setitem(losses.CHUNK, "cpu", size)
        logits = student.clone().requires_grad_()
        rows = losses.word_level(logits, target, keep, dense(teacher), Objective(0.4, 0.1))
        rows.loss.sum().backward()
        found.append(
            torch.cat([torch.stack([r.detach() for r in rows]).flatten(), logits.grad.flatten()])
        )
    assert torch.equal(found[0], found[1]) and torch.equal(found[1], found[2])


@pytest.mark.trap(6)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("divergence", divergences.NAMES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_no_nan_at_the_limits(dtype, divergence, temperature):
    """Probabilities of 0 and 1 on either side, in agreement and in contradiction, and rows of
    padding.
    """
    certain = torch.tensor(
        [[30000.0, -30000.0, 0.0], [0.0, -math.inf, 0.0], [-30000.0, 30000.0, 0.0], [0.0, 0.0, 0.0]]
    )
    logits = certain.to(dtype).requires_grad_()
    teacher = torch.tensor(
        [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]
    )
    target, keep = torch.tensor([0, 0, 0, 1]), torch.tensor([True, True, True, False])
    rows = losses.word_level(
        logits, target, keep, Dense(teacher), Objective(0.5, 0.1, temperature, divergence)
    )
    rows.loss.sum().backward()
    assert all(values.dtype == torch.float32 and torch.isfinite(values).all() for values in rows)
    assert torch.isfinite(logits.grad).all() and logits.grad.dtype == dtype
    assert rows.kd[0].item() == pytest.approx(0, abs=1e-4)
    assert not logits.grad[3].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("tail", divergences.TAILS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_no_nan_where_the_top_k_hold_everything_or_nothing(dtype, tail, temperature):
    logits = (torch.randn(3, 50) * 20).to(dtype).requires_grad_()
    ids = torch.tensor([[4, 2], [7, 8], [0, 0]])
    probabilities = torch.tensor([[1.0, 0.0], [0.6, 0.4], [0.0, 0.0]])
    soft = top_k(ids, probabilities, torch.tensor([0.0, 0.0, 1.0]), 50, temperature, tail)
    keep = torch.tensor([True, True, False])
    rows = losses.word_level(
        logits, torch.tensor([4, 7, 1]), keep, soft, Objective(0.5, 0.1, temperature)
    )
    rows.loss.sum().backward()
    assert (
        all(torch.isfinite(values).all() for values in rows) and torch.isfinite(logits.grad).all()
    )
    assert not logits.grad[2].any()


def test_padding_of_a_whole_vocabulary_is_no_number_by_zero():
    """With every symbol stored there is no rest, and a row of padding sums to nothing."""
    logits = torch.randn(2, 3, requires_grad=True)
    ids, probabilities = (
        torch.tensor([[0, 1, 2], [0, 0, 0]]),
        torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 0.0]]),
    )
    for temperature in (1.0, 2.0):
        soft = top_k(ids, probabilities, torch.tensor([0.0, 1.0]), 3, temperature)
        objective, keep = Objective(0.5, 0.0, temperature), torch.tensor([True, False])
        losses.word_level(logits, torch.tensor([0, 1]), keep, soft, objective).loss.sum().backward()
        assert torch.isfinite(logits.grad).all() and not logits.grad[1].any()


def test_only_padding_is_zero():
    logits = torch.randn(3, 5, requires_grad=True)
    none, target = torch.zeros(3, dtype=torch.bool), torch.zeros(3, dtype=torch.long)
    rows = losses.word_level(
        logits, target, none, dense(torch.softmax(torch.randn(3, 5), -1)), Objective()
    )
    rows.loss.sum().backward()
    assert not any(values.any() for values in rows) and not logits.grad.any()


def test_half_precision_gradients_are_scaled_before_they_are_rounded():
    """fairseq multiplies the loss of --fp16 so that small gradients survive: they must not be
    rounded before that.
    """
    logits = torch.zeros(1, 4096, dtype=torch.float16, requires_grad=True)
    teacher = torch.full((1, 4096), 1 / 4096)
    teacher[0, 0] += 1e-6
    rows = losses.word_level(
        logits, torch.tensor([0]), torch.tensor([True]), Dense(teacher), Objective(1.0)
    )
    (rows.loss.sum() * 2**14).backward()
    assert logits.grad[0, 0].item() == pytest.approx(-1e-6 * 2**14, rel=0.01)


def test_top_k_of_a_uniform_tail():
    soft = top_k(torch.tensor([[3]]), torch.tensor([[0.5]]), torch.tensor([0.5]), 6)
    assert isinstance(soft, TopK) and soft.other.item() == pytest.approx(0.1)
    assert (
        top_k(
            torch.tensor([[3]]), torch.tensor([[0.5]]), torch.tensor([0.5]), 6, tail="ignore"
        ).other.item()
        == 0
    )


def test_an_ensemble_is_averaged_in_probability_space_before_the_temperature():
    torch.manual_seed(2)
    members = [torch.softmax(torch.randn(3, 5) * 4, -1) for _ in range(3)]
    mean = torch.stack(members).mean(0)
    found = divergences.average_probabilities([m.log() for m in members])
    assert torch.allclose(found.exp(), mean, atol=1e-6)
    softened = divergences.soften(found, 2.0).exp()
    assert torch.allclose(softened, mean.sqrt() / mean.sqrt().sum(-1, keepdim=True), atol=1e-6)
    assert divergences.average_probabilities([members[0]]) is members[0]
