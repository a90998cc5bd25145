"""Train one trajectory and hand over the epochs that are kept."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from ftsafety.errors import UserError
from ftsafety.runs import Trajectory
from ftsafety.training.batches import Example, epoch_order, micro_batches, summed_loss
from ftsafety.training.checkpoints import agreed, complete_checkpoints, is_undamaged, save_checkpoint
from ftsafety.training.engines import Engine, device
from ftsafety.training.ranks import rank, world_size
from ftsafety.training.schedule import learning_rate_at
from ftsafety.training.stopping import Stopped


@dataclass(frozen=True)
class BatchSplit:
    """A global batch as per-device micro-batches: per_device × ranks × accumulation = global."""

    per_device_batch_size: int
    ranks: int
    accumulation: int

    @classmethod
    def of(cls, global_batch_size: int, ranks: int, max_per_device: int) -> "BatchSplit":
        """The largest per-device size that divides evenly. Raises ValueError if none does."""
        if global_batch_size % ranks:
            raise ValueError(f"a global batch of {global_batch_size} on {ranks} ranks")
        share = global_batch_size // ranks
        per_device = next(d for d in range(min(share, max_per_device), 0, -1) if share % d == 0)
        split = cls(per_device, ranks, share // per_device)
        assert split.per_device_batch_size * split.ranks * split.accumulation == global_batch_size
        return split


#: Examples of a micro-batch → what `summed_loss` takes, on this rank's device.
Collate = Callable[[Sequence[Example]], tuple[torch.Tensor, ...]]


@dataclass
class Progress:
    """What has happened so far; goes into checkpoints and, at a kept epoch, into its done.json."""

    step: int
    losses: list[float]  # mean over the target tokens of each global batch
    tokens: int  # target and prompt tokens, without padding
    status: str = "ok"


def train_trajectory(
    engine: Engine,
    trajectory: Trajectory,
    examples: Sequence[Example],
    split: BatchSplit,
    collate: Collate,
    epochs: Sequence[int],
    scratch: Path,
    checkpoint_every_steps: int | None,
    on_epoch: Callable[[int, Progress], None],
    log: Callable[[str], None],
    must_stop: Callable[[], bool] = lambda: False,
) -> Progress:
    """Train until the last of the ascending `epochs`, from a complete checkpoint in `scratch` if one helps.

    `on_epoch(epoch, progress)` is called on every rank after each of them. A loss that is not finite
    ends the training with status `diverged`. When `must_stop` says so on any rank, a checkpoint is saved and
    `Stopped` raised. Data order and dropout depend on (seed, epoch or step) alone, so a resumed or longer
    training takes the same steps.
    """
    assert trajectory.global_batch_size is not None and trajectory.seed is not None
    steps_per_epoch = len(examples) // trajectory.global_batch_size
    progress = _resume(engine, scratch, epochs[0] * steps_per_epoch, log)
    order: list[int] = []
    engine.model.train()
    while progress.step < epochs[-1] * steps_per_epoch:
        epoch, within = divmod(progress.step, steps_per_epoch)
        if within == 0 or not order:
            order = epoch_order(len(examples), trajectory.seed, epoch)
        start = within * trajectory.global_batch_size
        batch = [examples[i] for i in order[start : start + trajectory.global_batch_size]]
        torch.manual_seed(random.Random(f"{trajectory.seed}/{progress.step}/{rank()}").getrandbits(63))
        loss = _accumulate(engine, batch, split, collate)
        progress.losses.append(loss)
        progress.tokens += sum(len(example.tokens) for example in batch)
        if not math.isfinite(loss):
            progress.status = "diverged"
            log(f"diverged: the loss of step {progress.step + 1} is {loss}")
            return progress
        engine.step(learning_rate_at(trajectory, progress.step, steps_per_epoch))
        progress.step += 1
        if progress.step % steps_per_epoch == 0:
            log(f"epoch {epoch + 1}/{epochs[-1]}  loss {loss:.3f}")
            if epoch + 1 in epochs:
                on_epoch(epoch + 1, progress)
        is_last = progress.step == epochs[-1] * steps_per_epoch
        ends_here = not is_last and not _on_all_ranks(not must_stop())
        if ends_here or (checkpoint_every_steps and progress.step % checkpoint_every_steps == 0):
            is_saved = save_checkpoint(engine, scratch, progress.step, vars(progress), log)
            if ends_here:
                place = "there" if is_saved else "the checkpoint before"
                raise Stopped(f"stopped after step {progress.step}; the same command goes on from {place}")
    return progress


def _resume(engine: Engine, scratch: Path, needed_step: int, log: Callable[[str], None]) -> Progress:
    """Load the newest checkpoint that lies before the first step whose weights are needed.

    All ranks load the same one, or none: what cannot be loaded is told before any of them has changed. Raises
    UserError where it cannot be loaded all the same, since an engine may then hold a part of it.
    """
    for saved in agreed(list(complete_checkpoints(scratch))):
        if saved.progress["step"] >= needed_step:
            continue
        name = saved.folder.name
        if saved.layout != engine.layout:
            log(f"passing over {name}: saved by {saved.layout}, and this is {engine.layout}")
        elif not _on_all_ranks(is_undamaged(saved.folder)):
            log(f"passing over {name}: damaged")
        else:
            try:
                engine.load(saved.folder)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever libraries raise
                raise UserError(
                    f"a checkpoint cannot be loaded ({type(error).__name__}: {error})",
                    file=str(saved.folder),
                    mend="run it again; if it stays so, remove this folder",
                ) from error
            log(f"resuming after step {saved.progress['step']}")
            return Progress(**saved.progress)
    return Progress(step=0, losses=[], tokens=0)


def _on_all_ranks(condition: bool) -> bool:
    if world_size() == 1:
        return condition
    flag = torch.tensor(int(condition), device=device())
    dist.all_reduce(flag, dist.ReduceOp.MIN)
    return bool(flag)


def _accumulate(engine: Engine, batch: list[Example], split: BatchSplit, collate: Collate) -> float:
    """Gradients of the mean loss over the batch's target tokens; returns that mean.

    Ranks take turns from the smallest micro-batch to the largest, so that all have about as much to do.
    """
    n_targets = sum(example.n_targets for example in batch)
    micro = micro_batches(batch, split.ranks * split.accumulation)
    total = torch.zeros((), device=device())
    autocast = torch.autocast("cuda", torch.bfloat16, enabled=device().type == "cuda")
    for part in micro[rank() :: split.ranks]:
        with autocast:
            loss = summed_loss(engine.model, *collate(part)) / n_targets
        engine.backward(loss)
        total += loss.detach()
    if world_size() > 1:
        dist.all_reduce(total)
    return float(total)
