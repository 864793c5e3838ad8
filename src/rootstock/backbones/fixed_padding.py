"""TensorFlow's padding as constants, for a network that is exported for one input size.

timm computes these margins from the size of each input. In an ONNX file that is a dozen nodes per
convolution and a separate padding, which breaks the memory layout of ONNX Runtime and, in int8, the
chain of integers: EfficientNet-Lite0 took 15 % more time in float32 and 30 % more in int8.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import Conv2dSame, get_same_padding
from torch import Tensor, nn
from torch.nn import functional


def fix_padding(module: nn.Module, example: Tensor) -> nn.Module:
    """Return the module with constant margins for inputs of the size of ``example``, to export it.

    It is ``module`` itself if no convolution has this padding, and otherwise a copy.
    """
    found = [name for name, one in module.named_modules() if type(one) is Conv2dSame]
    if not found:
        return module
    module = copy.deepcopy(module)
    sides: dict[str, Sequence[int]] = {}

    def watch(name: str) -> Any:
        return module.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs: sides.update({name: inputs[0].shape[-2:]})
        )

    hooks = [watch(name) for name in found]
    with torch.inference_mode():
        module(example)
    for hook in hooks:
        hook.remove()
    for name, shape in sides.items():
        parent, _, leaf = name.rpartition(".")
        fixed = _FixedConv(module.get_submodule(name), shape)
        setattr(module.get_submodule(parent), leaf, fixed)
    return module


class _FixedConv(nn.Module):
    """A convolution with constant margins."""

    def __init__(self, conv: Any, sides: Sequence[int]) -> None:
        super().__init__()
        self.conv = conv
        sizes = zip(sides, conv.kernel_size, conv.stride, conv.dilation, strict=True)
        margins = [get_same_padding(*one) for one in sizes]
        # As ONNX has them: the starts of both axes, then the ends.
        self.pads = [one // 2 for one in margins] + [one - one // 2 for one in margins]

    def forward(self, images: Tensor) -> Tensor:
        return _PaddedConv.apply(  # type: ignore[no-any-return, no-untyped-call]
            images, self.conv.weight, self.conv.bias, self.pads, self.conv
        )


class _PaddedConv(torch.autograd.Function):
    """One convolution of ONNX, which may have other margins at the start than at the end."""

    @staticmethod
    def forward(
        _: Any, images: Tensor, weight: Tensor, bias: Tensor | None, pads: list[int], conv: Any
    ) -> Tensor:
        top, left, bottom, right = pads
        padded = functional.pad(images, (left, right, top, bottom))
        return functional.conv2d(padded, weight, bias, conv.stride, 0, conv.dilation, conv.groups)

    @staticmethod
    def symbolic(
        graph: Any, images: Any, weight: Any, bias: Any, pads: list[int], conv: Any
    ) -> Any:
        """Return the node of ONNX; called by torch's exporter."""
        inputs = [images, weight] if conv.bias is None else [images, weight, bias]
        return graph.op(
            "Conv",
            *inputs,
            pads_i=pads,
            kernel_shape_i=conv.kernel_size,
            strides_i=conv.stride,
            dilations_i=conv.dilation,
            group_i=conv.groups,
        )
