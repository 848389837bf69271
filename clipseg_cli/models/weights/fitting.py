"""Putting weights into a network, or saying exactly why they do not belong there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clipseg_cli.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

EARLIER = "download it again, or take an earlier checkpoint: such a model labels nothing"


def fit_weights(
    net: nn.Module, state: Mapping[str, Tensor], *, source: str, name: str, hint: Callable[[], str]
) -> None:
    """Load weights under the names of the network; how many batches its batch norms have seen may be left out.

    Args:
        net: changed in place, once all is known to fit.
        state: name -> tensor.
        source: of the weights, for messages.
        name: of the network, for messages.
        hint: gives what to do where they do not fit.

    Raises:
        ModelError: names or shapes differ, or there is NaN in them.
    """
    check_weights(net.state_dict(), state, source=source, name=name, hint=hint)
    net.load_state_dict(dict(state), strict=False)


def check_weights(
    expected: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    source: str,
    name: str,
    hint: Callable[[], str],
    same_type: bool = False,
) -> None:
    """`fit_weights` without a network; `same_type` also wants numbers of the same kind.

    Raises:
        ModelError: as there.
    """

    def kind(tensor: Tensor) -> str:
        shape = str(list(tensor.shape))
        return f"{str(tensor.dtype).removeprefix('torch.')} {shape}" if same_type else shape

    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in expected]
    other = [k for k in expected if k in state and kind(state[k]) != kind(expected[k])]
    problems = []
    if other:
        more = f" (and {len(other) - 1} more shapes)" if len(other) > 1 else ""
        first = other[0]
        problems.append(f"{first} is {kind(state[first])} where {kind(expected[first])} is expected{more}")
    for keys, what in ((missing, "missing"), (unexpected, "unexpected")):
        if keys:
            listed = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
            problems.append(f"{what} {len(keys)} key{'' if len(keys) == 1 else 's'} ({listed})")
    if problems:
        raise ModelError(f"{source} does not fit {name}: {'; '.join(problems)}", hint=hint())
    spoilt = next((k for k, v in state.items() if v.is_floating_point() and not _all_finite(v)), None)
    if spoilt is not None:
        raise ModelError(f"{source} holds NaN or infinity in {spoilt}", hint=EARLIER)


def _all_finite(tensor: Tensor) -> bool:
    # One sum is much faster than looking at each number; only if that overflows they are looked at.
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())
