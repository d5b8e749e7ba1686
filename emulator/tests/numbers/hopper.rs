//! What an H100 gives where the PTX ISA leaves it open, or says something else: results of these instructions on these
//! operands, read from one (driver 580.159.04, kernels assembled by it).

use crate::run::{Kernel, run};

/// An instruction, the registers of its result and of its operands, and rows: operands, then the result.
type Case = (&'static str, &'static str, &'static [&'static str], &'static [([u64; 3], u64)]);

const CASES: &[Case] = &[
    (
        "add.f64 %d, %a, %b;",
        "b64",
        &["b64", "b64"],
        &[
            ([0xfffc_2e8e_1c50_c30a, 0x7ffc_d265_caf9_aaae, 0], 0x7ffc_d265_caf9_aaae),
            ([0x7ffd_466f_fc69_413c, 0xfffd_466f_fc69_413b, 0], 0xfffd_466f_fc69_413b),
            ([0x7ff8_2553_6b22_2d3a, 0x7fff_467d_3916_87d4, 0], 0x7fff_467d_3916_87d4),
            ([0x7ffe_17e2_834f_4bf9, 0x7ff0_c2bd_d196_fcbb, 0], 0x7ff8_c2bd_d196_fcbb),
            ([0x7ff5_9e4c_7855_6967, 0xfff5_9e4c_7855_6967, 0], 0xfffd_9e4c_7855_6967),
        ],
    ),
    (
        "sub.rp.f64 %d, %a, %b;",
        "b64",
        &["b64", "b64"],
        &[
            ([0xfff6_4fe0_24fd_96c1, 0x7ff6_4fe0_24fd_96c1, 0], 0x7ffe_4fe0_24fd_96c1),
            ([0x7ffd_edbb_33ae_c333, 0xfffd_edbb_33ae_c333, 0], 0xfffd_edbb_33ae_c333),
            ([0xfffb_b6da_1659_3db0, 0x7ffb_b6da_1659_3db1, 0], 0x7ffb_b6da_1659_3db1),
            ([0xfffd_3e54_b2d2_7862, 0x7ff4_23b9_a7a7_a4e4, 0], 0x7ffc_23b9_a7a7_a4e4),
            ([0xfff4_6a4f_4e5f_c967, 0xfff9_2c41_3bd1_0339, 0], 0xfff9_2c41_3bd1_0339),
        ],
    ),
    (
        "mul.rm.f64 %d, %a, %b;",
        "b64",
        &["b64", "b64"],
        &[
            ([0x7ff5_8ee1_5511_a5eb, 0xfff5_0aa4_9918_70c2, 0], 0xfffd_0aa4_9918_70c2),
            ([0xfff1_c5ac_1250_d37f, 0x7ff1_c5ac_1250_d37e, 0], 0x7ff9_c5ac_1250_d37e),
            ([0xfff1_bb49_fdac_7531, 0x7ffc_cb0e_0eb4_3ec0, 0], 0x7ffc_cb0e_0eb4_3ec0),
            ([0xfffd_f4ec_4a08_7192, 0x7ffd_f4ec_4a08_7193, 0], 0x7ffd_f4ec_4a08_7193),
            ([0x7ffd_b7fe_3f05_5d47, 0x7ff8_310f_0755_9c1f, 0], 0x7ff8_310f_0755_9c1f),
        ],
    ),
    (
        "fma.rn.f64 %d, %a, %b, %c;",
        "b64",
        &["b64", "b64", "b64"],
        &[
            (
                [0xfff2_b3f9_9150_ae66, 0x4195_0b0b_11cb_5911, 0x7ff7_f899_6629_6484],
                0x7fff_f899_6629_6484,
            ),
            (
                [0xfffc_cd0b_fc02_5362, 0x7ffc_cd0b_fc02_5361, 0x7ffc_cd0b_fc02_5361],
                0x7ffc_cd0b_fc02_5361,
            ),
            (
                [0x7ffe_b85a_2044_07d9, 0x4252_35ed_24cb_61e4, 0xfffe_b85a_2044_07da],
                0xfffe_b85a_2044_07da,
            ),
            (
                [0xfff4_e496_5d90_cf2d, 0x2caf_2aaf_d80d_df24, 0x7ffc_e496_5d90_cf2c],
                0x7ffc_e496_5d90_cf2c,
            ),
            (
                [0x7ff9_fe26_755c_eb95, 0xfff9_fe26_755c_eb94, 0xfff9_fe26_755c_eb94],
                0xfff9_fe26_755c_eb94,
            ),
        ],
    ),
    (
        "fma.rz.f64 %d, %a, %b, %c;",
        "b64",
        &["b64", "b64", "b64"],
        &[
            (
                [0x7ff9_ab5b_d5ef_697c, 0xfff9_ab5b_d5ef_697d, 0xfff9_ab5b_d5ef_697b],
                0xfff9_ab5b_d5ef_697d,
            ),
            (
                [0xfffb_a722_f673_adc1, 0x7ffb_a722_f673_adc1, 0x7ffb_a722_f673_adc1],
                0x7ffb_a722_f673_adc1,
            ),
            (
                [0x7ff5_298c_764e_1351, 0x412c_3c5f_b7a2_16ae, 0x7fff_3cbb_bc3e_00b5],
                0x7fff_3cbb_bc3e_00b5,
            ),
            (
                [0x7ffa_30d7_c4d0_fc99, 0x3d9f_54cc_7afc_404f, 0xfffa_30d7_c4d0_fc98],
                0xfffa_30d7_c4d0_fc98,
            ),
            (
                [0x7ff1_109c_af09_f1a8, 0xfff1_109c_af09_f1a8, 0xfff9_109c_af09_f1a8],
                0xfff9_109c_af09_f1a8,
            ),
        ],
    ),
    (
        "min.f64 %d, %a, %b;",
        "b64",
        &["b64", "b64"],
        &[
            ([0x7ff9_ab5b_d5ef_697c, 0xfff9_ab5b_d5ef_697d, 0], 0xfff9_ab5b_d5ef_697d),
            ([0xfffb_a722_f673_adc1, 0x7ffb_a722_f673_adc1, 0], 0x7ffb_a722_f673_adc1),
            ([0x7ff1_109c_af09_f1a8, 0xfff1_109c_af09_f1a8, 0], 0xfff9_109c_af09_f1a8),
            ([0xfff3_f4df_85fc_e9bc, 0xffff_6551_2838_bf62, 0], 0xffff_6551_2838_bf62),
            ([0x7ffd_fc5b_f3dd_a860, 0x7ffa_6b2c_b809_0e6c, 0], 0x7ffa_6b2c_b809_0e6c),
        ],
    ),
    (
        "max.f64 %d, %a, %b;",
        "b64",
        &["b64", "b64"],
        &[
            ([0x7ff9_ab5b_d5ef_697c, 0xfff9_ab5b_d5ef_697d, 0], 0xfff9_ab5b_d5ef_697d),
            ([0xfffb_a722_f673_adc1, 0x7ffb_a722_f673_adc1, 0], 0x7ffb_a722_f673_adc1),
            ([0x7ff1_109c_af09_f1a8, 0xfff1_109c_af09_f1a8, 0], 0xfff9_109c_af09_f1a8),
            ([0xfff3_f4df_85fc_e9bc, 0xffff_6551_2838_bf62, 0], 0xffff_6551_2838_bf62),
            ([0x7ffd_fc5b_f3dd_a860, 0x7ffa_6b2c_b809_0e6c, 0], 0x7ffa_6b2c_b809_0e6c),
        ],
    ),
    (
        "abs.f32 %d, %a;",
        "b32",
        &["b32"],
        &[([0xffe2_09a8, 0, 0], 0x7fff_ffff), ([0x7fbe_9f86, 0, 0], 0x7fff_ffff)],
    ),
    (
        "neg.f32 %d, %a;",
        "b32",
        &["b32"],
        &[([0xffe2_09a8, 0, 0], 0x7fff_ffff), ([0x7fbe_9f86, 0, 0], 0x7fff_ffff)],
    ),
    (
        "abs.f64 %d, %a;",
        "b64",
        &["b64"],
        &[
            ([0xfff2_09a8_c776_399f, 0, 0], 0xfffa_09a8_c776_399f),
            ([0xfffc_cd0b_fc02_5362, 0, 0], 0xfffc_cd0b_fc02_5362),
            ([0x7ff6_5509_c808_c6b8, 0, 0], 0x7ffe_5509_c808_c6b8),
        ],
    ),
    (
        "neg.f64 %d, %a;",
        "b64",
        &["b64"],
        &[
            ([0xfff2_09a8_c776_399f, 0, 0], 0xfffa_09a8_c776_399f),
            ([0x7ffe_9f86_a224_30b7, 0, 0], 0x7ffe_9f86_a224_30b7),
            ([0xfffc_cd0b_fc02_5362, 0, 0], 0xfffc_cd0b_fc02_5362),
            ([0x7ff6_5509_c808_c6b8, 0, 0], 0x7ffe_5509_c808_c6b8),
        ],
    ),
    (
        "abs.f16x2 %d, %a;",
        "b32",
        &["b32"],
        &[
            ([0xf400_fff6, 0, 0], 0x7400_7fff),
            ([0x7c45_d1f8, 0, 0], 0x7fff_51f8),
            ([0x7fa4_c400, 0, 0], 0x7fff_4400),
            ([0xffba_48b9, 0, 0], 0x7fff_48b9),
        ],
    ),
    (
        "neg.bf16x2 %d, %a;",
        "b32",
        &["b32"],
        &[
            ([0xf780_fff6, 0, 0], 0x7780_7fff),
            ([0x7fc5_bdf8, 0, 0], 0x7fff_3df8),
            ([0x043d_ffaf, 0, 0], 0x843d_7fff),
            ([0xffd7_8019, 0, 0], 0x7fff_0019),
        ],
    ),
    (
        "cvt.f32.f32 %d, %a;",
        "b32",
        &["b32"],
        &[([0xffd0_d03b, 0, 0], 0xffd0_d03b), ([0x7fd8_bbaf, 0, 0], 0x7fd8_bbaf)],
    ),
    (
        "cvt.f32.bf16 %d, %a;",
        "b32",
        &["b16"],
        &[([0x7f81, 0, 0], 0x7f81_0000), ([0xff87, 0, 0], 0xff87_0000)],
    ),
    (
        "cvt.ftz.f64.f32 %d, %a;",
        "b64",
        &["b32"],
        &[
            ([0xffd0_d03b, 0, 0], 0x7fff_ffff_e000_0000),
            ([0x7fd8_bbaf, 0, 0], 0x7fff_ffff_e000_0000),
        ],
    ),
    (
        "cvt.rn.f32.f64 %d, %a;",
        "b32",
        &["b64"],
        &[
            ([0xfff0_d03b_073e_4d36, 0, 0], 0xffc6_81d8),
            ([0x7ff8_bbaf_9b6e_041b, 0, 0], 0x7fc5_dd7c),
            ([0x7ff6_59d8_daf5_75ef, 0, 0], 0x7ff2_cec6),
            ([0xfff8_7cdb_6610_e640, 0, 0], 0xffc3_e6db),
        ],
    ),
    (
        "cvt.rn.f16.f64 %d, %a;",
        "b16",
        &["b64"],
        &[
            ([0xfff0_d03b_073e_4d36, 0, 0], 0xfe34),
            ([0x7ff8_bbaf_9b6e_041b, 0, 0], 0x7e2e),
            ([0x7ff6_59d8_daf5_75ef, 0, 0], 0x7f96),
            ([0xfff8_7cdb_6610_e640, 0, 0], 0xfe1f),
        ],
    ),
    (
        "cvt.rn.bf16.f64 %d, %a;",
        "b16",
        &["b64"],
        &[
            ([0xfff0_d03b_073e_4d36, 0, 0], 0xffc6),
            ([0x7ff8_bbaf_9b6e_041b, 0, 0], 0x7fc5),
            ([0x7ff6_59d8_daf5_75ef, 0, 0], 0x7ff2),
            ([0xfff8_7cdb_6610_e640, 0, 0], 0xffc3),
        ],
    ),
    (
        "cvt.rni.f64.f64 %d, %a;",
        "b64",
        &["b64"],
        &[
            ([0xfff0_d03b_073e_4d36, 0, 0], 0xfff8_d03b_073e_4d36),
            ([0x7ff6_59d8_daf5_75ef, 0, 0], 0x7ffe_59d8_daf5_75ef),
        ],
    ),
    ("cvt.rp.ftz.f16.f32 %d, %a;", "b16", &["b32"], &[([0x0073_6270, 0, 0], 0x0001)]),
    ("cvt.rm.ftz.f16.f32 %d, %a;", "b16", &["b32"], &[([0x8040_f212, 0, 0], 0x8001)]),
    (
        "cvt.rna.tf32.f32 %d, %a;",
        "b32",
        &["b32"],
        &[([0xffa1_4eff, 0, 0], 0xffa1_4000), ([0x7fc8_c4d1, 0, 0], 0x7fc8_c000)],
    ),
    (
        "cvt.rna.satfinite.tf32.f32 %d, %a;",
        "b32",
        &["b32"],
        &[([0xffa1_4eff, 0, 0], 0xffa1_2000), ([0x7fc8_c4d1, 0, 0], 0x7fc8_a000)],
    ),
    (
        "cvt.rn.tf32.f32 %d, %a;",
        "b32",
        &["b32"],
        &[([0xffa1_4eff, 0, 0], 0x7fff_e000), ([0x7fc8_c4d1, 0, 0], 0x7fff_e000)],
    ),
    (
        "cvt.rz.relu.tf32.f32 %d, %a;",
        "b32",
        &["b32"],
        &[([0xffa1_4eff, 0, 0], 0x7fff_e000), ([0x7fc8_c4d1, 0, 0], 0x7fff_e000)],
    ),
    (
        "rem.s32 %d, %a, %b;",
        "b32",
        &["b32", "b32"],
        &[([0x0000_0000, 0x0000_0000, 0], 0xffff_ffff)],
    ),
    (
        "rem.u64 %d, %a, %b;",
        "b64",
        &["b64", "b64"],
        &[([0x0000_0000_0000_0000, 0x0000_0000_0000_0000, 0], 0xffff_ffff_ffff_ffff)],
    ),
    ("rem.s16 %d, %a, %b;", "b16", &["b16", "b16"], &[([0x0000, 0x0000, 0], 0xffff)]),
    (
        "bfe.u64 %d, %a, %b, %c;",
        "b64",
        &["b64", "b32", "b32"],
        &[
            ([0x1000_0000_0000_0000, 0x0080_0001, 0x2ddd_8560], 0x0000_0000_0000_0000),
            ([0xffff_ffff_ffff_ffff, 0x0000_0001, 0x1c48_8015], 0x7fff_ffff_ffff_ffff),
            ([0x0000_03ff_ffff_fffe, 0x7529_591f, 0x0000_0002], 0x0000_0000_0000_0000),
            ([0xf160_f6a9_eb1f_6ed4, 0x0000_0000, 0x9d29_8d1a], 0xf160_f6a9_eb1f_6ed4),
            ([0x8000_0000_0000_0001, 0x0000_0002, 0x3d1f_ff32], 0x2000_0000_0000_0000),
        ],
    ),
    (
        "bfe.s64 %d, %a, %b, %c;",
        "b64",
        &["b64", "b32", "b32"],
        &[
            ([0x1000_0000_0000_0000, 0x0080_0001, 0x2ddd_8560], 0x0000_0000_0000_0000),
            ([0x0000_03ff_ffff_fffe, 0x7529_591f, 0x0000_0002], 0x0000_0000_0000_0000),
            ([0xdd1d_4e96_15a1_df02, 0xebb8_fc29, 0x10a1_cf6e], 0xffff_ffff_ffff_ffff),
            ([0x8d23_51db_5cc3_a968, 0x0800_0000, 0x0000_0001], 0xffff_ffff_ffff_ffff),
            ([0xf160_f6a9_eb1f_6ed4, 0x0000_0000, 0x9d29_8d1a], 0xf160_f6a9_eb1f_6ed4),
        ],
    ),
    (
        "{ .reg .b32 %pos, %len; and.b32 %pos, %c, 0xffff; shr.u32 %len, %c, 16; bfi.b64 %d, %a, %b, %pos, %len; }",
        "b64",
        &["b64", "b64", "b32"],
        &[
            ([0xf84a_266c_a2d2_d935, 0x0000_0000_0000_0002, 0xd935_0001], 0xf094_4cd9_45a5_b26a),
            ([0xf802_1250_9448_d7d4, 0x0000_0000_0000_0000, 0xd7d4_7627], 0x0000_0000_0000_0000),
            ([0x0000_0000_cf33_d507, 0xd8a1_b233_dfe8_9884, 0xd507_0001], 0x0000_0001_9e67_aa0e),
            ([0xa96e_2c1f_5397_be09, 0x0000_0000_0000_002c, 0xbe09_2001], 0x0000_0000_0000_002c),
            ([0x0000_2cc7_7fde_1b13, 0x7c7a_930d_79f3_0250, 0x1b13_0002], 0x0000_b31d_ff78_6c4c),
        ],
    ),
];

#[test]
fn results_of_an_h100() {
    for (text, result, operands, rows) in CASES {
        let kernel = Kernel { text, result, operands, target: "sm_90" };
        let inputs: Vec<_> = rows.iter().map(|row| row.0).collect();
        for ((operands, want), got) in rows.iter().zip(run(&kernel, &inputs)) {
            assert_eq!(got, *want, "{text} of {operands:x?} is {got:#x}");
        }
    }
}
