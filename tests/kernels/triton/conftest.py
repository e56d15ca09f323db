"""Kernels run in Triton's interpreter where there is no GPU; its bfloat16 is mended first."""

import torch

from tests.kernels.triton.bf16_interpreter import mend_bfloat16

if not torch.cuda.is_available():
    mend_bfloat16()
