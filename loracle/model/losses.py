"""Cross entropy at the targets only, and its padded reference.

Shape suffixes: T targets, E hidden size, V vocabulary, B batch, L length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from loracle.forest.trie import Sequences
from loracle.model.head import CappedHead
from loracle.native import kernels, takes

# Logits of this many targets exist at once: 512 x 150,000 in float32 are 300 MB.
_CHUNK_TARGETS = 512
# In a product whose rows are no multiple of this, some processors add up the vocabulary of the
# rows left over one by one, which costs two digits of the gradient (docs/log.md).
_ROWS_MULTIPLE = 16


def target_loss(
    hidden_TE: Tensor, head: nn.Module, token_ids_T: Tensor, weights_T: Tensor
) -> Tensor:
    """The weighted sum of cross entropies of `head(hidden)`, in float32.

    Where the head is frozen and linear, logits are never kept: their gradient is made in the
    forward pass, chunk by chunk. Any other head, and one on another device, runs as it is.
    """
    linear, cap = (head.head, head.cap) if isinstance(head, CappedHead) else (head, None)
    frozen = type(linear) is nn.Linear and linear.weight.device == hidden_TE.device
    if frozen and not any(parameter.requires_grad for parameter in linear.parameters()):
        loss: Tensor = _FrozenHeadLoss.apply(  # type: ignore[no-untyped-call]
            hidden_TE, linear.weight, linear.bias, token_ids_T, weights_T, cap
        )
        return loss
    logits = head(hidden_TE).float().to(hidden_TE.device)
    losses = nn.functional.cross_entropy(logits, token_ids_T, reduction="none")
    return (losses * weights_T).sum()


class _FrozenHeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TE: Tensor,
        weight_VE: Tensor,
        bias_V: Tensor | None,
        token_ids_T: Tensor,
        weights_T: Tensor,
        cap: float | None,
    ) -> Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=hidden_TE.device)
        gradient_TE = torch.empty_like(hidden_TE)
        for start in range(0, len(hidden_TE), _CHUNK_TARGETS):
            chunk = slice(start, start + _CHUNK_TARGETS)
            logits = nn.functional.linear(hidden_TE[chunk], weight_VE, bias_V)
            targets = token_ids_T[chunk], weights_T[chunk]
            if cap is None:
                chunk_loss, d_logits = _loss_with_gradient(logits, *targets)
            else:
                bent = torch.tanh(logits / cap)
                chunk_loss, d_logits = _loss_with_gradient(bent * cap, *targets)
                d_logits = d_logits * (1.0 - bent.square())
            loss += chunk_loss
            num_targets = len(d_logits)
            if num_missing := -num_targets % _ROWS_MULTIPLE:
                d_logits = nn.functional.pad(d_logits, (0, 0, 0, num_missing))
            gradient_TE[chunk] = (d_logits @ weight_VE)[:num_targets]
        ctx.save_for_backward(gradient_TE)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_TE,) = ctx.saved_tensors
        scaled = gradient_TE * gradients[0].to(gradient_TE.dtype)
        return scaled, None, None, None, None, None


def _loss_with_gradient(
    logits_TV: Tensor, token_ids_T: Tensor, weights_T: Tensor
) -> tuple[Tensor, Tensor]:
    """The weighted loss, and its gradient with respect to the logits, which may be overwritten."""
    # In float32 torch's own: its rounding is that of the model's own loss, to which the forest's
    # gradients are held; the kernel's, though smaller, is another one (docs/log.md).
    in_half = logits_TV.dtype == torch.bfloat16
    found = kernels() if in_half and takes(logits_TV) else None
    if found is not None:
        return found.cross_entropy(logits_TV, token_ids_T, weights_T).sum(), logits_TV
    token_ids_T1, weights_T1 = token_ids_T[:, None], weights_T[:, None]
    log_probabilities = torch.log_softmax(logits_TV.float(), dim=-1)
    loss = -(log_probabilities.gather(1, token_ids_T1) * weights_T1).sum()
    d_logits = log_probabilities.exp_().mul_(weights_T1)
    d_logits.scatter_add_(1, token_ids_T1, -weights_T1)
    return loss, d_logits.to(logits_TV.dtype)


def padded_loss(model: Any, sequences: Sequences, device: torch.device) -> tuple[Tensor, int]:
    """The same sum through an ordinary right-padded batch, and the tokens computed (B * L)."""
    assert sequences.weights is not None
    lengths = torch.from_numpy(sequences.lengths)
    mask_BL = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    token_ids_BL = torch.zeros(mask_BL.shape, dtype=torch.long)
    token_ids_BL[mask_BL] = torch.from_numpy(sequences.token_ids).long()
    weights_BL = torch.zeros(mask_BL.shape)
    weights_BL[mask_BL] = torch.from_numpy(sequences.weights)
    token_ids_BL, weights_BL = token_ids_BL.to(device), weights_BL.to(device)
    logits = model(
        input_ids=token_ids_BL, attention_mask=mask_BL.to(device), use_cache=False
    ).logits
    losses = nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), token_ids_BL[:, 1:].flatten(), reduction="none"
    )
    return (losses * weights_BL[:, 1:].flatten()).sum(), token_ids_BL.numel()


def added(losses: list[Tensor]) -> Tensor:
    """The sum, in float64, where the losses are: nothing waits for a device."""
    if not losses:
        return torch.zeros((), dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64, device=_place_of_doubles(losses[0].device))
    for loss in losses:
        total += loss.to(total.device, torch.float64)
    return total


def _place_of_doubles(device: torch.device) -> torch.device:
    return torch.device("cpu") if device.type == "mps" else device
