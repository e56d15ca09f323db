"""CAMEO targets (cameo3d.org) submitted from 2021-09-18 to 2021-12-11.

The validation chains of the benchmark are selected from these targets. The letter after the PDB id
is usually the mmCIF chain id and sometimes the author's chain id; `selection.cameo_chains` looks up
both.
"""

from __future__ import annotations

_BY_DATE = {
    "2021-09-18": (
        "7bgg_A 7bly_A 7cz9_B 7d2w_A 7e6g_A 7jta_A 7jua_A 7ksn_A 7lm0_A 7m1w_A 7o86_A 7rih_B "
        "7rij_A 7s3u_A 7s5n_B"
    ),
    "2021-09-25": (
        "7ba4_A 7czo_A 7dg7_A 7dg9_A 7dlw_B 7du6_A 7du7_A 7dvr_A 7dxs_C 7dxv_B 7dxw_A 7e24_D "
        "7e57_C 7k3s_A 7ltc_A 7mbf_A 7mj0_C"
    ),
    "2021-10-02": (
        "7a59_B 7a73_A 7aao_A 7agj_A 7aj6_L 7bmu_A 7bsx_A 7d3y_A 7d50_B 7e4m_A 7jyp_A 7n79_A "
        "7ny0_A 7og3_A 7p01_A 7sbc_C"
    ),
    "2021-10-09": ("7d6l_A 7d8r_A 7d8s_A 7jrk_A 7p2f_A 7pmu_A 7r65_A 7rk1_C 7rk2_C 7s6e_B"),
    "2021-10-16": (
        "7amc_A 7da9_A 7dah_E 7dnm_B 7eea_A 7eft_B 7kgc_A 7nmb_A 7o62_B 7p1b_C 7p1v_A 7rrm_C "
        "7s13_C 7s13_L 7sh3_A"
    ),
    "2021-10-23": ("7dck_A 7f17_B 7msj_A 7nwz_D 7nx0_B 7nx0_E 7og0_B 7pkx_A 7plq_B 7s6g_A 7siq_A"),
    "2021-10-30": (
        "7ar0_B 7cjs_B 7dcm_A 7ef6_A 7et8_A 7lc5_A 7ndr_A 7nl4_A 7o49_F 7s6b_A 7sir_A 7v1v_A 7vmu_A"
    ),
    "2021-11-06": (
        "6wmk_A 6wqc_A 7au7_A 7b3a_A 7bcz_A 7bhy_A 7dru_C 7eqx_A 7eqx_C 7esx_A 7f7n_A 7fbp_B "
        "7fe3_A 7lew_B 7mfw_B 7obm_A 7ool_A 7r84_A 7rwk_A"
    ),
    "2021-11-13": (
        "6xqj_A 6z01_A 7atr_A 7dfe_A 7dtp_A 7kik_A 7kos_A 7ouq_A 7p82_C 7pbk_A 7q47_A 7re4_A 7re6_A"
    ),
    "2021-11-20": (
        "6tf4_A 7awk_A 7bcj_A 7djy_A 7dk9_A 7dvn_A 7kqv_D 7ls0_B 7ny6_A 7plb_B 7rbw_A 7vnb_A"
    ),
    "2021-11-27": (
        "7b0d_A 7e2v_A 7f6e_B 7fbh_A 7fh3_A 7kiu_A 7kua_A 7l6j_A 7l6y_A 7lxc_A 7swh_A 7swk_B"
    ),
    "2021-12-04": (
        "7b1k_B 7b1w_F 7b26_C 7b28_F 7b29_A 7b2a_A 7b2o_A 7bny_B 7dkk_A 7dko_A 7dmf_A 7dms_A "
        "7lbu_A 7ljh_A 7poh_B 7ppp_A 7q03_A"
    ),
    "2021-12-11": (
        "7b4q_A 7dnu_A 7e37_A 7kuw_A 7kzh_A 7mfi_A 7p3t_B 7q1b_A 7sf6_A 7sy9_A 7t24_A 7v5y_B 7vdy_A"
    ),
}

CAMEO_TARGETS: tuple[tuple[str, str], ...] = tuple(
    (date, target) for date, line in _BY_DATE.items() for target in line.split()
)
"""(ISO date of submission, `<pdb id>_<chain>`), in the order of submission."""
