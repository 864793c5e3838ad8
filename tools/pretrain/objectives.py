"""The objective of a student: the labels of its corpus, or the embeddings of a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rootstock.errors import DataError
from tools.pretrain.corpus import Corpus, random_boxes
from tools.pretrain.teacher import Teacher, View

SMOOTHING = 0.1
"""Label smoothing (Szegedy et al. 2016)."""

TEMPERATURE = 2.0
"""Softens both distributions before the comparison (Hinton et al. 2015 used 1 to 20)."""

COSINE_WEIGHT = 3.0
"""Scales the embedding's loss to the size of the soft labels' loss."""


def embed(network: Any, images: Tensor) -> Tensor:
    """Return the pooled features before a timm network's classifier, float32 [B, D]."""
    return network.forward_head(network.forward_features(images), pre_logits=True)


def _need_classes(corpus: Corpus) -> None:
    if len(corpus.classes) < 2:
        raise DataError(
            f"the corpus has {len(corpus.classes)} class folders; labels need at least 2",
            hint="sort the images into class folders, or use a teacher, which needs no labels",
        )


class Labelled(nn.Module):
    """Cross-entropy on the names of the class folders."""

    labels: Tensor

    def __init__(self, train: Corpus, validation: Corpus | None, *, smallest_crop: float) -> None:
        super().__init__()
        _need_classes(train)
        if validation is not None and validation.classes != train.classes:
            raise DataError("the classes in val/ are not those in train/")
        self.labels = train.labels
        self.expected = validation.labels if validation is not None else None
        self.smallest_crop = smallest_crop

    def pick(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the boxes [B, 4] to cut from the images ``rows`` [B], and their targets [B]."""
        boxes = random_boxes(len(rows), smallest=self.smallest_crop, generator=generator)
        return boxes, self.labels[rows]

    def loss(self, network: Any, images: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss over the batch, a scalar."""
        return F.cross_entropy(network(images), targets, label_smoothing=SMOOTHING)

    def finish(self, network: Any) -> None:
        """Do nothing: the network's classifier was trained."""

    @torch.no_grad()
    def measure(self, network: Any, embedded: Tensor) -> dict[str, float]:
        """Evaluate the network's embeddings [N, D] of the whole validation corpus."""
        assert self.expected is not None
        guessed = network.get_classifier()(embedded).argmax(dim=1).cpu()
        return {"val top-1": (guessed == self.expected).float().mean().item()}


class Distilled(nn.Module):
    """A linear map of the student's embedding predicts the teacher's embedding.

    There are two losses: the cosine distance of the standardized embeddings, and the
    Kullback-Leibler divergence of the soft labels that the teacher's classifier reads from both.
    ``label_weight`` adds a third: cross-entropy on ``labels`` (int64 [N] of ``classes``), from a
    separate linear layer that is discarded at the end.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        teacher: Teacher,
        views: Sequence[View],
        whole: Sequence[View],
        *,
        width: int,
        train: Corpus,
        label_weight: float,
    ) -> None:
        super().__init__()
        self.views, self.whole = views, whole
        self.labels, self.label_weight = train.labels, label_weight
        if label_weight:
            _need_classes(train)
            self.reader = nn.Linear(width, len(train.classes))
        sample = views[0].embedded(torch.arange(min(8192, len(views[0].embeddings))))
        self.mapping = nn.Linear(width, sample.shape[1])
        self.register_buffer("mean", sample.mean(dim=0))
        self.register_buffer("std", sample.std(dim=0, correction=0).clamp(min=1e-4))
        self.register_buffer("weight", teacher.classifier.weight.detach().clone())
        self.register_buffer("bias", teacher.classifier.bias.detach().clone())

    def pick(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a view's boxes [B, 4] of images ``rows``, its embeddings and labels [B, D + 1]."""
        number = int(torch.randint(len(self.views), (1,), generator=generator))
        view = self.views[number]
        labels = self.labels[rows].unsqueeze(1).float()
        return view.boxes[rows], torch.cat([view.embedded(rows), labels], dim=1)

    def loss(self, network: Any, images: Tensor, targets: Tensor) -> Tensor:
        targets, labels = targets[:, :-1], targets[:, -1].long()
        embedded = embed(network, images)
        guessed = self.mapping(embedded)
        known = (targets - self.mean) / self.std
        distance = (1 - F.cosine_similarity(guessed, known)).mean()
        soft = self._soft_labels(guessed * self.std + self.mean)
        divergence = F.kl_div(
            soft, self._soft_labels(targets), log_target=True, reduction="batchmean"
        )
        total = COSINE_WEIGHT * distance + divergence
        if self.label_weight:
            read = self.reader(embedded)
            total = total + self.label_weight * F.cross_entropy(
                read, labels, label_smoothing=SMOOTHING
            )
        return total

    @torch.no_grad()
    def finish(self, network: Any) -> None:
        """Combine mapping and teacher's classifier into one matrix: the student's classifier."""
        scaled = self.weight * self.std
        classifier = network.get_classifier()
        classifier.weight.copy_(scaled @ self.mapping.weight)
        classifier.bias.copy_(scaled @ self.mapping.bias + self.weight @ self.mean + self.bias)

    @torch.no_grad()
    def measure(self, network: Any, embedded: Tensor) -> dict[str, float]:
        targets = self.whole[0].embedded(torch.arange(len(embedded))).to(embedded.device)
        cosine = F.cosine_similarity(self.mapping(embedded), (targets - self.mean) / self.std)
        said = F.linear(targets, self.weight, self.bias).argmax(dim=1)
        guessed = network.get_classifier()(embedded).argmax(dim=1)
        return {
            "val cosine to the teacher's embedding": cosine.mean().item(),
            "val agreement with the teacher's top-1": (guessed == said).float().mean().item(),
        }

    def _soft_labels(self, embedding: Tensor) -> Tensor:
        logits = F.linear(embedding, self.weight, self.bias)
        return F.log_softmax(logits / TEMPERATURE, dim=1)


Objective = Labelled | Distilled
