"""Whose labels are trained on: noise on purpose, class weights, soft labels and progressive
corrections; and that nothing leaks."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import tiny, train

from dml_bench.config import Experiment
from dml_bench.data.label_strategies import Corrected, LikelihoodRatio
from dml_bench.evaluation.search import search
from dml_bench.runs.embed_and_search import memorised
from dml_bench.runs.metrics import clock_seconds
from dml_bench.runs.run import read_folder
from dml_bench.system.callbacks import Callback
from dml_bench.system.terminal import describe_labels
from dml_bench.training import validation
from dml_bench.training.batches import epoch_batches, targets_of
from dml_bench.training.build import build
from dml_bench.training.folds import training_jobs
from dml_bench.training.inputs import open_inputs
from dml_bench.training.labels import TrainingLabels, balanced, corrupted, given_labels
from dml_bench.training.training_state import TrainingState


def labels(initial: list[int], clean: list[int] | None = None, **more: object) -> TrainingLabels:
    return TrainingLabels(
        trained=np.unique(initial),
        clean=np.array(clean or initial),
        initial=np.array(initial),
        **more,
    )


# Noise


def test_noise_changes_exactly_its_part_of_the_training_images_to_other_trained_classes():
    classes, images, trained = np.arange(1000) % 10, np.arange(0, 1000, 2), np.arange(10)
    noisy = corrupted(classes, images, trained, 0.2, 42)
    changed = np.flatnonzero(noisy != classes)
    assert len(changed) == 100
    assert set(changed) <= set(images)
    assert set(noisy[changed]) == set(range(10))
    assert (noisy == corrupted(classes, images, trained, 0.2, 42)).all()
    assert (noisy != corrupted(classes, images, trained, 0.2, 43)).any()


def test_a_phase_that_holds_classes_out_has_the_same_wrong_images_but_no_label_of_theirs():
    classes, images = np.arange(1000) % 10, np.arange(0, 1000, 2)
    everything, limited = (
        corrupted(classes, images, trained, 0.2, 42) for trained in (np.arange(10), np.arange(8))
    )
    wrong = np.flatnonzero(everything != classes)
    assert np.flatnonzero(limited != classes).tolist() == wrong[classes[wrong] < 8].tolist()
    assert limited[classes < 8].max() == 7


def phase_of(name: str, experiment: Experiment, birds: Path, cache_dir: Path) -> TrainingState:
    """An untrained run of a phase of an experiment."""
    opening = open_inputs(experiment, birds, cache_dir, torch.device("cpu"), Callback())
    phase = next(phase for phase in opening.phases if phase.name == name)
    return build(
        experiment,
        phase,
        opening.dataset,
        opening.split,
        opening.pixels,
        device=torch.device("cpu"),
        precision="float32",
        callback=Callback(),
    )


def test_samplers_see_the_labels_that_are_given_and_not_the_true_ones(birds, cache_dir):
    run = phase_of(
        "all",
        tiny("sampler=m_per_class", "train.batch_size=8", "data.label_noise=0.5"),
        birds,
        cache_dir,
    )
    groups = [batch.reshape(-1, 4) for epoch in range(1, 9) for batch in epoch_batches(run, epoch)]

    def share_of_pure_groups(labels: np.ndarray) -> float:
        return np.mean([np.ptp(labels[group], axis=1) == 0 for group in groups])

    assert share_of_pure_groups(run.labels.initial) == 1.0
    assert share_of_pure_groups(run.dataset.labels) < 0.5


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        (("data.valid_fraction=0.4",), 10),
        (("protocol=class_disjoint", "data.split=half", "data.valid_fraction=0.5"), 8),
    ],
    ids=["images", "classes"],
)
def test_validation_images_are_as_wrong_as_training_images_and_what_is_evaluated_stays_true(
    settings, wrong, birds, cache_dir
):
    name = "disjoint" if "protocol=class_disjoint" in settings else "all"
    run = phase_of(name, tiny(*settings, "data.label_noise=0.5"), birds, cache_dir)
    valid = run.monitored.queries["valid"]
    changed = run.labels.initial[valid] != run.dataset.labels[valid]
    assert (int(changed.sum()), len(valid)) == (wrong, 2 * wrong + (name == "all"))
    assert set(run.labels.initial[valid]) <= set(run.dataset.labels[valid]), (
        "no class that is not validated with"
    )
    if name == "all":
        test = run.monitored.queries["test"]
        assert (run.labels.initial[test] == run.dataset.labels[test]).all()


def test_an_epoch_is_chosen_by_labels_that_are_given(birds, cache_dir, monkeypatch):
    """With every label wrong but one's chance, nothing that validation reads is a true label."""
    searches: dict[str, np.ndarray] = {}
    run = phase_of(
        "all", tiny("data.valid_fraction=0.4", "data.label_noise=0.99"), birds, cache_dir
    )
    monkeypatch.setattr(
        validation,
        "search",
        lambda gallery, query, known, labels, k: (
            searches.update({len(labels): (known, labels)})
            or search(gallery, query, known, labels, k)
        ),
    )
    validation.validate(run)
    for name, images in run.monitored.queries.items():
        known, labels = searches[len(images)]
        truth = run.labels.initial if name == "valid" else run.dataset.labels
        assert labels.tolist() == truth[images].tolist()
        assert known.tolist() == truth[run.monitored.gallery].tolist()


def test_folds_are_stratified_by_the_labels_that_are_given(birds, cache_dir):
    experiment = tiny("train.folds=2", "data.label_noise=0.5")
    opening = open_inputs(experiment, birds, cache_dir, torch.device("cpu"), Callback())
    members = training_jobs(experiment, opening.phases[0], opening.dataset, opening.split, Path())
    labels = given_labels(experiment, opening.phases[0], opening.dataset, opening.split)
    sizes = np.array(
        [np.bincount(labels[list(member.phase.fold_images)], minlength=8) for member in members]
    )
    assert (np.ptp(sizes, axis=0) <= 1).all()


# Class weights


def test_an_image_that_a_sampler_draws_twice_is_one_image_where_each_is_a_class(birds, cache_dir):
    settings = ("train.views=2", "train.labels=image", "loss=NTXent", "miner=none")
    run = phase_of("all", tiny(*settings), birds, cache_dir)
    once, twice = run.images[:4], run.images[[0, 3, 1, 3, 0]]
    assert targets_of(run, once)[0].labels.tolist() == [0, 1, 2, 3] * 2
    assert targets_of(run, twice)[0].labels.tolist() == [0, 1, 2, 1, 0] * 2


def test_balanced_weights_are_in_inverse_proportion_to_the_class_and_their_mean_is_one():
    weights = balanced(np.array([0, 0, 0, 1, 3, 3]), 4)
    assert weights.tolist() == [6 / 9, 2.0, 0.0, 1.0]
    assert weights[[0, 0, 0, 1, 3, 3]].mean() == pytest.approx(1)


def test_class_weights_reach_the_loss():
    targets = labels([0, 0, 1], class_weights=np.array([0.75, 1.5])).targets(np.array([2, 0]))
    assert [(part[0].tolist(), part[1].tolist()) for part in targets] == [([1, 0], [1.5, 0.75])]


# Soft labels


def test_soft_labels_weigh_the_given_against_another_prediction_and_leave_agreement_alone():
    soft = labels([0, 1, 1], out_of_fold=np.array([0, 0, 1]), a=0.7)
    (initial, own), (predicted, other) = soft.targets(np.array([0, 1, 2]))
    assert (initial.tolist(), predicted.tolist()) == ([0, 1, 1], [0, 0, 1])
    assert own.tolist() == pytest.approx([1.0, 0.7, 1.0])
    assert other.tolist() == pytest.approx([0.0, 0.3, 0.0])


@pytest.mark.parametrize(
    "objective",
    [(), ("loss=crossentropy", "miner=none", "model.head=identity")],
    ids=["pairs", "softmax"],
)
def test_every_training_image_is_judged_once_by_a_model_that_did_not_train_on_it(
    objective, birds, cache_dir, tmp_path
):
    from dml_bench.runs.arrays import read_arrays

    folder = train(
        birds,
        cache_dir,
        tmp_path,
        "labelling=softlabels",
        "labelling.folds=3",
        "train.epochs=1",
        *objective,
    ).folder
    with open(folder / "split.csv", newline="") as file:
        part = np.array([row["part"] for row in csv.DictReader(file)])
    for phase, unseen in (("all", []), ("limited", [6, 7])):
        judged = [
            read_arrays(path)
            for path in sorted((folder / phase).glob("judge-*/judged.safetensors"))
        ]
        images = np.sort(np.concatenate([arrays["images"] for arrays in judged]))
        training = np.flatnonzero(part == "train")
        classes = np.arange(64) // 8
        assert images.tolist() == training[~np.isin(classes[training], unseen)].tolist()
        assert not np.isin(np.concatenate([arrays["predicted"] for arrays in judged]), unseen).any()
    run = read_folder(folder)
    spent = sum(record["train_seconds"] for record in run.records)
    assert clock_seconds([*run.costs.values()]) == pytest.approx(spent), "judges are trained too"
    assert run.summary["cost"]["total_seconds"] > spent
    labelling = sum(phase["labelling_cpu_seconds"] for phase in run.costs.values())
    of_judges = [record for record in run.records if "judge" in record["phase"]]
    assert labelling == pytest.approx(sum(record["train_cpu_seconds"] for record in of_judges))


# Progressive label correction


def test_the_threshold_waits_for_the_warm_up_and_falls_linearly():
    plan = Corrected(warm_up=0.2, theta=0.5, theta_end=0.1)
    assert [plan.threshold(epoch, 10) for epoch in (1, 2, 6, 10)] == [
        None,
        0.5,
        pytest.approx(0.3),
        pytest.approx(0.1),
    ]


def test_a_label_is_replaced_where_another_class_is_likelier_by_more_than_the_threshold():
    plc = labels([0, 0, 1, 2], corrected=Corrected(0.0, 0.3, 0.3))
    images = np.array([0, 1, 3])
    plc.observe(images, torch.tensor([[0.0, 5.0, 0.0], [2.0, 2.2, 0.0], [0.0, 0.0, 3.0]]))
    plc.correct(np.array([0, 1, 3]), epoch=1, epochs=4)
    [correction] = plc.corrections
    assert (correction.image, correction.before, correction.after, correction.epoch) == (0, 0, 1, 1)
    assert correction.margin == pytest.approx((np.exp(5) - 1) / (np.exp(5) + 2))
    assert plc.targets(np.array([0, 1, 2, 3]))[0][0].tolist() == [1, 0, 1, 2]
    again = labels([0, 0, 1, 2], corrected=plc.corrected)
    again.restore(plc.state())
    assert again.current.tolist() == plc.current.tolist() and again.corrections == plc.corrections


def test_nothing_is_replaced_before_validation_says_that_the_model_is_worth_listening_to():
    waiting = labels([0, 1], corrected=Corrected(0.0, 0.3, 0.3, listen_from=0.6))
    sure = torch.tensor([[0.0, 9.0], [0.0, 9.0]])
    for epoch, accuracy in enumerate((None, 0.59, 0.6), start=1):
        waiting.observe(np.array([0, 1]), sure)
        waiting.correct(np.array([0, 1]), epoch, 3, accuracy)
    assert [(correction.image, correction.epoch) for correction in waiting.corrections] == [(0, 3)]


def probabilities(*rows: list[float]) -> torch.Tensor:
    """Logits whose softmax are these."""
    return torch.tensor(rows).log()


def test_by_ratio_a_label_is_replaced_where_it_is_a_part_delta_as_likely_as_the_likeliest():
    plc = labels([0, 0, 1, 2], corrected=LikelihoodRatio(0.5, 2, 0.3, 0.1))
    images = np.arange(3)
    first = probabilities([0.5, 0.5, 0.0], [0.1, 0.0, 0.9], [0.2, 0.7, 0.1])
    second = probabilities([0.0, 0.5, 0.5], [0.5, 0.3, 0.2], [0.2, 0.7, 0.1])
    third = probabilities([0.2, 0.6, 0.2], [0.1, 0.0, 0.9], [0.2, 0.7, 0.1])
    replaced = []
    for epoch, logits in enumerate((first, second, third), start=1):
        plc.observe(images, logits)
        plc.correct(images, epoch, epochs=4)
        replaced.append([(c.image, c.after) for c in plc.corrections])
    # By the last two epochs. At the second, which is not beyond the warm-up, nothing happens. At
    # the third .1 of the first label against .55 of the likeliest; .3 of the second against .55.
    assert replaced == [[], [], [(0, 1)]]
    assert plc.corrections[0].margin == pytest.approx(0.55 - 0.1)
    assert plc.delta == 0.3


def test_by_ratio_the_part_grows_where_nothing_is_replaced_and_a_resumed_run_knows_it():
    straight, resumed = (
        labels([0, 0, 1], corrected=LikelihoodRatio(0.0, 2, 0.3, 0.1)) for _ in range(2)
    )
    images, close = np.arange(2), probabilities([0.45, 0.55], [0.45, 0.55])
    for epoch in (1, 2):
        straight.observe(images, close)
        straight.correct(images, epoch, epochs=9)
    assert straight.delta == pytest.approx(0.5)
    resumed.restore(straight.state())
    for plc in (straight, resumed):
        plc.observe(images, probabilities([0.1, 0.9], [0.5, 0.5]))
        plc.correct(images, 3, epochs=9)
    assert resumed.corrections == straight.corrections
    assert [c.image for c in resumed.corrections] == [0]


def test_precision_and_recall_of_the_corrections_are_counted_against_the_true_classes():
    noisy = labels([1, 1, 0, 0, 1], clean=[0, 1, 0, 1, 1])
    noisy.current = np.array(
        [0, 0, 0, 0, 1]
    )  # one rightly, one wrongly replaced, one wrong label left
    assert noisy.summary(np.arange(5)) == {
        "training_images": 5,
        "wrong_labels": 2,
        "replaced": 2,
        "replaced_rightly": 1,
        "wrong_labels_after": 2,
        "replaced_precision": 0.5,
        "replaced_recall": 0.5,
    }


def test_the_end_of_a_run_says_how_many_labels_were_replaced_rightly():
    noisy = labels([1, 1, 0, 0, 1], clean=[0, 1, 0, 1, 1])
    noisy.current = np.array([0, 0, 0, 0, 1])
    assert describe_labels(noisy.summary(np.arange(5))) == (
        "2 of 5 replaced, 1 of them rightly; 2 labels were wrong, now 2 are"
    )


def test_without_labels_that_were_made_wrong_nobody_knows_which_replacements_are_right():
    trusted = labels([0, 1, 1])
    trusted.current = np.array([0, 0, 1])
    assert describe_labels(trusted.summary(np.arange(3))) == (
        "1 of 3 replaced; it is not known which of the labels were wrong"
    )


def test_a_run_writes_what_it_corrected_and_never_corrects_towards_a_held_out_class(
    birds, cache_dir, tmp_path
):
    settings = (
        "labelling=plc",
        "labelling.theta=0.02",
        "labelling.theta_end=0.02",
        "data.label_noise=0.25",
    )
    outcome = train(
        birds,
        cache_dir,
        tmp_path,
        *settings,
        "loss=crossentropy",
        "miner=none",
        "model.head=identity",
    )
    with open(outcome.folder / "split.csv", newline="") as file:
        parts = {row["path"]: row["part"] for row in csv.DictReader(file)}
    for phase, classes in (("all", 8), ("limited", 6)):
        with open(outcome.folder / phase / "corrections.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        reported = outcome.summary["phases"][phase]["labels"]
        assert rows and reported["replaced"] > 0
        assert 0 < reported["wrong_labels"] <= round(0.25 * 51)
        assert {parts[row["image"]] for row in rows} == {"train"}
        names = sorted({path.split("/")[-2] for path in parts})[:classes]
        assert {row["to"] for row in rows} | {row["from"] for row in rows} <= set(names)


OF_IMAGES = ("train.views=2", "train.labels=image", "loss=NTXent", "miner=none")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("labelling=plc",),
            "labelling plc asks the loss for the class of an image, and NTXent can't say it",
        ),
        (
            (
                "labelling=plc",
                "labelling.listen_from=0.5",
                "loss=crossentropy",
                "miner=none",
                "model.head=identity",
            ),
            "labelling.listen_from waits for validation images, and there are none",
        ),
        (
            (
                *("labelling=plc_ratio", "labelling.listen_from=0.5", "data.valid_fraction=0.2"),
                *("loss=crossentropy", "miner=none", "evaluate.every=3"),
            ),
            "evaluate.every must be less than train.epochs (3), as labelling.listen_from follows",
        ),
        (
            ("labelling=softlabels", "labelling.a=1.2"),
            "labelling.a must be a number from 0 to 1, got 1.2",
        ),
        (
            ("labelling=softlabels", "labelling.folds=1"),
            "labelling.folds must be at least 2, got 1",
        ),
        (("labelling=softlabels", "train.folds=2"), "labelling softlabels trains folds of its own"),
        (
            ("labelling=softlabels", "loss=ProxyAnchor", "miner=none"),
            "labelling softlabels has no effect: loss ProxyAnchor is one number",
        ),
        (
            ("train.class_weights=balanced", "loss=ProxyAnchor", "miner=none"),
            "train.class_weights has no effect",
        ),
        (
            ("labelling=plc", "loss=ProxyNCA", "miner=none"),
            (
                "labelling.theta_end is 0.1, and loss ProxyNCA never contradicts a label by more"
                " than 0.035 among 200 classes"
            ),
        ),
        (
            ("labelling=plc", "loss=P2SGrad", "miner=none"),
            (
                "labelling.theta_end is 0.1, and loss P2SGrad never contradicts a label by more"
                " than 0.012 among 200 classes"
            ),
        ),
        (
            ("labelling=plc", "loss={name='CosFace', scale=1}", "miner=none"),
            "never contradicts a label by more than 0.012",
        ),
        (
            ("sampler=class_balanced", "train.class_weights=balanced"),
            (
                "sampler class_balanced draws all classes equally often, and train.class_weights ="
                " balanced would correct for their sizes again"
            ),
        ),
        (
            ("sampler=m_per_class", "train.class_weights=balanced"),
            "sampler m_per_class draws all classes equally often",
        ),
        (
            (*OF_IMAGES, "sampler=m_per_class"),
            "train.labels = image looks at no class, and sampler m_per_class does",
        ),
        (
            (*OF_IMAGES, "sampler=repeated_class"),
            "train.labels = image looks at no class, and sampler repeated_class does",
        ),
        (("data.label_noise=1.0",), "data.label_noise must be from 0 to less than 1, got 1.0"),
        (
            ("labelling=plc", "mixing.technique=mixup", "loss=crossentropy", "miner=none"),
            "labelling plc asks what an image is, and mixup mixes it with others",
        ),
    ],
)
def test_labels_that_make_no_sense_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError) as caught:
        tiny(*settings)
    assert message in str(caught.value)


def test_a_proxy_loss_that_is_sharp_enough_may_correct_labels():
    assert (
        tiny(
            "labelling=plc", "loss={name='ProxyNCA', softmax_scale=9}", "miner=none"
        ).labelling.name
        == "plc"
    )
    assert (
        tiny(
            "labelling=plc", "loss=P2SGrad", "miner=none", "labelling.theta_end=0.01"
        ).labelling.name
        == "plc"
    )


def test_soft_labels_are_judged_among_the_training_classes_where_classes_are_disjoint(
    birds, cache_dir, tmp_path
):
    settings = (
        "labelling=softlabels",
        "labelling.folds=2",
        "protocol=class_disjoint",
        "data.split=half",
        "train.epochs=1",
    )
    outcome = train(birds, cache_dir, tmp_path, *settings)
    assert outcome.summary["phases"]["disjoint"]["labels"]["training_images"] == 32


def test_what_is_memorised_and_seen_through_is_counted_among_wrong_labels_only():
    labels = TrainingLabels(
        trained=np.arange(4),
        clean=np.array([0, 1, 2, 3, 0, 1]),
        initial=np.array([0, 2, 1, 3, 1, 0]),
    )
    chosen = {1: 2, 2: 2, 4: 3, 5: 0}  # memorised, seen through, neither, memorised
    state = SimpleNamespace(
        labels=labels,
        images=np.arange(6),
        objective=SimpleNamespace(classifies=True),
        outputs=lambda images: images,
        classify=lambda images: np.array([chosen[image] for image in images.tolist()]),
    )
    assert memorised(state) == {"memorised": 0.5, "seen_through": 0.25}
    state.objective.classifies = False
    assert memorised(state) == {}


def test_a_run_under_label_noise_says_what_it_memorised_and_how_it_stands_attacks(trained):
    run = read_folder(
        trained(
            *("data.label_noise=0.3", "loss=crossentropy", "miner=none", "model.head=identity"),
            *("evaluate.attack_epsilon=8", "evaluate.attack_steps=3", "train.epochs=1"),
        ).folder
    )
    for phase in run.summary["phases"].values():
        assert phase["labels"]["wrong_labels"] > 0
        assert 0 <= phase["labels"]["memorised"] + phase["labels"]["seen_through"] <= 1
        attacked = phase["attacked"]
        assert attacked["logits_accuracy_clean"] == pytest.approx(
            phase["logits_accuracy_micro_known"], abs=0.1
        )
        assert attacked["logits_accuracy_pgd"] <= attacked["logits_accuracy_clean"]
        for attack, classes in attacked["right"].items():
            images = "".join(classes)
            assert images.count("1") / len(images) == attacked[f"logits_accuracy_{attack}"]
