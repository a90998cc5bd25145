"""What takes an optimizer step and keeps its state: plain torch on any number of ranks, or DeepSpeed ZeRO.

Both take a loss that is already scaled so that the sum over micro-batches and ranks is the mean over the
target tokens of the global batch; how the batch is split then changes nothing but rounding and what dropout
draws.
"""

import os
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from ftsafety.files import read_json
from ftsafety.training.ranks import rank, world_size

State = dict[str, torch.Tensor]


def device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


class Engine(Protocol):
    model: Any
    #: What a checkpoint of this engine can be loaded by: one with the same layout.
    layout: str

    def backward(self, loss: torch.Tensor) -> None: ...
    def step(self, learning_rate: float) -> None: ...
    def save(self, folder: Path) -> None:
        """Write all that `load` needs to go on bit for bit; every rank calls it."""

    def load(self, folder: Path) -> None: ...
    def weights(self) -> State:
        """Trainable weights, gathered, on every rank's CPU (only rank 0's are complete under ZeRO)."""


def adamw(model: Any, weight_decay: float) -> torch.optim.AdamW:
    trainable = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trainable, lr=0.0, weight_decay=weight_decay, fused=True)


class Plain:
    """Torch alone: float32 weights (bfloat16 compute on a GPU), gradients summed over ranks."""

    layout = "torch"

    def __init__(self, model: Any, weight_decay: float, max_grad_norm: float):
        self.model = model
        self.optimizer = adamw(model, weight_decay)
        self.max_grad_norm = max_grad_norm

    def _trainable(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def step(self, learning_rate: float) -> None:
        parameters = list(self._trainable().values())
        if world_size() > 1:
            for parameter in parameters:
                dist.all_reduce(parameter.grad)
        torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        if rank():
            return
        state: State = {}
        for name, parameter in self._trainable().items():
            state[f"weight/{name}"] = parameter.detach()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                state[f"{key}/{name}"] = value
        save_file({key: value.contiguous() for key, value in state.items()}, folder / "state.safetensors")

    def load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        state = load_file(folder / "state.safetensors")
        for name, parameter in self._trainable().items():
            parameter.data.copy_(state[f"weight/{name}"])
            self.optimizer.state[parameter] = {
                key: state[f"{key}/{name}"].to(parameter.device if key != "step" else "cpu")
                for key in ("step", "exp_avg", "exp_avg_sq")
            }

    def weights(self) -> State:
        return {name: p.detach().cpu().clone() for name, p in self._trainable().items()}


class DeepSpeed:
    """ZeRO by `config/deepspeed/zero<stage>.json`, which holds hardware choices alone."""

    def __init__(
        self,
        model: Any,
        weight_decay: float,
        max_grad_norm: float,
        config_file: Path,
        *,
        per_device_batch_size: int,
        accumulation: int,
        dtype: str,
    ):
        import deepspeed

        self.scale = accumulation * world_size()  # DeepSpeed averages over both
        config = read_json(config_file) | {
            "train_micro_batch_size_per_gpu": per_device_batch_size,
            "gradient_accumulation_steps": accumulation,
            "gradient_clipping": max_grad_norm,
            "bf16": {"enabled": dtype == "bfloat16"},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
        self.engine, *_ = deepspeed.initialize(
            model=model, optimizer=adamw(model, weight_decay), config=config
        )
        self.model = self.engine
        self.stage = int(config["zero_optimization"]["stage"])
        self.layout = f"ZeRO-{self.stage} with {world_size()} ranks in {dtype}"

    def backward(self, loss: torch.Tensor) -> None:
        self.engine.backward(loss * self.scale)
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()  # counts the micro-batch; the last one is counted by `step`

    def step(self, learning_rate: float) -> None:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self.engine.step()

    def save(self, folder: Path) -> None:
        self.engine.save_checkpoint(str(folder), tag="state")

    def load(self, folder: Path) -> None:
        path, _ = self.engine.load_checkpoint(str(folder), tag="state")
        if path is None:
            raise OSError(f"DeepSpeed cannot load {folder}")

    def weights(self) -> State:
        import deepspeed

        state: State = {}
        for name, parameter in self.engine.module.named_parameters():
            if not parameter.requires_grad:
                continue
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.stage == 3):
                state[name] = parameter.detach().cpu().clone()
        return state


def start_ranks(zero_stage: int | None) -> None:
    """Join the process group where one is needed; the launcher has set the environment."""
    if dist.is_initialized() or (world_size() == 1 and zero_stage is None):
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    if zero_stage is None:
        dist.init_process_group(backend)
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
        import deepspeed

        deepspeed.init_distributed(dist_backend=backend)
