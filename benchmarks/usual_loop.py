"""The usual loop of a metric-learning project, as people write it around the real libraries.

Every image is decoded again each time it is wanted, by PIL in two worker processes; torchvision
crops, mirrors and normalises it; a torchvision network computes in float32; pytorch-metric-learning
mines, compares, embeds and scores. Nothing here is made slow on purpose, and nothing is tuned.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import NTXentLoss
from pytorch_metric_learning.miners import BatchEasyHardMiner
from pytorch_metric_learning.testers import GlobalEmbeddingSpaceTester
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision import models, transforms
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader

__all__ = ["UsualLoop"]

NORMALIZE = transforms.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class Decoded:
    """Loads images and keeps them, their shorter side at `side` pixels."""

    def __init__(self, side: int):
        self.resize = transforms.Resize(side)
        self.images: dict[str, Image.Image] = {}

    def __call__(self, path: str) -> Image.Image:
        if path not in self.images:
            self.images[path] = self.resize(default_loader(path))
        return self.images[path]


class UsualLoop:
    """ResNet-18 with a linear head, NT-Xent on easy positives and semi-hard negatives, plain
    SGD."""

    def __init__(
        self,
        root: Path,
        train_images: Sequence[int],
        test_images: Sequence[int],
        *,
        size: int,
        crop_from: int,
        batch_size: int,
        workers: int,
        device: torch.device,
        two_lines: bool = False,
        in_memory: bool = False,
    ):
        """`train_images` and `test_images` count the files below `root`, which holds one folder per
        class, in sorted order. `two_lines` adds what anybody has for two lines: bfloat16 by
        autocast, and channels-last memory. `in_memory` decodes each image once and keeps its pixels
        at the side that crops are cut from."""
        augment = transforms.Compose(
            [
                transforms.Resize(crop_from),
                transforms.RandomCrop(size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                NORMALIZE,
            ]
        )
        view = transforms.Compose(
            [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor(), NORMALIZE]
        )
        load = Decoded(crop_from) if in_memory else default_loader
        self.train_set = Subset(ImageFolder(str(root), augment, loader=load), train_images)
        self.gallery_set = Subset(ImageFolder(str(root), view, loader=load), train_images)
        self.query_set = Subset(ImageFolder(str(root), view, loader=load), test_images)
        if isinstance(load, Decoded):
            for path, _ in self.train_set.dataset.samples:
                load(path)  # before there are workers, which share what is there
        self.batch_size = batch_size
        self.workers = workers
        self.device = device
        self.two_lines = two_lines

        self.trunk = models.resnet18(weights=None)
        self.trunk.fc = nn.Identity()
        self.embedder = nn.Linear(512, 128)
        self.model = nn.Sequential(self.trunk, self.embedder).to(device)
        if two_lines:
            self.model.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)

        self.loss = NTXentLoss(temperature=0.1, distance=CosineSimilarity())
        self.miner = BatchEasyHardMiner(
            pos_strategy="easy", neg_strategy="semihard", distance=CosineSimilarity()
        )
        self.tester = GlobalEmbeddingSpaceTester(
            batch_size=batch_size, dataloader_num_workers=workers, data_device=device
        )
        self.calculator = AccuracyCalculator(include=("precision_at_1",), k=1, device=device)

    def loader(self, images: Subset) -> DataLoader:
        return DataLoader(
            images,
            self.batch_size,
            shuffle=True,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )

    def train_epoch(self) -> float:
        """Mean loss of one pass over the training images."""
        self.model.train()
        losses = [
            self.step(pixels, labels).item() for pixels, labels in self.loader(self.train_set)
        ]
        return sum(losses) / len(losses)

    def step(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """(batch, 3, size, size), (batch) -> the loss before this step."""
        pixels, labels = pixels.to(self.device), labels.to(self.device)
        self.optimizer.zero_grad()
        with self.autocast():
            embeddings = self.model(pixels)
        embeddings = embeddings.float()
        loss = self.loss(embeddings, labels, self.miner(embeddings, labels))
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def embed(self, images: Subset) -> tuple[Tensor, Tensor]:
        """(images, 128) unit vectors and (images) labels."""
        with self.autocast():
            embeddings, labels = self.tester.get_all_embeddings(images, self.trunk, self.embedder)
        return embeddings.float(), labels.squeeze(1)

    def autocast(self) -> torch.autocast:
        """The first of the two lines."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.two_lines)

    def evaluate(self) -> float:
        """P@1 of the test images among the training images."""
        gallery, gallery_labels = self.embed(self.gallery_set)
        query, query_labels = self.embed(self.query_set)
        return self.calculator.get_accuracy(query, query_labels, gallery, gallery_labels, False)[
            "precision_at_1"
        ]

    def batches(self, passes: int) -> Iterator[Tensor]:
        """Augmented training inputs of several passes from one loader, so that its workers start
        only once."""
        many = Subset(self.train_set.dataset, list(self.train_set.indices) * passes)
        return (pixels for pixels, _ in self.loader(many))
