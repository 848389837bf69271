"""Choosing where and in what precision to compute."""

from __future__ import annotations

import re

import torch

from clipseg_cli.errors import UsageError, did_you_mean
from clipseg_cli.utils.distributed import local_rank

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU; anything else must exist here.

    Raises:
        UsageError: not a device, or not on this machine.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available():
        # One device for each process that torchrun starts on this machine.
        rank = local_rank()
        return torch.device("cuda", rank % torch.cuda.device_count()) if rank else torch.device("cuda")
    if name == "auto":
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (":" in name and not re.fullmatch("[0-9]{1,2}", index)):
        raise UsageError(f"unknown device '{name}'", hint=did_you_mean(kind, ("auto", "cpu", "cuda", "mps")))
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device on this machine", hint="leave out --device, or use --device cpu")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise UsageError(f"there is no {name}: this machine has {torch.cuda.device_count()} CUDA device(s)")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("no Apple GPU on this machine", hint="leave out --device, or use --device cpu")
    return torch.device(name)


def pick_precision(name: str, device: torch.device, *, cpu_bf16: bool = True) -> torch.dtype:
    """`auto` is bf16 where the device computes in it (CUDA; CPUs with AVX512-BF16 or AMX), else fp32.

    On MPS it is fp32: nobody has measured there yet whether bf16 pays, and `--precision bf16` may be asked for.

    Args:
        name: "auto" or one of `PRECISIONS`.
        device: on which it is computed.
        cpu_bf16: `auto` takes bf16 also on a CPU that computes in it.

    Raises:
        UsageError: not a known precision.
    """
    if name == "auto":
        bf16 = (
            torch.cuda.is_bf16_supported()
            if device.type == "cuda"
            else cpu_bf16 and device.type == "cpu" and bool(_bf16_units())
        )
        return torch.bfloat16 if bf16 else torch.float32
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision '{name}'", hint=did_you_mean(name, ("auto", *PRECISIONS)))
    return PRECISIONS[name]


def _bf16_units() -> str:
    """The instructions of this CPU for products of bf16; empty where it can only imitate them."""
    asked = {"AMX": "_is_amx_tile_supported", "AVX512-BF16": "_is_avx512_bf16_supported"}
    return next((unit for unit, name in asked.items() if getattr(torch.cpu, name, lambda: False)()), "")


def describe_device(device: torch.device, dtype: torch.dtype) -> str:
    """A name for people: "NVIDIA H200 (cuda), bf16", "CPU, 8 threads, fp32" or "CPU, 8 threads, bf16 (AMX)"."""
    short = next((name for name, known in PRECISIONS.items() if known == dtype), str(dtype))
    if device.type == "cpu" and dtype == torch.bfloat16:
        short += f" ({_bf16_units() or 'slow: this CPU has no instructions for it'})"
    return f"{_describe(device)}, {short}"


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    if device.type == "mps":
        return "Apple GPU (mps)"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
