"""What a task takes from the training rows, and how it is written down with it."""

from __future__ import annotations

import json

from ftlab.errors import ConfigError
from ftlab.spec import built_from, spec_of
from ftlab.tasks.base import NumberedRows, Task
from ftlab.testing.conformance.check import BrokenError, require, task_check
from ftlab.testing.conformance.tasks.subject import TaskSubject


@task_check("yaml")
def declares(subject: TaskSubject) -> None:
    """What the class says of itself fits together: heads, weights, auto class, and the methods that `merges` and `scores` ask for.

    A task that scores predictions and does not make them fails at the end of the first epoch.
    """
    import transformers

    task, kind = subject.bound, type(subject.task)
    require(bool(task.heads) and all(task.heads), "heads names no loss")
    require(hasattr(transformers, task.auto_class), f"auto_class is {task.auto_class!r}, which transformers does not have")
    require(set(task.weights()) == set(task.heads), f"weights() has {sorted(task.weights())}, heads is {sorted(task.heads)}")
    for flag, needed in (("merges", ("merge",)), ("scores", ("records", "score"))):
        missing = [name for name in needed if getattr(kind, name) is getattr(Task, name)] if getattr(task, flag) else []
        require(not missing, f"{flag} is set, and {kind.__name__} does not define {' and '.join(missing)}")
    lacking = set(task.columns(True)) - set(subject.rows[0])
    require(not lacking, f"columns(True) names {sorted(lacking)}, which the sample rows do not have")


@task_check("declares")
def binds_once(subject: TaskSubject) -> None:
    """Bound to its training rows the task needs them no more, and is itself again from a checkpoint or a config.yaml.

    A set of labels that is not among the fields is another one when a run predicts without the training rows.
    """

    def none() -> NumberedRows:
        raise BrokenError("a task that is bound already asks for the training rows again, which `ftlab predict` need not have")

    before = spec_of(subject.task)
    task = subject.bound
    require(spec_of(subject.task) == before, "bind changed the task instead of giving another one")
    require(task.bind(none) == task, "bound a second time, the task is another")
    again = built_from(json.loads(json.dumps(spec_of(task))), "tasks")
    require(again == task, "from the arguments that a checkpoint stores, the task is another")
    require(again.model_options() == task.model_options(), "from the arguments that a checkpoint stores, the model is another")
    try:
        subject.module()
    except ConfigError as error:
        raise BrokenError(f"no tiny {subject.family} model does for the task: {error}") from error
