//! `mma.sync` of every shape and type against products of small integers, which every format here holds exactly;
//! `ldmatrix`, `stmatrix`, `movmatrix`.

mod common;

use common::elements::{Numbers, decode, encode, pack, registers, unpack};
use common::matrix::{Mma, of_c};
use common::{Run, kernel};
use ptx_emulator::{FindingKind, MmaMode};

fn cases() -> Vec<Mma<'static>> {
    let mut list = Vec::new();
    let mut add = |shapes: &[(usize, usize)], types, bits, sum, modifiers, target| {
        let case = |&(rows, k)| Mma { rows, k, types, bits, sum, modifiers, target };
        list.extend(shapes.iter().map(case));
    };
    for sum in ["f32", "f16"] {
        add(&[(16, 8), (16, 16)], ("f16", "f16"), 16, sum, ("", ""), "sm_80");
        for types in [("e4m3", "e4m3"), ("e5m2", "e4m3"), ("e4m3", "e5m2"), ("e5m2", "e5m2")] {
            add(&[(16, 16), (16, 32)], types, 8, sum, ("", ""), "sm_89");
        }
    }
    add(&[(16, 8), (16, 16)], ("bf16", "bf16"), 16, "f32", ("", ""), "sm_80");
    add(&[(16, 4), (16, 8)], ("tf32", "tf32"), 32, "f32", ("", ""), "sm_80");
    for finite in ["", ".satfinite"] {
        for types in [("s8", "s8"), ("u8", "u8"), ("s8", "u8"), ("u8", "s8")] {
            add(&[(8, 16), (16, 16), (16, 32)], types, 8, "s32", (finite, ""), "sm_80");
        }
        for types in [("s4", "s4"), ("u4", "u4"), ("s4", "u4"), ("u4", "s4")] {
            add(&[(8, 32), (16, 32), (16, 64)], types, 4, "s32", (finite, ""), "sm_80");
        }
    }
    for operation in [".xor.popc", ".and.popc"] {
        let shapes = [(8, 128), (16, 128), (16, 256)];
        add(&shapes, ("b1", "b1"), 1, "s32", ("", operation), "sm_80");
    }
    list
}

/// Drawn numbers that the type holds.
fn draw(numbers: &mut Numbers, ty: &str, count: usize) -> Vec<i64> {
    let (low, limit) = match ty {
        "b1" => (0, 2),
        "u4" => (0, 16),
        "s4" => (-8, 16),
        "u8" => (0, 256),
        "s8" => (-128, 256),
        _ => (-3, 7),
    };
    (0..count).map(|_| low + numbers.below(limit)).collect()
}

fn product(case: &Mma<'_>, a: &[i64], b: &[i64]) -> i64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| match case.modifiers.1 {
            ".xor.popc" => a ^ b,
            ".and.popc" => a & b,
            _ => a * b,
        })
        .sum()
}

#[track_caller]
fn check(case: &Mma<'_>, mode: MmaMode) {
    let Mma { rows, k, types: (ta, tb), sum, .. } = *case;
    let mut numbers = Numbers((rows * 31 + k) as u32);
    let (a, b) = (draw(&mut numbers, ta, rows * k), draw(&mut numbers, tb, 8 * k));
    let c = draw(&mut numbers, "", rows * 8);
    let codes = |ty, list: &[i64]| -> Vec<u32> { list.iter().map(|&x| encode(ty, x)).collect() };
    let d = case.run(mode, &codes(ta, &a), &codes(tb, &b), &codes(sum, &c));
    for (at, code) in d.into_iter().enumerate() {
        let (row, column) = (at / 8, at % 8);
        let expected = c[at] + product(case, &a[row * k..][..k], &b[column * k..][..k]);
        let got = decode(sum, code);
        assert_eq!(got, expected, "{ta} {tb} {sum} m{rows}n8k{k} ({row}, {column})");
    }
}

#[test]
fn products_of_every_shape_and_type() {
    for case in cases() {
        check(&case, MmaMode::Fast);
        check(&case, MmaMode::BitAccurate);
    }
}

/// Tensor cores give the same NaN, whichever they are given, or none.
#[test]
fn sums_that_are_no_numbers_all_have_the_same_bits() {
    for case in cases().into_iter().filter(|case| case.sum != "s32") {
        let Mma { k, types: (ta, tb), sum, .. } = case;
        let nan = |ty| match ty {
            "f16" => 0xfe01,
            "bf16" => 0xff81,
            "tf32" | "f32" => 0xff81_2000,
            "e4m3" => 0xff,
            _ => 0xfd,
        };
        let (mut a, mut b, mut c) = (vec![0; 16 * k], vec![0; 8 * k], vec![0; 128]);
        // Row 3, column 5, and one sum beside them; infinity times zero where A has it.
        (a[3 * k + 1], b[5 * k + 2], c[8 * 9 + 6]) = (nan(ta), nan(tb), nan(sum));
        let infinity = [("f16", 0x7c00), ("bf16", 0x7f80), ("tf32", 0x7f80_0000), ("e5m2", 0x7c)];
        let infinity = infinity.into_iter().find(|&(ty, _)| ty == ta);
        if let Some((_, infinity)) = infinity {
            a[12 * k + 3] = infinity;
        }
        let expected = |row, column| {
            let is_nan = row == 3 || column == 5 || (row, column) == (9, 6);
            match sum {
                _ if !is_nan && (row != 12 || infinity.is_none()) => 0,
                "f16" => 0x7fff,
                _ => 0x7fff_ffff,
            }
        };
        for mode in [MmaMode::Fast, MmaMode::BitAccurate] {
            for (at, got) in case.run(mode, &a, &b, &c).into_iter().enumerate() {
                let (row, column) = (at / 8, at % 8);
                let expected = expected(row, column);
                assert_eq!(got, expected, "{mode:?} {ta} {tb} {sum} k {k} ({row}, {column})");
            }
        }
    }
}

#[test]
fn sums_of_integers_wrap_or_stop_at_the_limits() {
    let sum = |finite: &str, c: u32| {
        let body = format!(
            "mov.u32 %r0, 0x01010101; mov.u32 %r1, {c};
             mma.sync.aligned.m8n8k16.row.col{finite}.s32.s8.u8.s32 {{%r2, %r3}}, {{%r0}}, {{%r0}}, {{%r1, %r1}};"
        ) + &common::store("%r3");
        Run::block(32).run(&kernel(&body), &[])[7]
    };
    assert_eq!(sum("", 5), 21);
    assert_eq!(sum("", 0x7fff_fffe), 0x8000_000e);
    assert_eq!(sum(".satfinite", 0x7fff_fffe), 0x7fff_ffff);
}

/// Four products of 8 by 8 by 4, each by the lanes 4q to 4q + 3 and 4q + 16 to 4q + 19.
#[test]
fn quarters_of_a_warp() {
    for (mode, layouts) in [MmaMode::Fast, MmaMode::BitAccurate]
        .into_iter()
        .flat_map(|m| ["row.col", "col.col", "row.row", "col.row"].map(|l| (m, l)))
    {
        for (d, c) in [("f32", "f32"), ("f16", "f16"), ("f32", "f16")] {
            quarters(mode, layouts, d, c);
        }
    }
}

fn quarters(mode: MmaMode, layouts: &str, td: &str, tc: &str) {
    let mut numbers = Numbers(5);
    let mut draw4 =
        |count| -> Vec<Vec<i64>> { (0..4).map(|_| draw(&mut numbers, "", count)).collect() };
    let (a, b, c) = (draw4(32), draw4(32), draw4(64));
    let (a_row, b_col) = (layouts.starts_with("row"), layouts.ends_with("col"));
    // (row, column) of element i, from the tables of the ISA.
    let at_a = |lane: usize, i: usize| {
        if a_row { (lane % 4 + lane / 16 * 4, i) } else { (i % 4 + lane / 16 * 4, lane % 4) }
    };
    let at_b = |lane: usize, i: usize| {
        if b_col { (i, lane % 4 + lane / 16 * 4) } else { (lane % 4, i + lane / 16 * 4) }
    };
    let at_c = |ty: &str, lane: usize, i: usize| {
        let upper = lane / 16 * 4;
        match ty {
            "f16" => (lane % 4 + upper, i),
            _ => ((lane & 1) + (i & 2) + upper, (i & 4) + (lane & 2) + (i & 1)),
        }
    };
    let words_c = if tc == "f16" { 4 } else { 8 };
    let words_d = if td == "f16" { 4 } else { 8 };
    let bits = |ty: &str| if ty == "f16" { 16 } else { 32 };
    let mut input = Vec::new();
    for lane in 0..32 {
        let q = lane / 4 % 4;
        let codes = |count: usize, ty: &str, at: &dyn Fn(usize) -> i64| -> Vec<u32> {
            let list: Vec<u32> = (0..count).map(|i| encode(ty, at(i))).collect();
            pack(&list, bits(ty))
        };
        input.extend(codes(4, "f16", &|i| a[q][at_a(lane, i).0 * 4 + at_a(lane, i).1]));
        input.extend(codes(4, "f16", &|i| b[q][at_b(lane, i).0 * 8 + at_b(lane, i).1]));
        input.extend(codes(8, tc, &|i| c[q][at_c(tc, lane, i).0 * 8 + at_c(tc, lane, i).1]));
    }
    let words = 4 + words_c;
    let (pc, pd) = (if tc == "f32" { "%f" } else { "%r" }, if td == "f32" { "%f" } else { "%r" });
    let mut body = format!("mad.wide.u32 %in, %thread, {}, %in;\n", 4 * words);
    for i in 0..words {
        let prefix = if i < 4 { "%r" } else { pc };
        body += &format!("ld.global.b32 {prefix}{i}, [%in+{}];\n", 4 * i);
    }
    body += &format!(
        "mma.sync.aligned.m8n8k4.{layouts}.{td}.f16.f16.{tc} {}, {}, {}, {};\n",
        registers(pd, 12, words_d),
        registers("%r", 0, 2),
        registers("%r", 2, 2),
        registers(pc, 4, words_c)
    );
    body += &format!("mad.wide.u32 %out, %thread, {}, %out;\n", 4 * words_d);
    for i in 0..words_d {
        body += &format!("st.global.b32 [%out+{}], {pd}{};\n", 4 * i, 12 + i);
    }
    let out = Run::block(32).out(32 * words_d).mma(mode).run(&kernel(&body), &input);
    for (lane, words) in out.chunks(words_d).enumerate() {
        let q = lane / 4 % 4;
        for (i, code) in unpack(words, bits(td)).into_iter().enumerate() {
            let (row, column) = at_c(td, lane, i);
            let expected: i64 = c[q][row * 8 + column]
                + (0..4).map(|k| a[q][row * 4 + k] * b[q][k * 8 + column]).sum::<i64>();
            assert_eq!(decode(td, code), expected, "{layouts} {td} {tc} lane {lane} element {i}");
        }
    }
}

/// f64 in every shape, and in a direction: the sum of 1 and tiny products differs with it.
#[test]
fn doubles() {
    for (rows, k) in [(8, 4), (16, 4), (16, 8), (16, 16)] {
        for (rounding, last) in [("", 0), (".rn", 0), (".rz", 0), (".rm", 0), (".rp", 1)] {
            let [na, nb, nc] = [rows * k / 32, k / 4, rows / 4];
            // Row 0 of A is 2^-60 in all places, all others are the row number; B is 1.
            let mut body = String::new();
            for i in 0..na {
                let low = (i % 2 == 1 && rows == 16) as u32 * 8;
                body += &format!(
                    "shr.u32 %r1, %thread, 2; add.u32 %r1, %r1, {low}; cvt.rn.f64.u32 %a{i}, %r1;
                     setp.eq.u32 %p1, %r1, 0; @%p1 mov.f64 %a{i}, 0d3C30000000000000;\n"
                );
            }
            for i in 0..nb {
                body += &format!("mov.f64 %b{i}, 0d3FF0000000000000;\n");
            }
            body += &format!(
                "mov.f64 %c0, 0d3FF0000000000000;
                 mma.sync.aligned.m{rows}n8k{k}.row.col{rounding}.f64.f64.f64.f64 {}, {}, {}, {{{}}};
                 mad.wide.u32 %out, %thread, {}, %out;\n",
                registers("%e", 0, nc),
                registers("%a", 0, na),
                registers("%b", 0, nb),
                vec!["%c0"; nc].join(", "),
                8 * nc
            );
            for i in 0..nc {
                body += &format!("st.global.f64 [%out+{}], %e{i};\n", 8 * i);
            }
            let text = kernel(&format!("{{ .reg .f64 %a<8>, %b<4>, %c<1>, %e<4>; {body} }}"));
            let out = Run::block(32).out(64 * nc).run(&text, &[]);
            for (lane, words) in out.chunks(2 * nc).enumerate() {
                for (i, word) in words.chunks(2).enumerate() {
                    let got = u64::from(word[1]) << 32 | u64::from(word[0]);
                    let (row, _) = of_c(lane, i);
                    let expected = match row {
                        // Each product rounds up by a step, or is lost.
                        0 => 1f64.to_bits() + last * k as u64,
                        row => (1.0 + (row * k) as f64).to_bits(),
                    };
                    assert_eq!(got, expected, "m{rows}n8k{k}{rounding} row {row}");
                }
            }
        }
    }
}

#[test]
fn all_lanes_take_part() {
    let body = "mov.b32 %r0, 0; mov.f32 %f0, 0f00000000; setp.lt.u32 %p1, %thread, 31; @%p1
        mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1,%f2,%f3,%f4}, {%r0,%r0}, {%r0}, {%f0,%f0,%f0,%f0};";
    Run::block(32).finds(&kernel(body), &[], FindingKind::Divergence, "needs all 32 lanes");
}

// ---- 8 by 8 matrices of 16 bits between lanes and shared memory

/// Element (row, column) of matrix `j` of the tile.
fn element(j: usize, row: usize, column: usize) -> u32 {
    (j * 64 + row * 8 + column) as u32
}

/// Writes the tile, row by row, matrix by matrix, and calculates the address of row `tid` in `%r30`.
const TILE: &str = "{ .reg .b16 %h; mov.u32 %r1, tile; mov.u32 %r2, 0;
    $fill: mad.lo.u32 %r3, %r2, 32, %thread; cvt.u16.u32 %h, %r3; mad.lo.u32 %r4, %r3, 2, %r1; st.shared.b16 [%r4], %h;
    add.u32 %r2, %r2, 1; setp.lt.u32 %p1, %r2, 8; @%p1 bra $fill; }
    bar.warp.sync -1; mad.lo.u32 %r30, %thread, 16, %r1;\n";

fn with_tile(body: &str) -> String {
    kernel(&format!("{{ .shared .align 16 .b8 tile[512]; {TILE} {body} }}"))
}

#[test]
fn matrices_are_loaded_row_by_row_or_transposed() {
    for count in [1, 2, 4] {
        for transposed in [false, true] {
            let trans = if transposed { ".trans" } else { "" };
            let mut body = format!(
                "ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {}, [%r30];
                 mad.wide.u32 %out, %thread, {}, %out;\n",
                registers("%r", 10, count),
                4 * count
            );
            for i in 0..count {
                body += &format!("st.global.b32 [%out+{}], %r{};\n", 4 * i, 10 + i);
            }
            let out = Run::block(32).out(32 * count).run(&with_tile(&body), &[]);
            for (lane, words) in out.chunks(count).enumerate() {
                for (j, &word) in words.iter().enumerate() {
                    let (line, at) = (lane / 4, lane % 4 * 2);
                    let place = |at| {
                        if transposed { element(j, at, line) } else { element(j, line, at) }
                    };
                    let pair = place(at) | place(at + 1) << 16;
                    assert_eq!(word, pair, "x{count}{trans} lane {lane} matrix {j}");
                }
            }
        }
    }
}

#[test]
fn matrices_are_stored_as_they_are_loaded() {
    for trans in ["", ".trans"] {
        // Stored to the second half of the tile's rows in reverse order, then read row by row.
        let body = format!(
            "{{ .shared .align 16 .b8 back[512]; ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r10,%r11,%r12,%r13}}, [%r30];
             mov.u32 %r5, back; mad.lo.u32 %r6, %thread, 16, %r5;
             stmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 [%r6], {{%r10,%r11,%r12,%r13}}; bar.warp.sync -1;
             ld.shared.v4.b32 {{%r20,%r21,%r22,%r23}}, [%r6]; mad.wide.u32 %out, %thread, 16, %out;
             st.global.v4.b32 [%out], {{%r20,%r21,%r22,%r23}}; }}"
        );
        let out = Run::block(32).out(128).run(&with_tile(&body), &[]);
        let want: Vec<u32> = (0..128).map(|w| (2 * w) | ((2 * w + 1) << 16)).collect();
        assert_eq!(out, want);
    }
}

#[test]
fn a_matrix_in_registers_is_transposed() {
    let body = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r10}, [%r30];
        movmatrix.sync.aligned.m8n8.trans.b16 %r11, %r10;"
        .to_owned()
        + &common::store("%r11");
    let out = Run::block(32).run(&with_tile(&body), &[]);
    for (lane, word) in out.into_iter().enumerate() {
        let (line, at) = (lane / 4, lane % 4 * 2);
        assert_eq!(word, element(0, at, line) | element(0, at + 1, line) << 16);
    }
}

#[test]
fn rows_of_matrices_are_checked() {
    let load = |address: &str| {
        with_tile(&format!(
            "{address} ldmatrix.sync.aligned.m8n8.x2.shared.b16 {{%r10,%r11}}, [%r30];"
        ))
    };
    let find = |address: &str, kind, part: &str| {
        Run::block(32).finds(&load(address), &[], kind, part);
    };
    find("add.u32 %r30, %r30, 8;", FindingKind::Misaligned, "multiple of 16");
    find("add.u32 %r30, %r30, 384;", FindingKind::OutOfBounds, "lane 8");
    // Lanes 16 and up have no row here.
    let far = "setp.ge.u32 %p1, %thread, 16; @%p1 mov.u32 %r30, 0x7ffffff0;";
    Run::block(32).run(&load(far), &[]);
}
