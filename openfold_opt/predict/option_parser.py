"""The parser of the command and its help."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from openfold_opt.predict.confidence_files import MAX_RESIDUES_OF_PAE_JSON
from openfold_opt.predict.options import DEFAULTS

USAGE_EXIT_CODE = 2
"""Exit code of a command that was refused before the first prediction."""
DTYPES = ("auto", "fp32", "bf16")
GRAPHS = ("auto", "on", "off")
RANKS = ("plddt", "ptm")
RELAX_CHOICES = ("best", "all", "none")
DESCRIPTION = """\
Predict the structures of protein chains with trained AlphaFold2 weights.

INPUT is one or several of: a FASTA file with any number of chains, an a3m file, a directory of
them. Put INPUT before the options. Or use --data-dir and --chains for chains of converted data.
"""
EPILOG = """\
several GPUs:
  one chain faster     torchrun --nproc-per-node P -m openfold_opt.predict ... splits every chain
                       over P GPUs (dynamic axial parallelism, DAP). Worth it from about 1,000
                       residues on; short chains gain nothing.
  a longer chain       the same command. Each GPU holds 1/P of the pair representation, so P GPUs
                       hold a chain about sqrt(P) times as long. --plan-only says what fits.
  more chains          torchrun --nproc-per-node R -m openfold_opt.predict ... --replicas R deals
                       out the chains by length to R GPUs, each with the whole model. Best for
                       many chains that fit on one GPU.
  both                 --dap P --replicas R with P x R ranks.

outputs, in the directory --out:
  NAME.cif             the structure (of the best weights) as ModelCIF, pLDDT in the B factor
  NAME.pdb             the same as PDB, if it has at most 9,999 residues and 99,999 atoms
  NAME_confidence.json pLDDT of each residue, in the layout of the AlphaFold database
  NAME_pae.npz         predicted aligned error, float16 (key "pae"), if the weights predict it
  NAME_predicted_aligned_error.json  the same in the layout of the AlphaFold database
  NAME_distogram.npy   with --save-distogram; NAME_single.npy, NAME_pair.npy with --save-embeddings
  NAME_relaxed.cif, .pdb  with --relax
  NAME.json            scores, templates, warnings; written last, when the chain is finished
  NAME_rank_1_WEIGHTS.cif, ...  with several weights: the files of each, best first
  report.html          a page with all chains: structures, PAE, pLDDT; opens in a browser from disk
  scores.json          with --truth: lDDT, TM-score, GDT-TS; NAME_superposed.png shows both
  summary.json         ranking, settings with the seed, weights, versions, scores of all chains

exit codes: 0 all chains have a structure, 1 some failed (their reasons are printed and stored), 2
refused before the start, 76 another rank was lost, 130 Ctrl-C, 143 SIGTERM. The same command
predicts only what is missing.
"""


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser that prints one line for an error, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Print the error and how to get help, and end the process with exit code 2."""
        print(f"{self.prog}: error: {message}; see {self.prog} --help", file=sys.stderr)
        self.exit(USAGE_EXIT_CODE)


def build_parser(prog: str) -> OneLineParser:
    """Return the parser of the command."""
    parser = OneLineParser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("input", nargs="*", type=Path, metavar="INPUT", help="see above")
    _add_inputs(parser.add_argument_group("inputs"))
    _add_weights(parser.add_argument_group("weights"))
    _add_computing(parser.add_argument_group("computing"))
    _add_plan(parser.add_argument_group("memory plan"))
    _add_output(parser.add_argument_group("output"))
    _add_presentation(parser.add_argument_group("relaxation, comparison and presentation"))
    return parser


def _add_inputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--alignments",
        type=Path,
        action="extend",
        nargs="+",
        default=[],
        metavar="PATH",
        help="directory with the alignments of all chains (layouts of OpenProteinSet and OpenFold, "
        "flat, or one file per chain), or an .a3m or .sto file",
    )
    group.add_argument(
        "--single-sequence",
        action="store_true",
        default=None,
        help="predict chains without an alignment from their sequence alone; without this option "
        "a missing alignment is an error. Expect low confidence",
    )
    group.add_argument(
        "--template-structures",
        type=Path,
        metavar="DIR",
        help="directory of mmCIF files of the templates; the hits come from .hhr files among "
        "the alignments. Without it no templates are used",
    )
    group.add_argument(
        "--max-template-date",
        metavar="DATE",
        help="use only templates released on this date (YYYY-MM-DD) or earlier (default: today)",
    )
    group.add_argument(
        "--exclude-templates",
        action="extend",
        nargs="+",
        metavar="PDB_ID",
        help="PDB entries (1abc) or chains (1abc_A) that are never templates",
    )
    group.add_argument(
        "--data-dir",
        type=Path,
        metavar="SHARDS",
        help="data that data_prep converted, in place of INPUT",
    )
    group.add_argument(
        "--chains",
        action="extend",
        nargs="+",
        default=[],
        metavar="ID",
        help="chains of --data-dir (default: all)",
    )


def _add_weights(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--weights",
        type=Path,
        action="extend",
        nargs="+",
        default=[],
        metavar="W",
        help="run directory, AlphaFold parameters (.npz), OpenFold checkpoint (.pt) or "
        "safetensors, recognized by content; with several, each predicts and the results are "
        "ranked",
    )
    group.add_argument(
        "--checkpoint",
        metavar="NAME",
        help="checkpoint of a run directory: best, last, or the name of a folder (default: last)",
    )
    group.add_argument(
        "--model-config",
        type=Path,
        metavar="FILE",
        help="JSON file with the sizes of the model, for sizes other than AlphaFold2's",
    )
    group.add_argument(
        "--max-msa-clusters",
        type=int,
        metavar="N",
        help="rows that are drawn from the alignment; each template adds a row (default: that of "
        "the run, else 508, or 512 for weights without templates)",
    )
    group.add_argument(
        "--max-extra-msa",
        type=int,
        metavar="N",
        help="rows of the extra MSA (default: that of the run, else 1,024; AlphaFold's models 1, 3 "
        "and 4 were trained with 5,120)",
    )


def _add_computing(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--device",
        type=str.lower,
        metavar="D",
        help="auto, cpu or cuda; with --plan-only the name of a GPU, such as h200, h100, a100-80 "
        "or a100-40, or cpu (default: auto, a GPU if there is one)",
    )
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        help="precision of the matrix products (default: auto, bf16 on a GPU and fp32 on a CPU)",
    )
    group.add_argument(
        "--graphs",
        choices=GRAPHS,
        help="use CUDA graphs for chains of up to 512 residues (auto, the default), for all chains "
        "(on) or for none (off); needs one GPU per chain",
    )
    group.add_argument(
        "--dap",
        type=int,
        metavar="P",
        help="number of ranks that share a chain (default: all ranks, divided by --replicas)",
    )
    group.add_argument(
        "--replicas",
        type=int,
        metavar="R",
        help="number of groups of ranks that predict different chains (default: 1)",
    )
    group.add_argument(
        "--recycling",
        type=int,
        metavar="N",
        help="recycling iterations (default: that of the run, else 3)",
    )
    group.add_argument(
        "--recycling-tolerance",
        type=float,
        metavar="ANGSTROM",
        help="stop recycling when the RMS change of the CA-CA distances is below this value "
        "(default: never)",
    )
    group.add_argument(
        "--seed",
        type=int,
        metavar="S",
        help=f"seed of the MSA samples (default: {DEFAULTS['seed']}); the same seed gives the same "
        "structure on the same machine",
    )
    group.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that prepare the features of the next chains (default: 1)",
    )


def _add_plan(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--plan-only",
        action="store_true",
        help="print the estimated time, the memory, and whether the chain fits, and exit; needs no "
        "weights and no GPU. --dap P plans for P GPUs, --template-structures for 4 templates",
    )
    group.add_argument(
        "--length",
        type=int,
        action="extend",
        nargs="+",
        default=[],
        metavar="N",
        help="numbers of residues for --plan-only (default: those of INPUT)",
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--out", type=Path, metavar="DIR", help="output directory")
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="predict finished chains again, and accept a directory of another run",
    )
    group.add_argument(
        "--rank",
        choices=RANKS,
        help="score that ranks several weights (default: plddt, the mean pLDDT)",
    )
    group.add_argument(
        "--save-pae",
        action=argparse.BooleanOptionalAction,
        help="write the predicted aligned error, if the weights predict it (default: yes)",
    )
    group.add_argument(
        "--pae-json",
        action=argparse.BooleanOptionalAction,
        help="also write it as JSON in the layout of the AlphaFold database, about 5 bytes per "
        f"pair of residues (default: for up to {MAX_RESIDUES_OF_PAE_JSON:,} residues)",
    )
    group.add_argument(
        "--save-distogram",
        action="store_true",
        default=None,
        help="write the logits of the distogram, 128 bytes per pair of residues (default: no)",
    )
    group.add_argument(
        "--save-embeddings",
        action="store_true",
        default=None,
        help="write the single and pair representations of the last pass, float16, 256 bytes per "
        "pair of residues (default: no)",
    )


def _add_presentation(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--truth",
        type=Path,
        action="extend",
        nargs="+",
        default=[],
        metavar="PATH",
        help="true structures, directories of them (NAME.cif, or 1abc.cif for 1abc_A), or "
        "converted data (as --data-dir); at the end, compare and write scores.json and pictures",
    )
    group.add_argument(
        "--relax",
        choices=RELAX_CHOICES,
        help="remove clashes and wrong bonds of the best structure or of all sets of weights with "
        "OpenMM, and write them as NAME_relaxed.cif (default: none)",
    )
    group.add_argument(
        "--pictures",
        action=argparse.BooleanOptionalAction,
        help="draw each chain: backbone, pLDDT, predicted aligned error, alignment depth (default: "
        "yes)",
    )
    group.add_argument(
        "--report",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write report.html at the end (default: yes)",
    )
