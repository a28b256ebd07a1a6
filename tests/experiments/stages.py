"""A stage in this process, to its end."""

from experiments.common.stage import Context, Stage


def work(stage: Stage, context: Context) -> None:
    """Do what the stage's command does, but for Sacred's record; no checkpoint stays."""
    stage._work(context)
    context.remove_checkpoints()
