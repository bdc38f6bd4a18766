"""Models called through torch.compile, as long as that works.

A graph is compiled for each size of images, since the best kernels differ between sizes, one more
where the last layer is trained alone, and one for evaluation. What cannot be compiled runs as it
is, at the first call or in the middle of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastload.console.terminal import say
from fastload.errors import FastloadError, first_line
from train.options import Options
from train.ranks import Ranks
from train.schedule import size_at

# (images float [N, 3, H, W]) -> logits float [N, C]
Forward = Callable[[Tensor], Tensor]


class CompileError(FastloadError):
    """CUDA graphs do not fit the run."""


class Compiler:
    """Compiles the modules of a run, until compiling fails once.

    Args:
        batch_size: Images of a full batch. A smaller batch, such as the last one of an evaluation,
            is not worth a graph and runs as it is.
        graphs: How many graphs the run may need of one module.
        cuda_graphs: Record each graph as a CUDA graph. An answer is a copy then, because the next
            call writes over the memory of the graph.
        backend: The compiler: a name or a function for `torch.compile`.
        silent: Say nothing if compiling fails: another process does.

    Attributes:
        works: False once something could not be compiled.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        graphs: int,
        cuda_graphs: bool = False,
        backend: str | Callable[..., Any] = "inductor",
        silent: bool = False,
    ) -> None:
        self._batch_size, self._graphs = batch_size, graphs
        self._cuda_graphs, self._backend, self._silent = cuda_graphs, backend, silent
        self.works = True

    def forward_of(self, module: nn.Module) -> Forward:
        """How the module is called from now on; it is compiled when it is called."""
        compiled: Forward | None = None

        def forward(images: Tensor) -> Tensor:
            nonlocal compiled
            if self.works and len(images) == self._batch_size:
                try:
                    if compiled is None:
                        compiled = self._compiled(module)
                    return self._answer(compiled, images)
                except torch._dynamo.exc.TorchDynamoException as error:
                    self._give_up(error)
            answer: Tensor = module(images)
            return answer

        return forward

    def _compiled(self, module: nn.Module) -> Forward:
        _set_up(self._graphs)
        mode = "reduce-overhead" if self._cuda_graphs else None
        try:
            compiled: Forward = torch.compile(
                module, dynamic=False, backend=self._backend, mode=mode
            )
        except RuntimeError as error:  # this Python or this system is not supported
            raise torch._dynamo.exc.TorchDynamoException(str(error)) from error
        return compiled

    def _answer(self, compiled: Forward, images: Tensor) -> Tensor:
        if not self._cuda_graphs:
            return compiled(images)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # torch
        return compiled(images).clone()

    def _give_up(self, error: Exception) -> None:
        self.works = False
        if not self._silent:
            reason = first_line(getattr(error, "inner_exception", error))
            say(f"warning: --compile cannot be done here and is left out: {reason}", error=True)


def _set_up(graphs: int) -> None:
    """Have torch compile so many graphs, and the backward pass with the forward pass."""
    from torch._dynamo import config as tracing  # takes seconds: only where needed
    from torch._functorch import config as differentiating

    # Beyond its limit, 8 as it comes, torch would run what has another size as it is.
    tracing.cache_size_limit = max(tracing.cache_size_limit, graphs)
    # By itself torch compiles in `backward()`, where a failure would end the run.
    if hasattr(differentiating, "force_non_lazy_backward_lowering"):  # torch 2.5 has it not
        differentiating.force_non_lazy_backward_lowering = True


def compiler_for(options: Options, ranks: Ranks) -> Compiler | None:
    """What compiles the models of a run; None without --compile.

    Raises:
        CompileError: If --cuda-graphs does not fit the other options.
    """
    if not options.model.compile:
        return None
    if options.model.cuda_graphs:
        _require_cuda_graphs(options, ranks)
    epochs, head_epochs = options.schedule.epochs, options.schedule.head_epochs
    kinds = {
        (size_at(options.resolution, epoch=epoch, epochs=epochs), epoch < head_epochs)
        for epoch in range(epochs)
    }
    return Compiler(
        batch_size=options.data.batch_size,
        graphs=len(kinds) + 1,  # and the one of evaluation
        cuda_graphs=options.model.cuda_graphs,
        silent=not ranks.writes,
    )


def _require_cuda_graphs(options: Options, ranks: Ranks) -> None:
    found = ""
    if ranks.device.type != "cuda":
        found = f"the device is {ranks.device}, and it needs a GPU"
    elif ranks.world.size > 1:
        found = f"there are {ranks.world.size} processes, and gradients are exchanged by one only"
    elif options.optimisation.accumulate > 1:
        # Gradients lie in the memory of the graph, which the next batch writes over.
        found = f"--accumulate is {options.optimisation.accumulate}, and it must be 1"
    if found:
        raise CompileError(f"--cuda-graphs cannot be used: {found}; leave it out")
