"""Predictor: the Python interface, with small weights in AlphaFold's layout."""

import gemmi
import numpy as np
import pytest

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.predict import Predictor, PredictorSettings
from openfold_opt.predict.__main__ import main
from openfold_opt.predict.chain_input import ChainInput
from tests.support.operator_recorder import OperatorRecorder

SEQUENCE = "MKTAYIAKQRQISFVKSH"


def settings(shared, **changes) -> PredictorSettings:
    """Settings for the small model: one recycling iteration, so that a test takes seconds."""
    return PredictorSettings(
        model_config=str(shared / "golden" / "model_tiny" / "config.json"),
        num_recycling_iterations=1,
        **changes,
    )


def weights(shared, name: str):
    return shared / "golden" / "weights" / name


@pytest.fixture
def alignment(tmp_path):
    path = tmp_path / "q.a3m"
    path.write_text(f">q\n{SEQUENCE}\n>r\n{SEQUENCE[:-4]}AAAA\n")
    return path


def test_a_sequence_with_two_sets_of_weights(shared, tmp_path, alignment):
    paths = [weights(shared, "model_1_ptm_tiny.npz"), weights(shared, "model_3_tiny.npz")]
    predictor = Predictor(paths, device="cpu", settings=settings(shared))
    result = predictor.predict(SEQUENCE, name="q", alignments=alignment)
    assert set(result.ranking) == {"model_1_ptm_tiny", "model_3_tiny"}
    assert result.best.positions.shape == (len(SEQUENCE), 37, 3)
    pae = result.pae_matrices["model_1_ptm_tiny"]
    assert pae.shape == (len(SEQUENCE), len(SEQUENCE)) and pae.dtype == np.float16
    assert result.pae_matrices["model_3_tiny"] is None
    structure = gemmi.read_structure(str(result.write(tmp_path / "out")))
    atoms = [atom for residue in structure[0]["A"] for atom in residue]
    assert len(atoms) == result.best.atom_mask.sum()
    assert (tmp_path / "out" / "q_rank_2_model_3_tiny.cif").exists() or (
        tmp_path / "out" / "q_rank_1_model_3_tiny.cif"
    ).exists()


def test_a_wrong_sequence_is_a_value_error(shared):
    predictor = Predictor(
        weights(shared, "model_3_tiny.npz"), device="cpu", settings=settings(shared)
    )
    with pytest.raises(ValueError, match="separates the chains of a complex"):
        predictor.predict("MK:TA")


def test_wrong_arguments_of_the_python_interface(shared):
    config = str(shared / "golden" / "model_tiny" / "config.json")
    predictor = Predictor(
        str(weights(shared, "model_3_tiny.npz")),
        device="cpu",
        settings=PredictorSettings(model_config=config),
    )
    with pytest.raises(ValueError, match="rank_by is 'tm'; expected 'plddt' or 'ptm'"):
        predictor.predict(SEQUENCE, rank_by="tm")
    with pytest.raises(ValueError, match="no weights are given"):
        Predictor([])


def test_weights_that_cannot_be_read_are_named(monkeypatch):
    def read_weights(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("openfold_opt.predict.predictor_settings.read_weights", read_weights)
    with pytest.raises(ValueError, match="cannot read the weights w.npz: .*Permission denied"):
        Predictor("w.npz", device="cpu")


@pytest.mark.parametrize(
    ("sequence", "name", "message"),
    [
        (f"{SEQUENCE}\n>q\n{SEQUENCE}", "q", "q: found '>' at position 19"),
        (f">q\n{SEQUENCE}", "q", "q: found '>' at position 1 "),
        (f";{SEQUENCE}", "q", "q: found ';' at position 1 "),
        ("", "q", "q: the sequence is empty"),
        (SEQUENCE, "two words", "'two words'; expected one word"),
        (SEQUENCE, "a\n>b", "expected one word"),
        (SEQUENCE, "", "expected one word"),
    ],
)
def test_a_python_call_takes_one_sequence_with_one_name(shared, sequence, name, message):
    path = weights(shared, "model_3_tiny.npz")
    predictor = Predictor(path, device="cpu", settings=settings(shared))
    with pytest.raises(ValueError, match=message):
        predictor.predict(sequence, name=name)


def test_the_command_gives_the_result_of_the_python_interface(shared, tmp_path, alignment, capsys):
    path = weights(shared, "model_1_ptm_tiny.npz")
    arguments = [alignment, "--weights", path, "--out", tmp_path / "out", "--device", "cpu"]
    arguments += ["--model-config", shared / "golden" / "model_tiny" / "config.json"]
    assert main([str(x) for x in [*arguments, "--recycling", 1]]) == 0
    assert "num_recycling_iterations 1 (option)" in capsys.readouterr().out
    predictor = Predictor(path, device="cpu", settings=settings(shared))
    result = predictor.predict(SEQUENCE, name="q", alignments=alignment)
    assert (tmp_path / "out" / "q.cif").read_text() == result.mmcif()
    with np.load(tmp_path / "out" / "q_pae.npz") as archive:
        np.testing.assert_array_equal(archive["pae"], result.pae)
    result.write(tmp_path / "again")
    written = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert set(written) == {
        "q.cif",
        "q.pdb",
        "q_confidence.json",
        "q_pae.npz",
        "q_predicted_aligned_error.json",
        "q.png",
    }
    for name, content in written.items():
        assert (tmp_path / "out" / name).read_bytes() == content, name


def test_weights_given_twice_are_refused(shared, tmp_path):
    first, copy = weights(shared, "model_1_tiny.npz"), tmp_path / "copy.npz"
    copy.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=r"copy\.npz has the same weights as .*model_1_tiny\.npz"):
        Predictor([first, copy], device="cpu", settings=settings(shared))


def plan(shared, capsys, *arguments) -> tuple[int, str]:
    """Run --plan-only for the small model."""
    config = shared / "golden" / "model_tiny" / "config.json"
    options = ["--plan-only", "--device", "cpu", "--model-config", config]
    options += ["--max-msa-clusters", 8, "--max-extra-msa", 16]
    code = main([str(x) for x in [*arguments, *options]])
    text = capsys.readouterr()
    return code, text.out + text.err


def test_a_plan_of_an_input_needs_no_alignments(shared, tmp_path, capsys):
    fasta = tmp_path / "in.fasta"
    fasta.write_text(f">a\n{SEQUENCE}\n>b\nMK:TA\n")
    code, text = plan(shared, capsys, fasta)
    assert code == 1 and "18 residues" in text and "FAILED (input): b: " in text
    fasta.write_text(">b\nMK:TA\n")
    code, text = plan(shared, capsys, fasta)
    assert code == 2 and "separates the chains of a complex" in text
    code, text = plan(shared, capsys)
    assert code == 2 and "add --length N, INPUT or --data-dir" in text


def test_a_plan_with_more_ranks_than_residues_is_refused(shared, capsys):
    code, text = plan(shared, capsys, "--length", 20, "--dap", 30)
    assert code == 1 and "20 residues cannot be shared between 30 ranks" in text


def test_graphs_change_no_result(shared, monkeypatch):
    recorders = []

    def new_recorder(device, remedy):
        recorders.append(OperatorRecorder())
        return recorders[-1]

    path = weights(shared, "model_1_ptm_tiny.npz")
    expected = Predictor(path, device="cpu", settings=settings(shared, graphs="off"))
    with pytest.raises(ValueError, match="not a GPU; use auto or off"):
        Predictor(path, device="cpu", settings=settings(shared, graphs="on"))
    # The graphs of a GPU, with a recorder that works on a CPU.
    monkeypatch.setattr("openfold_opt.predict.predictor.obstacle_to_graphs", lambda *args: None)
    monkeypatch.setattr("openfold_opt.predict.device_model.CudaRecorder", new_recorder)
    # The recorder sees operators of PyTorch, and not the kernels in C++.
    reference = KernelConfig.all("reference")
    monkeypatch.setattr("openfold_opt.predict.predictor.KernelConfig.all", lambda _: reference)
    predictor = Predictor(path, device="cpu", settings=settings(shared))
    for sequence in (SEQUENCE, SEQUENCE[:-3]):
        chain = ChainInput(name="q", sequence=sequence, letters=sequence, origin="test")
        plan = predictor.plan(chain, 0)
        assert plan.sizes.num_residues == 64
        assert plan.peak_bytes > plan.graph_bytes > plan.forward_bytes
        found, without = predictor.predict(sequence).best, expected.predict(sequence).best
        np.testing.assert_allclose(found.positions, without.positions, atol=1e-3)
        assert found.ptm == pytest.approx(without.ptm, rel=1e-4)
    assert [recorder.num_replays for recorder in recorders] == [2]
