"""A fake checkout of OpenFold for tests of `perf predict`: our model under OpenFold's names."""

from __future__ import annotations

from pathlib import Path

_CONFIG = """
from types import SimpleNamespace as Config


def model_config(name, low_prec=False):
    template = Config(template_pair_stack=Config(tune_chunk_size=True))
    extra_msa = Config(extra_msa_stack=Config(no_blocks=4, tune_chunk_size=True))
    return Config(
        globals=Config(chunk_size=4),
        model=Config(
            evoformer_stack=Config(no_blocks=48, tune_chunk_size=True),
            extra_msa=extra_msa,
            template=template,
        ),
    )
"""

_MODEL = """
import attn_core_inplace_cuda
import modelcif.model
import torch
from benchmark.perf.subprocesses.predict_probe import model_sizes
from openfold_opt.model.alphafold import AlphaFold as Ours
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.published_weights.openfold_names import openfold_name
from openfold_opt.protein.features import FEATURES


class AlphaFold(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.tunes = config.model.evoformer_stack.tune_chunk_size
        self.has_run = False
        blocks = config.model.evoformer_stack.no_blocks
        extra_blocks = config.model.extra_msa.extra_msa_stack.no_blocks
        sizes = model_sizes(blocks=blocks, extra_blocks=extra_blocks)
        self.ours = Ours(sizes, seed=None)

    def load_state_dict(self, state):
        names = {openfold_name(name): name for name in self.ours.state_dict()}
        self.ours.load_state_dict({names[name]: value for name, value in state.items()})

    def forward(self, batch):
        if self.tunes and self.has_run:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        self.has_run = True
        batched = {}
        for name, value in batch.items():
            assert value.shape[-1] == 1, f"{name} has no dim of passes"
            value = value.movedim(-1, 0)
            batched[name] = value[None] if FEATURES[name].per_pass else value
        features, plan = FeatureBatch.from_features(batched), ExecutionPlan.reference()
        outputs = self.ours(features, plan, num_recycling_iterations=0)
        return {
            "final_atom_positions": outputs.final_atom_positions[0],
            "plddt": outputs.plddt[0],
            "pair": outputs.pair[0],
            "distogram_logits": outputs.distogram_logits[0],
        }
"""


def write_fake_openfold(folder: Path) -> Path:
    """Write a checkout whose model is ours. With tuned chunks, its second forward pass fails."""
    (folder / "openfold" / "model").mkdir(parents=True)
    (folder / "openfold" / "config.py").write_text(_CONFIG, encoding="utf-8")
    (folder / "openfold" / "model" / "model.py").write_text(_MODEL, encoding="utf-8")
    return folder
