"""Cross-batch memory and the recall@k surrogate, each against a slow loop over its definition."""

import math

import pytest
import torch
from tiny import tiny, train
from torch import Tensor
from torch.nn import functional

from dml_bench.config.experiments import resolve
from dml_bench.losses.cross_batch_memory import CrossBatchMemory
from dml_bench.losses.recall_at_k import RecallAtK, with_virtual_images


def unit_vectors(count: int, seed: int, dim: int = 6) -> Tensor:
    drawn = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(drawn, dim=1)


# Cross-batch memory


def contrastive(anchors: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor) -> float:
    total = 0.0
    for anchor, label in zip(anchors, labels, strict=True):
        for other, other_label in zip(others, other_labels, strict=True):
            similarity = float(anchor @ other)
            if label == other_label and similarity < 1 - 1e-5:
                total += 1 - similarity
            elif label != other_label and similarity > 0.2:
                total += similarity
    return total / len(anchors)


def test_the_memory_is_of_the_last_embeddings_after_it_has_started():
    loss = CrossBatchMemory(6, size=7, weight=0.5, start=1, neg_margin=0.2)
    batches = [unit_vectors(4, seed) for seed in range(4)]
    labels = [torch.tensor(row) for row in ([0, 0, 1, 1], [2, 2, 0, 0], [1, 1, 2, 2], [0, 0, 2, 2])]
    values = [float(loss(*batch)) for batch in zip(batches, labels, strict=True)]
    in_batch = [
        contrastive(batch, own, batch, own) for batch, own in zip(batches, labels, strict=True)
    ]
    assert values[0] == pytest.approx(in_batch[0])
    second = contrastive(batches[1], labels[1], batches[1], labels[1])
    assert values[1] == pytest.approx(in_batch[1] + 0.5 * second)
    last, of_last = torch.cat(batches[2:])[1:], torch.cat(labels[2:])[1:]
    remembered = contrastive(batches[3], labels[3], last, of_last)
    assert values[3] == pytest.approx(in_batch[3] + 0.5 * remembered)


def test_no_gradient_flows_into_what_is_remembered_and_evaluation_remembers_nothing():
    loss = CrossBatchMemory(6, size=8, weight=1.0, start=0, neg_margin=0.2)
    first = unit_vectors(4, 0).requires_grad_()
    loss(first, torch.tensor([0, 0, 1, 1])).backward()
    before = first.grad.clone()
    loss(unit_vectors(4, 1).requires_grad_(), torch.tensor([0, 0, 1, 1])).backward()
    assert torch.equal(first.grad, before)
    remembered = loss.eval().embeddings.clone()
    loss(unit_vectors(4, 2), torch.tensor([0, 0, 1, 1]))
    assert torch.equal(loss.embeddings, remembered)


def test_a_resumed_memory_goes_on_with_what_it_held():
    straight, resumed = (
        CrossBatchMemory(6, size=6, weight=1.0, start=1, neg_margin=0.2) for _ in range(2)
    )
    labels = torch.tensor([0, 0, 1, 1])
    for seed in range(3):
        straight(unit_vectors(4, seed), labels)
    resumed.load_state_dict(straight.state_dict())
    assert float(straight(unit_vectors(4, 9), labels)) == float(resumed(unit_vectors(4, 9), labels))


# Recall@k


def surrogate(embeddings: Tensor, labels: Tensor, ks: tuple[int, ...]) -> float:
    """As the paper writes it, with the query among those that are ranked."""
    similarity = (embeddings @ embeddings.T).tolist()
    count = len(labels)
    losses = []
    for query in range(count):
        positives = [i for i in range(count) if i != query and labels[i] == labels[query]]
        if not positives:
            continue
        recalls = []
        for k in ks:
            within = 0.0
            for i in positives:
                rank = 1.0
                for j in range(count):
                    if j != i:
                        ahead = similarity[query][j] - similarity[query][i]
                        rank += 1 / (1 + math.exp(-ahead / 0.05))
                within += 1 / (1 + math.exp(-(min(k, count) - rank)))
            recalls.append(min(within, k) / min(k, len(positives)))
        losses.append(1 - sum(recalls) / len(recalls))
    return sum(losses) / len(losses)


def test_the_surrogate_is_what_its_definition_gives_however_many_queries_go_together(monkeypatch):
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3])
    embeddings = unit_vectors(9, 4).requires_grad_()
    loss = RecallAtK((1, 2, 4), rank_temperature=0.05, k_temperature=1.0, simix=0)
    value = loss(embeddings, labels)
    expected = surrogate(embeddings.detach(), labels, (1, 2, 4))
    assert value.item() == pytest.approx(expected, rel=1e-5)
    (at_once,) = torch.autograd.grad(value, embeddings)
    monkeypatch.setattr("dml_bench.losses.recall_at_k.COMPARED", 200)
    (in_parts,) = torch.autograd.grad(loss(embeddings, labels), embeddings)
    torch.testing.assert_close(in_parts, at_once)


def test_a_virtual_image_stands_between_each_two_of_a_class_and_so_do_its_similarities():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    torch.manual_seed(0)
    embeddings, all_labels = with_virtual_images(unit_vectors(6, 5), labels, 3)
    assert all_labels.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]
    similarity = embeddings @ embeddings.T
    pairs = [(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)]
    for virtual, (one, other) in enumerate(pairs, start=6):
        ends = torch.stack([similarity[one, :6], similarity[other, :6]])
        assert (similarity[virtual, :6] >= ends.amin(dim=0) - 1e-6).all()
        assert (similarity[virtual, :6] <= ends.amax(dim=0) + 1e-6).all()


def test_two_images_of_different_classes_have_no_virtual_one():
    embeddings, labels = with_virtual_images(unit_vectors(4, 6), torch.tensor([0, 0, 0, 1]), 2)
    assert labels.tolist() == [0, 0, 0, 1, 0, -1]
    loss = RecallAtK((1,), rank_temperature=0.05, k_temperature=1.0, simix=0)
    expected = surrogate(embeddings[:5], labels[:5], (1,))
    assert float(loss(embeddings, labels)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("loss=XBM", "mixing.technique=mixup", "mixing.technique.share=batch"),
            "mixup gives an image two labels, and loss XBM remembers it under one",
        ),
        (("loss=RecallAtK", "loss.simix=4"), r"--set sampler=m_per_class --set sampler\.m=4"),
        (("loss=RecallAtK", "loss.k=[]"), r"loss\.k must be positive numbers, got \[\]"),
        (("loss=RecallAtK", "loss.simix=1"), r"loss\.simix must be 0 \(off\) or at least 2, got 1"),
    ],
)
def test_what_a_loss_over_batches_or_ranks_can_t_do_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny("miner=none", *settings)


def test_a_memory_that_would_begin_after_the_last_step_is_refused(birds, cache_dir, tmp_path):
    settings = ("miner=none", "loss=XBM", "train.epochs=1")
    message = r"loss\.start = 1000: .* this training has \d+: --set loss\.start=\d+"
    with pytest.raises(ValueError, match=message):
        train(birds, cache_dir, tmp_path, *settings)
    train(birds, cache_dir, tmp_path, *settings, "loss.start=1")


def test_the_demo_s_memory_begins_while_it_trains():
    resolved = resolve("XBM_resnet50x128_disjoint", profile="demo")
    assert resolved.loss.options["start"] == 30
