"""What a model learns of the task."""

from __future__ import annotations

import torch

from ftlab.heads import body_of, fresh_modules
from ftlab.testing.conformance import server
from ftlab.testing.conformance.check import require, task_check
from ftlab.testing.conformance.subject import seed_all
from ftlab.testing.conformance.tasks.subject import TaskSubject, outputs_of
from ftlab.testing.conformance.tensors import few

_STEPS, _FALL = 20, 0.9


@task_check("counts")
def heads(subject: TaskSubject) -> None:
    """Every module of the model's head gets a gradient that is finite and not zero, and every loss has one.

    A head that the loss goes round keeps its random weights, and its predictions are noise.
    """
    module = subject.unbuilt()
    seed_all(0)
    model, missing = module.backbone.load_model(module.task.auto_class, module.task.model_options(), {})
    model.config.pad_token_id = module.tokenizer.pad_token_id
    inside = (
        {id(p) for name, p in body_of(model).named_parameters()} if body_of(model) is not model else {id(p) for p in model.parameters()}
    )
    fresh = {id(p) for part in fresh_modules(model, missing, module.backbone).values() for p in part.parameters()}
    found = outputs_of(module.task, model, subject.whole())
    for head, total in found.sums.items():
        require(total.requires_grad, f"the loss of '{head}' does not depend on the model")
    torch.stack(list(found.sums.values())).sum().backward()
    wanted = [(name, p) for name, p in model.named_parameters() if id(p) in fresh or id(p) not in inside]
    moving = {name.rpartition(".")[0] for name, p in wanted if p.grad is not None and bool(p.grad.ne(0).any())}
    idle = {name for name, p in wanted if p.grad is None or name.rpartition(".")[0] not in moving}
    require(not idle, f"no gradient reaches {few(idle)} of the model's head")
    bad = {name for name, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())}
    require(not bad, f"the gradient of {few(bad)} is not finite")


@task_check("counts", beside=("heads",))
def learns(subject: TaskSubject) -> None:
    """The loss of a few examples falls when they are learnt.

    A loss whose sign is wrong, or that is not the one that is reported, rises.
    """
    module = subject.module()
    batch, model, weights = subject.whole(), module.adapted, module.task.weights()
    made, losses = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for _ in range(_STEPS):
        found = outputs_of(module.task, model, batch)
        loss = torch.stack([weights[head] * total / batch.counts()[head] for head, total in found.sums.items()]).sum()
        losses.append(float(loss))
        loss.backward()
        made.step()
        made.zero_grad()
    require(losses[-1] < _FALL * losses[0], f"after {_STEPS} steps on the same rows the loss is {losses[-1]:.4g} from {losses[0]:.4g}")


@task_check("predictions", "unlabelled", beside=("heads",))
def runs(subject: TaskSubject) -> None:
    """Lightning's trainer fits and validates; a fresh run predicts rows without labels, without the training rows.

    What the pieces can do each by itself, a run does in another order.
    """
    server.call("run", subject)
