"""What sentence-transformers makes of an exported folder and of the same pairs; skipped where it is not installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftlab.backbone import Backbone
from ftlab.export import export, export_run
from ftlab.model_card import Facts
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from ftlab.strategies.prompt_tuning import PromptTuning
from ftlab.tasks.sentence_embedding import SentenceEmbedding
from tests.unit.exports import BERT, LLAMA, trained

TEXTS = ["a cat sleeps", "the cat is asleep on the old mat by the door", "x"]
FACTS = Facts(config={}, metrics={})


@pytest.fixture(scope="module")
def library() -> Any:
    return pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")


def vectors(task: SentenceEmbedding, module: Any) -> np.ndarray:
    rows = [(i, {"sentence1": text, "sentence2": text}) for i, text in enumerate(TEXTS)]
    examples = [{k: np.atleast_1d(v) for k, v in e.items()} for e in task.encode(rows, module.tokenizer, 64, False)]
    return np.array([r["first"] for r in task.predict(module.adapted, task.collate(examples, module.tokenizer))])


@pytest.mark.parametrize("tuning", [Full(), LoRA()], ids=["whole", "adapter"])
@pytest.mark.parametrize(
    ("backbone", "pooling", "normalize"),
    [(BERT, "mean", True), (BERT, "cls", False), (LLAMA, "last", True), (LLAMA, "mean", False)],
    ids=["bert-mean", "bert-cls", "llama-last", "llama-mean"],
)
def test_the_folder_opens_and_gives_the_same_vectors(
    library: Any, tmp_path: Path, tuning: Any, backbone: Any, pooling: Any, normalize: bool
) -> None:
    task = SentenceEmbedding(pooling=pooling, normalize=normalize, predicts="vectors")
    module = trained(tuning, backbone, task)
    export_run(module, tmp_path / "export", FACTS)
    opened = library.SentenceTransformer(str(tmp_path / "export"), device="cpu", local_files_only=True)
    assert opened.encode(TEXTS, show_progress_bar=False) == pytest.approx(vectors(task, module), abs=1e-6)


@pytest.mark.parametrize("loss", ["cosine", "contrastive"])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_folder_gives_pairs_the_same_similarity(library: Any, tmp_path: Path, loss: Any, normalize: bool) -> None:
    task = SentenceEmbedding(loss=loss, normalize=normalize)
    module = trained(Full(), BERT, task)
    export_run(module, tmp_path / "export", FACTS)
    opened = library.SentenceTransformer(str(tmp_path / "export"), device="cpu", local_files_only=True)
    first, second = (opened.encode(texts, show_progress_bar=False) for texts in (TEXTS, TEXTS[::-1]))
    rows = [(i, {"sentence1": a, "sentence2": b}) for i, (a, b) in enumerate(zip(TEXTS, TEXTS[::-1], strict=True))]
    examples = [{k: np.atleast_1d(v) for k, v in e.items()} for e in task.encode(rows, module.tokenizer, 64, False)]
    ours = [record["similarity"] for record in task.predict(module.adapted, task.collate(examples, module.tokenizer))]
    assert opened.similarity_pairwise(first, second).tolist() == pytest.approx(ours, rel=1e-5)


def test_a_merged_folder_opens_too(library: Any, tmp_path: Path) -> None:
    task = SentenceEmbedding(predicts="vectors")
    module = trained(LoRA(), BERT, task)
    sample: list[Mapping[str, torch.Tensor]] = [{"input_ids": torch.arange(4, 28).reshape(2, 12)}]
    export(module, tmp_path / "merged", FACTS, sample, merge=True)
    opened = library.SentenceTransformer(str(tmp_path / "merged"), device="cpu", local_files_only=True)
    assert opened.encode(TEXTS, show_progress_bar=False) == pytest.approx(vectors(task, module), abs=1e-5)


@pytest.mark.parametrize(
    ("tuning", "backbone"), [(PromptTuning(length=2), BERT), (LoRA(), Backbone(name="ftlab/tiny-bert"))], ids=["native", "no base"]
)
def test_what_it_cannot_open_has_none_of_its_files(tmp_path: Path, tuning: Any, backbone: Backbone) -> None:
    module = trained(tuning, backbone, SentenceEmbedding())
    export_run(module, tmp_path / "export", FACTS)
    assert not (tmp_path / "export" / "modules.json").exists()


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_contrastive_loss_is_its_ranking_loss(library: Any, tmp_path: Path, symmetric: bool) -> None:
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses", reason="sentence-transformers is older than 6")
    task = SentenceEmbedding(loss="contrastive", symmetric=symmetric, temperature=0.05)
    module = trained(Full(), BERT, task)
    export_run(module, tmp_path / "export", FACTS)
    opened = library.SentenceTransformer(str(tmp_path / "export"), device="cpu", local_files_only=True)
    pairs = [("a cat sleeps", "it is asleep"), ("two dogs run", "the dogs are fast and loud"), ("rain", "water from above")]
    features = [opened.tokenize([pair[k] for pair in pairs]) for k in (0, 1)]
    ranking = losses.MultipleNegativesRankingLoss(opened, scale=20.0, similarity_fct=library.util.cos_sim)
    theirs = ranking(features, None).detach()
    if symmetric:
        theirs = (theirs + ranking(features[::-1], None).detach()) / 2
    rows = [(i, {"sentence1": a, "sentence2": b}) for i, (a, b) in enumerate(pairs)]
    examples = [{k: np.atleast_1d(v) for k, v in e.items()} for e in task.encode(rows, module.tokenizer, 64, True)]
    outputs = task.forward(module.adapted, task.collate(examples, module.tokenizer))
    ours = outputs.sums["similarity"] / outputs.counts["similarity"]
    assert float(ours.detach()) == pytest.approx(float(theirs), rel=1e-5)
