"""Fix bfloat16 of Triton's interpreter, which runs the kernels on machines without a GPU."""

import torch

from tests.support.bf16_interpreter import fix_bfloat16

if not torch.cuda.is_available():
    fix_bfloat16()
