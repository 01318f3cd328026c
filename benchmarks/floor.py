"""The floor: a bare loop, tuned by hand for this one network on this one data set, that does
nothing but train and look up.

All pixels lie in memory as one array of bytes; a batch is copied out of it with its crops and
mirrors; the network computes in bfloat16 where the machine is fast at it, on channels-last memory;
gradients of small maps are products, SGD goes along the memory of each weight, and on a CPU what
embeds in bfloat16 has BatchNorm in its convolutions, as in ours; the look-up is one matrix product.
There is no cache on the disk, no record, no progress, no resuming, no determinism, no choice of
anything. What ours takes longer than this is what its features cost.
"""

from collections.abc import Iterator

import numpy as np
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import NTXentLoss
from pytorch_metric_learning.miners import BatchEasyHardMiner
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from dml_bench.models.convolutions import speed_up_small_maps
from dml_bench.models.folding import fold_batch_norm
from dml_bench.training.optimizers import sgd

__all__ = ["Floor"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Floor:
    """The same network, loss, miner, optimiser, crops and mirrors as the usual loop."""

    def __init__(
        self,
        train_pixels: list[np.ndarray],
        views: np.ndarray,
        labels: np.ndarray,
        train_images: np.ndarray,
        test_images: np.ndarray,
        *,
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype,
    ):
        """Of each image its pixels (height, width, 3) that crops are cut from; `views` (images,
        size, size, 3) are what is evaluated."""
        self.train_pixels, self.views = train_pixels, torch.from_numpy(views)
        self.labels = torch.from_numpy(labels)
        self.train_images, self.test_images = train_images, test_images
        self.size, self.batch_size, self.device, self.dtype = (
            views.shape[1],
            batch_size,
            device,
            dtype,
        )
        self.numbers = np.random.default_rng(0)
        trunk = models.resnet18(weights=None)
        trunk.fc = nn.Linear(512, 128)
        self.model = trunk.to(device, memory_format=torch.channels_last)
        speed_up_small_maps(self.model)
        self.optimizer = sgd(list(self.model.parameters()), lr=1e-3)
        self.scale = (1 / (255 * torch.tensor(STD))).to(device)
        self.shift = (torch.tensor(MEAN) / torch.tensor(STD)).to(device)
        self.loss = NTXentLoss(temperature=0.1, distance=CosineSimilarity())
        self.miner = BatchEasyHardMiner(
            pos_strategy="easy", neg_strategy="semihard", distance=CosineSimilarity()
        )

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(batch, size, size, 3) bytes and (batch) labels of one pass over the training images."""
        order = self.numbers.permutation(self.train_images)
        for start in range(0, len(order), self.batch_size):
            images = order[start : start + self.batch_size]
            batch = np.empty((len(images), self.size, self.size, 3), np.uint8)
            for row, image in enumerate(images):
                pixels = self.train_pixels[image]
                top, left = (
                    int(self.numbers.integers(side - self.size + 1)) for side in pixels.shape[:2]
                )
                crop = pixels[top : top + self.size, left : left + self.size]
                batch[row] = crop[:, ::-1] if self.numbers.random() < 0.5 else crop
            yield torch.from_numpy(batch), self.labels[images]

    def normalised(self, pixels: Tensor) -> Tensor:
        """(batch, size, size, 3) bytes -> (batch, 3, size, size), channels last in memory."""
        return torch.addcmul(
            -self.shift, pixels.to(self.device, non_blocking=True).float(), self.scale
        ).permute(0, 3, 1, 2)

    def train_epoch(self) -> None:
        self.model.train()
        for pixels, labels in self.batches():
            self.step(pixels, labels)

    def step(self, pixels: Tensor, labels: Tensor) -> None:
        with torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        ):
            embeddings = self.model(self.normalised(pixels))
        embeddings, labels = embeddings.float(), labels.to(self.device)
        loss = self.loss(embeddings, labels, self.miner(embeddings, labels))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    @torch.inference_mode()
    def evaluate(self) -> float:
        """P@1 of the test images among the training images."""
        network: nn.Module = self.model.eval()
        if self.device.type == "cpu" and self.dtype == torch.bfloat16:
            network = fold_batch_norm(self.model) or self.model
        gallery = self.embed(network, self.train_images)
        query = self.embed(network, self.test_images)
        nearest = self.labels[self.train_images][(query @ gallery.T).argmax(1).cpu()]
        return float((nearest == self.labels[self.test_images]).float().mean())

    def embed(self, network: nn.Module, images: np.ndarray) -> Tensor:
        """(images, 128) unit vectors."""
        batches = []
        for start in range(0, len(images), self.batch_size):
            with torch.autocast(
                self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
            ):
                views = self.views[images[start : start + self.batch_size]]
                batches.append(network(self.normalised(views)))
        return functional.normalize(torch.cat(batches).float(), dim=1)
