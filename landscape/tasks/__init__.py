"""Tasks: the batched steps of a search, cut into blocks that can be remembered and handed to other processes."""

from landscape.tasks.answers import Answer, Answers
from landscape.tasks.energy import TaskEnergy, is_slow
from landscape.tasks.task import task
from landscape.tasks.workers import Workers, cluster

__all__ = ["Answer", "Answers", "TaskEnergy", "Workers", "cluster", "is_slow", "task"]
