"""The criterions against fairseq's own and a loop by hand; what they promise about the teacher."""

import argparse
import dataclasses
import math

import pytest
import torch
import toys
from fairseq.logging import metrics

from fairseq_seqkd.errors import Refusal


def gradients(task, model, criterion, sample):
    """(loss, sample size, {name: gradient}) of one forward and backward pass, dropout off."""
    for module in model.modules():
        if isinstance(getattr(module, "p", None), float):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    model.train()
    criterion.train()
    model.zero_grad()
    loss, size, log = criterion(model, sample)
    loss.backward()
    return (
        loss.item(),
        size,
        {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None},
        log,
    )


@pytest.mark.trap(6)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("sentence_avg", [False, True])
def test_alpha_0_equals_fairseqs_own_criterion(tiny, smoothing, sentence_avg):
    own = (
        {"criterion": "label_smoothed_cross_entropy", "label-smoothing": smoothing}
        if smoothing
        else {}
    )
    stock = toys.build(tiny, {"criterion": "cross_entropy", **own}, sentence_avg=sentence_avg)
    ours = toys.build(
        tiny, criterion="word_kd", alpha=0, label_smoothing=smoothing, sentence_avg=sentence_avg
    )
    sample = toys.batch(stock[0])
    loss, size, grads, _ = gradients(*stock, sample)
    our_loss, our_size, our_grads, _ = gradients(*ours, sample)
    assert our_loss == pytest.approx(loss, rel=1e-6)
    assert our_size == size == (7 if sentence_avg else sample["ntokens"])
    assert grads.keys() == our_grads.keys()
    for name in grads:
        assert torch.allclose(grads[name], our_grads[name], rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore_prefix_size", [0, 1])
@pytest.mark.parametrize("sentence_avg", [False, True])
def test_a_teacher_without_weight_equals_fairseqs_own_criterion(
    tiny, teacher, smoothing, ignore_prefix_size, sentence_avg
):
    """With a teacher the objective is computed here, not by fairseq: what else is returned is still
    what fairseq returns.
    """
    options = {
        "label-smoothing": smoothing,
        "ignore-prefix-size": ignore_prefix_size,
        "report-accuracy": True,
    }
    stock = toys.build(
        tiny, options, criterion="label_smoothed_cross_entropy", sentence_avg=sentence_avg
    )
    ours = toys.build(
        tiny, options, criterion="word_kd", teacher_path=teacher, sentence_avg=sentence_avg
    )
    ours[2].objective = dataclasses.replace(ours[2].objective, alpha=0.0)
    sample = toys.batch(stock[0])
    loss, size, grads, log = gradients(*stock, sample)
    our_loss, our_size, our_grads, our_log = gradients(*ours, sample)
    assert our_loss == pytest.approx(loss, rel=1e-5)
    assert our_size == size == (7 if sentence_avg else sample["ntokens"])
    assert our_log.keys() == log.keys() | {"kd_loss", "teacher_nll_loss"}
    assert {key: float(our_log[key]) for key in log} == pytest.approx(
        {key: float(log[key]) for key in log}, rel=1e-5
    )
    assert grads.keys() == our_grads.keys()
    for name in grads:
        assert torch.allclose(grads[name], our_grads[name], rtol=1e-4, atol=1e-5), name


def test_the_teachers_part_is_logged_in_bits_a_token(tiny):
    _, _, criterion = toys.build(tiny, criterion="word_kd", alpha=0)
    logs = [
        {
            "loss": 6.0,
            "nll_loss": 5.0,
            "kd_loss": 7.0,
            "teacher_nll_loss": 3.0,
            "ntokens": n,
            "sample_size": n,
        }
        for n in (4, 6)
    ]
    with metrics.aggregate() as meters:
        criterion.reduce_metrics(logs)
    seen = meters.get_smoothed_values()
    assert seen["kd_loss"] == pytest.approx(14 / 10 / math.log(2), abs=1e-3)
    assert seen["teacher_nll_loss"] == pytest.approx(6 / 10 / math.log(2), abs=1e-3)


@pytest.mark.parametrize(
    "members,alpha,temperature,smoothing",
    [(1, 0.5, 1.0, 0.0), (1, 0.3, 2.0, 0.1), (1, 1.0, 1.0, 0.0), (2, 0.7, 2.0, 0.0)],
)
def test_the_objective_equals_a_loop_by_hand(
    tiny, teacher, second_teacher, members, alpha, temperature, smoothing
):
    path = ":".join(map(str, [teacher, second_teacher][:members]))
    task, model, criterion = toys.build(
        tiny,
        criterion="word_kd",
        teacher_path=path,
        alpha=alpha,
        temperature=temperature,
        label_smoothing=smoothing,
    )
    assert len(criterion.teacher.models) == members
    sample = toys.batch(task)
    loss, _, _, log = gradients(task, model, criterion, sample)
    model.eval()
    with torch.no_grad():
        p = (
            model.get_normalized_probs(model(**sample["net_input"]), log_probs=False)
            .double()
            .tolist()
        )
        q = [
            t.get_normalized_probs(t(**sample["net_input"]), log_probs=False).double()
            for t in criterion.teacher.models
        ]
        q = (sum(q) / len(q)).tolist()
    vocabulary, nll, smooth, kd, teacher_nll = len(task.target_dictionary), 0.0, 0.0, 0.0, 0.0
    for i, sentence in enumerate(sample["target"].tolist()):
        for j, token in enumerate(sentence):
            if token == task.target_dictionary.pad():
                continue
            nll -= math.log(p[i][j][token])
            teacher_nll -= math.log(q[i][j][token])
            smooth -= sum(math.log(x) for x in p[i][j])
            p_t, q_t = ([x ** (1 / temperature) for x in row] for row in (p[i][j], q[i][j]))
            kd -= temperature**2 * sum(
                b / sum(q_t) * math.log(a / sum(p_t)) for a, b in zip(p_t, q_t)
            )
    eps = smoothing / (vocabulary - 1)
    expected = (1 - alpha) * ((1 - smoothing - eps) * nll + eps * smooth) + alpha * kd
    assert loss == pytest.approx(expected, rel=1e-4)
    assert log["nll_loss"].item() == pytest.approx(nll, rel=1e-4)
    assert log["kd_loss"].item() == pytest.approx(kd, rel=1e-4)
    assert log["teacher_nll_loss"].item() == pytest.approx(teacher_nll, rel=1e-4)


@pytest.mark.parametrize("student_arch", ["lstm", "transformer"])
def test_any_architecture_learns_from_any_other(tiny, teacher, lstm_teacher, student_arch):
    path = teacher if student_arch == "lstm" else lstm_teacher
    options = toys.LSTM if student_arch == "lstm" else {}
    task, model, criterion = toys.build(tiny, options, criterion="word_kd", teacher_path=path)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    sample, seen = toys.batch(task), []
    teacher_lprobs = criterion.teacher.log_probs(sample, next(model.parameters()))
    keep = sample["target"].ne(task.target_dictionary.pad())
    entropy = (
        -(teacher_lprobs.exp() * teacher_lprobs).sum(-1)[keep].sum().item()
    )  # it cannot fall below
    model.train()
    for _ in range(25):
        optimizer.zero_grad()
        loss, size, log = criterion(model, sample)
        (loss / size).backward()
        optimizer.step()
        seen.append(log["kd_loss"].item())
    assert seen[-1] - entropy < 0.7 * (seen[0] - entropy)


@pytest.mark.trap(2)
def test_the_teacher_is_no_part_of_the_criterion(tiny, teacher):
    task, model, criterion = toys.build(tiny, criterion="word_kd", teacher_path=teacher)
    assert (
        list(criterion.parameters()) == []
        and criterion.state_dict() == {}
        and list(criterion.children()) == []
    )
    criterion.train()
    assert not any(
        module.training for member in criterion.teacher.models for module in member.modules()
    )
    criterion(model, toys.batch(task))[0].backward()
    assert all(p.grad is None for member in criterion.teacher.models for p in member.parameters())


@pytest.mark.trap(3)
def test_the_teacher_does_not_replace_the_students_generator(tiny, teacher):
    """fairseq keeps one generator on the task; a teacher built there would make validation BLEU the
    teacher's.
    """
    task, model, _ = toys.build(tiny, criterion="word_kd", teacher_path=teacher, eval_bleu=True)
    assert task.sequence_generator.model.models_size == 1
    assert task.sequence_generator.model.single_model is model


def test_an_ensemble_is_the_average_of_its_members(tiny, teacher, second_teacher):
    task, model, both = toys.build(
        tiny, criterion="word_kd", teacher_path=f"{teacher}:{second_teacher}"
    )
    singles = [
        toys.build(tiny, criterion="word_kd", teacher_path=path)[2]
        for path in (teacher, second_teacher)
    ]
    sample, like = toys.batch(task), next(model.parameters())
    mean = sum(c.teacher.log_probs(sample, like).exp() for c in singles) / 2
    assert torch.allclose(both.teacher.log_probs(sample, like).exp(), mean, atol=1e-6)


def test_validation_asks_no_teacher_and_reports_the_students_likelihood(tiny, teacher):
    task, model, criterion = toys.build(tiny, criterion="word_kd", teacher_path=teacher)
    _, _, stock = toys.build(tiny, criterion="cross_entropy")
    criterion.teacher.models = None  # it would fail if it were asked
    sample = toys.batch(task)
    _, _, log = task.valid_step(sample, model, criterion)
    _, _, expected = task.valid_step(sample, model, stock)
    assert log["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-5)
    assert log["nll_loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-5)
    assert "kd_loss" not in log


def test_unreduced_losses_are_one_value_a_token(tiny, teacher):
    task, model, criterion = toys.build(
        tiny, criterion="word_kd", teacher_path=teacher, dropout=0.0
    )
    sample = toys.batch(task)
    model.train()
    rows, _, _ = criterion(model, sample, reduce=False)
    total, _, _ = criterion(model, sample)
    assert rows.numel() == sample["target"].numel()
    assert rows.sum().item() == pytest.approx(total.item(), rel=1e-4)


@pytest.mark.parametrize(
    "options,sentence",
    [
        ({}, "--teacher-path"),
        ({"alpha": 1.5}, "between 0"),
        ({"alpha": -0.1}, "between 0"),
        ({"temperature": 0}, "--temperature"),
        ({"temperature": "nan"}, "--temperature"),
        ({"label-smoothing": 1.0}, "--label-smoothing"),
        ({"alpha": 0.5, "teacher-path": "absent.pt"}, "does not exist"),
    ],
)
def test_options_that_make_no_sense_are_refused(tiny, options, sentence):
    with pytest.raises(Refusal, match=sentence):
        toys.build(tiny, {"criterion": "word_kd", **options})


@pytest.mark.parametrize("view,other", [("seq_kd", "seq_inter"), ("seq_inter", "seq_kd")])
def test_sequence_criterions_know_their_data(tiny, teacher, distilled, view, other):
    task, model, criterion = toys.build(distilled / view, criterion=view)
    assert criterion.teacher is None and criterion.objective.alpha == 0
    _, _, stock = toys.build(distilled / view, criterion="cross_entropy")
    sample = toys.batch(task)
    assert gradients(task, model, criterion, sample)[0] == pytest.approx(
        gradients(task, model, stock, sample)[0], rel=1e-6
    )
    with_teacher = toys.build(distilled / view, criterion=view, teacher_path=teacher)[2]
    assert with_teacher.objective.alpha == 0.5
    for folder in (tiny, distilled / other):
        with pytest.raises(Refusal, match=view):
            toys.build(folder, criterion=view)


@pytest.mark.parametrize("criterion", ["word_kd", "seq_kd"])
def test_another_task_is_refused(tiny, teacher, criterion):
    """Such as translation_multi_simple_epoch, which has no configuration of the translation task's
    kind.
    """
    from fairseq.criterions import CRITERION_REGISTRY

    task = toys.build(tiny, criterion="cross_entropy")[0]
    other = argparse.Namespace(target_dictionary=task.target_dictionary, cfg=None)
    config = toys.configure(tiny, criterion=criterion, teacher_path=teacher).criterion
    with pytest.raises(Refusal, match="under the task translation, not Namespace; leave out"):
        CRITERION_REGISTRY[criterion].build_criterion(config, other)


def test_all_wrong_options_are_reported_at_once(tiny):
    """Each sentence is one that a single wrong option gets, too."""
    with pytest.raises(Refusal) as refused:
        toys.build(tiny, criterion="word_kd", alpha=1.5, temperature=-1, label_smoothing=1)
    options = [sentence.split()[0] for sentence in refused.value.sentences]
    assert options == ["--alpha", "--temperature", "--label-smoothing", "--alpha", "--temperature"]


ADAPTIVE = {"adaptive-softmax-cutoff": "8,16", "adaptive-softmax-dropout": 0.0}


def test_a_teacher_may_have_an_adaptive_softmax(tiny, tmp_path):
    """fairseq's own, given the target, leaves out the clusters in which it is not.

    For students it is not differentiable.
    """
    options = {**ADAPTIVE, "criterion": "adaptive_loss", "ddp-backend": "legacy_ddp"}
    toys.train(tiny, tmp_path, options, max_epoch=5, disable_validation=True)
    path = tmp_path / "checkpoint_last.pt"
    task, model, criterion = toys.build(tiny, criterion="word_kd", teacher_path=path)
    sample = toys.batch(task)
    loss, _, _, log = gradients(task, model, criterion, sample)
    soft, lprobs = criterion.teacher.soft_targets(
        sample, sample["target"], next(model.parameters())
    )
    assert torch.allclose(soft.probabilities.sum(-1), torch.ones(len(lprobs)), atol=1e-4)
    keep = sample["target"].flatten().ne(task.target_dictionary.pad())
    with torch.no_grad():
        mine = model.get_normalized_probs(model(**sample["net_input"]), log_probs=True).flatten(
            0, 1
        )
    assert log["kd_loss"].item() == pytest.approx(
        -(soft.probabilities * mine).sum(-1)[keep].sum().item(), rel=1e-4
    )
    _, student, criterion = toys.build(tiny, ADAPTIVE, criterion="word_kd", teacher_path=path)
    student.train()
    with pytest.raises(Refusal, match="--adaptive-softmax-cutoff"):
        criterion(student, sample)
