"""losses.py against loops written out by hand, closed forms, and the limits of floating point."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd import losses


def by_hand(student_logits, teacher_probs, keep, temperature):
    """The word-level term as the paper writes it: three loops and no torch."""

    def softened(weights):
        total = sum(weights)
        return [w / total for w in weights]

    loss = 0.0
    for row in range(len(student_logits)):
        if not keep[row]:
            continue
        p = softened([math.exp(x / temperature) for x in student_logits[row]])
        q = softened([x ** (1 / temperature) for x in teacher_probs[row]])
        for k in range(len(p)):
            loss -= temperature**2 * q[k] * math.log(p[k])
    return loss


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 6), vocabulary=st.integers(2, 9), temperature=st.floats(0.3, 5.0))
@settings(max_examples=60, deadline=None)
def test_teacher_cross_entropy_equals_the_loop(seed, rows, vocabulary, temperature):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(rows, vocabulary, generator=generator) * 3
    teacher = torch.softmax(torch.randn(rows, vocabulary, generator=generator) * 3, dim=-1)
    keep = torch.rand(rows, generator=generator) > 0.3
    found = losses.teacher_cross_entropy(torch.log_softmax(student, -1), teacher.log(), keep, temperature)
    expected = by_hand(student.tolist(), teacher.tolist(), keep.tolist(), temperature)
    assert found.item() == pytest.approx(expected, rel=2e-4, abs=2e-4)


def test_a_worked_example():
    """Two symbols: q = (3/4, 1/4), p = (1/2, 1/2) costs log 2; at T = 2 with logits 0, 4 log 2."""
    student = torch.log(torch.tensor([[0.5, 0.5]]))
    teacher = torch.log(torch.tensor([[0.75, 0.25]]))
    keep = torch.tensor([True])
    assert losses.teacher_cross_entropy(student, teacher, keep).item() == pytest.approx(math.log(2), abs=1e-6)
    assert losses.teacher_cross_entropy(student, teacher, keep, 2.0).item() == pytest.approx(4 * math.log(2), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_gradient_is_the_closed_form(temperature):
    """d loss / d logits = T * (p_T - q_T); none flows to the teacher, none to padding."""
    torch.manual_seed(0)
    logits = torch.randn(4, 7, requires_grad=True)
    teacher_logits = torch.randn(4, 7, requires_grad=True)
    keep = torch.tensor([True, False, True, True])
    loss = losses.teacher_cross_entropy(torch.log_softmax(logits, -1), torch.log_softmax(teacher_logits, -1), keep, temperature)
    loss.backward()
    p, q = torch.softmax(logits / temperature, -1), torch.softmax(teacher_logits / temperature, -1)
    expected = temperature * (p - q) * keep.unsqueeze(-1)
    assert torch.allclose(logits.grad, expected, atol=1e-5)
    assert teacher_logits.grad is None


def test_impossible_symbols_cost_nothing_where_the_teacher_gives_them_nothing():
    student = torch.tensor([[0.0, -math.inf], [math.log(0.5), math.log(0.5)]], requires_grad=True)
    teacher = torch.tensor([[0.0, -math.inf], [0.0, -math.inf]])
    loss = losses.teacher_cross_entropy(student, teacher, torch.tensor([True, True]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    assert torch.isfinite(student.grad).all()


def test_only_padding_is_zero():
    lprobs = torch.log_softmax(torch.randn(3, 5), -1)
    none = torch.zeros(3, dtype=torch.bool)
    assert losses.teacher_cross_entropy(lprobs, lprobs, none).item() == 0.0
    assert losses.negative_log_likelihood(lprobs, torch.zeros(3, dtype=torch.long), none).item() == 0.0


def test_unreduced_rows_sum_to_the_loss():
    torch.manual_seed(1)
    student, teacher = (torch.log_softmax(torch.randn(6, 5), -1) for _ in range(2))
    keep = torch.tensor([True, True, False, True, False, True])
    rows = losses.teacher_cross_entropy(student, teacher, keep, 1.5, reduce=False)
    assert rows.shape == (6,) and rows[2] == 0 and rows[4] == 0
    assert rows.sum().item() == pytest.approx(losses.teacher_cross_entropy(student, teacher, keep, 1.5).item(), rel=1e-6)


def test_an_ensemble_is_averaged_in_probability_space_before_the_temperature():
    torch.manual_seed(2)
    members = [torch.softmax(torch.randn(3, 5) * 4, -1) for _ in range(3)]
    mean = torch.stack(members).mean(0)
    found = losses.average_probabilities([m.log() for m in members])
    assert torch.allclose(found.exp(), mean, atol=1e-6)
    softened = losses.soften(found, 2.0).exp()
    assert torch.allclose(softened, mean.sqrt() / mean.sqrt().sum(-1, keepdim=True), atol=1e-6)
    assert losses.average_probabilities([members[0]]) is members[0]


def test_half_precision_students_do_not_overflow():
    student = (torch.randn(2, 50) * 20).half()
    teacher = torch.log_softmax(torch.randn(2, 50), -1)
    loss = losses.teacher_cross_entropy(torch.log_softmax(student.float(), -1).half(), teacher, torch.tensor([True, True]))
    assert torch.isfinite(loss) and loss.dtype == torch.float32
