"""A stand-in for CUDA on the CPU: tensors that are said to be on it, and refuse what CUDA tensors refuse.

Inside `with StandIn():` whatever is put on the device "cuda" is computed on the CPU, but

- operations that mix it with tensors of the CPU fail (numbers of no dimension, indices and `copy_` excepted, as there),
- it becomes a numpy array by way of `.cpu()` only, and is drawn without a generator of the CPU.

Parameters of modules count for any device. What cannot be seen this way is what CUDA computes otherwise: rounding,
missing kernels, time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
INDEXED = ("__getitem__", "__setitem__")


class Elsewhere(torch.Tensor):
    """A tensor that is said to be on CUDA."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a CUDA tensor becomes a numpy array by way of .cpu()")


class StandIn(TorchFunctionMode):
    """operations : how many were done on the device that is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __enter__(self) -> StandIn:
        self._module_to = torch.nn.Module.to
        torch.nn.Module.to = _buffers_too(self._module_to)  # type: ignore[method-assign]
        super().__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        torch.nn.Module.to = self._module_to  # type: ignore[method-assign]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name == "__get__" and getattr(func, "__self__", None) is torch.Tensor.device:
            return CUDA if isinstance(args[0], Elsewhere) else CPU
        with torch._C.DisableTorchFunctionSubclass():
            if name == "cpu":
                return args[0].as_subclass(torch.Tensor)
            if name == "numpy" and isinstance(args[0], Elsewhere):
                raise TypeError("a CUDA tensor becomes a numpy array by way of .cpu()")
            if name == "to":
                return _moved(func, args, kwargs)
            there = self._is_there(name, args, kwargs)
            result = func(*args, **kwargs)
        self.operations += there
        return _tagged(result) if there else result

    def _is_there(self, name: str, args: Any, kwargs: dict[str, Any]) -> bool:
        """Whether the result is on CUDA; takes the device out of kwargs."""
        drawn_here = kwargs.get("generator") is not None
        if kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]).type == "cuda"
            kwargs["device"] = CPU
            if there and drawn_here:
                raise RuntimeError("a generator of the CPU draws no CUDA tensors")
            return there
        given = [*_tensors(args), *_tensors(list(kwargs.values()))]
        there = any(isinstance(tensor, Elsewhere) for tensor in given)
        if name == "copy_":
            return isinstance(args[0], Elsewhere)
        if there and drawn_here:
            raise RuntimeError("a generator of the CPU draws no CUDA tensors")
        if name in INDEXED:
            given = [args[0], *(part for part in args[2:] if isinstance(part, torch.Tensor))]
            if not isinstance(args[0], Elsewhere) and there:
                raise RuntimeError(f"{name} of a CPU tensor by a CUDA one")
        mixed = [t for t in given if not isinstance(t, Elsewhere | torch.nn.Parameter) and t.ndim > 0]
        if there and mixed:
            shapes = [tuple(tensor.shape) for tensor in given]
            raise RuntimeError(f"expected all tensors to be on the same device: {name} of shapes {shapes}")
        return there


def _moved(func: Any, args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
    """What `to` returns: the device may come by position, by name or with another tensor."""
    there, rest = isinstance(args[0], Elsewhere), []
    for part in args[1:]:
        if isinstance(part, torch.Tensor):
            there, part = isinstance(part, Elsewhere), part.as_subclass(torch.Tensor)
        elif isinstance(part, str | torch.device):
            there, part = torch.device(part).type == "cuda", CPU
        rest.append(part)
    if kwargs.get("device") is not None:
        there, kwargs["device"] = torch.device(kwargs["device"]).type == "cuda", CPU
    result = func(args[0].as_subclass(torch.Tensor), *rest, **kwargs)
    return result.as_subclass(Elsewhere) if there else result


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def _tagged(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.as_subclass(Elsewhere)
    if isinstance(value, list | tuple):
        return type(value)([_tagged(part) for part in value])
    return value


def _buffers_too(to: Any) -> Any:
    def moved(module: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
        devices = [part for part in (*args, *kwargs.values()) if isinstance(part, str | torch.device)]
        there = any(torch.device(part).type == "cuda" for part in devices)
        args = tuple(CPU if isinstance(part, str | torch.device) else part for part in args)
        result = to(module, *args, **({**kwargs, "device": CPU} if "device" in kwargs else kwargs))
        for part in result.modules() if there else ():
            for name, buffer in part.named_buffers(recurse=False):
                part._buffers[name] = buffer.as_subclass(Elsewhere)
        return result

    return moved
