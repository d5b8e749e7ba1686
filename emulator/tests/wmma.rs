//! `wmma` against products of small integers, which every format here holds exactly.

mod common;

use common::elements::{Numbers, decode, encode, pack, registers, unpack};
use common::{Run, kernel};
use ptx_emulator::{FindingKind, MmaMode};

/// Rows, columns, inner length, as the shape spells them.
type Shape = (usize, usize, usize);

struct Case {
    shape: Shape,
    /// Type of A and B in PTX, bits of an element, registers of A, B and C.
    ty: &'static str,
    bits: usize,
    registers: [usize; 3],
    /// Type of the accumulator.
    sum: &'static str,
}

const F16: [Shape; 3] = [(16, 16, 16), (8, 32, 16), (32, 8, 16)];

fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    for shape in F16 {
        for sum in ["f32", "f16"] {
            let c = if sum == "f32" { 8 } else { 4 };
            list.push(Case { shape, ty: "f16", bits: 16, registers: [8, 8, c], sum });
        }
    }
    for (shape, a, b) in [(F16[0], 4, 4), (F16[1], 2, 8), (F16[2], 8, 2)] {
        list.push(Case { shape, ty: "bf16", bits: 16, registers: [a, b, 8], sum: "f32" });
        for ty in ["s8", "u8"] {
            list.push(Case {
                shape,
                ty,
                bits: 8,
                registers: [a.div_ceil(2), b.div_ceil(2), 8],
                sum: "s32",
            });
        }
    }
    list.push(Case { shape: (16, 16, 8), ty: "tf32", bits: 32, registers: [4, 4, 8], sum: "f32" });
    for ty in ["s4", "u4"] {
        list.push(Case { shape: (8, 8, 32), ty, bits: 4, registers: [1, 1, 2], sum: "s32" });
    }
    list.push(Case { shape: (8, 8, 128), ty: "b1", bits: 1, registers: [1, 1, 2], sum: "s32" });
    list
}

/// A matrix in memory, line by line, each line `pad` elements longer than it has to be.
fn lines(
    rows: usize,
    columns: usize,
    column_major: bool,
    pad: usize,
    at: impl Fn(usize, usize) -> u32,
) -> Vec<u32> {
    let (lines, length) = if column_major { (columns, rows) } else { (rows, columns) };
    let place = |line: usize, i: usize| if column_major { at(i, line) } else { at(line, i) };
    (0..lines)
        .flat_map(|line| (0..length + pad).map(move |i| (line, i)))
        .map(|(l, i)| if i < length { place(l, i) } else { 0 })
        .collect()
}

fn check(case: &Case, a_column: bool, b_column: bool, d_column: bool, pad: usize) {
    let (m, n, k) = case.shape;
    let signed = matches!(case.ty, "f16" | "bf16" | "tf32" | "s8" | "s4");
    let mut numbers = Numbers(m as u32 * 31 + n as u32);
    let mut draw = |count: usize| -> Vec<i64> {
        let limit = if case.bits == 1 { 2 } else { 7 };
        (0..count).map(|_| numbers.below(limit) - if signed { 3 } else { 0 }).collect()
    };
    let (a, b, c) = (draw(m * k), draw(k * n), draw(m * n));
    let sum_bits = if case.sum == "f16" { 16 } else { 32 };
    let words_a =
        pack(&lines(m, k, a_column, pad, |r, c| encode(case.ty, a[r * k + c])), case.bits);
    let words_b =
        pack(&lines(k, n, b_column, pad, |r, c| encode(case.ty, b[r * n + c])), case.bits);
    let words_c = pack(&lines(m, n, false, 0, |r, col| encode(case.sum, c[r * n + col])), sum_bits);
    let name = |column: bool| if column { "col" } else { "row" };
    let (a_order, b_order, d_order) = (name(a_column), name(b_column), name(d_column));
    let shape = format!("m{m}n{n}k{k}");
    let stride = |lines_are_columns: bool, rows: usize, columns: usize| {
        pad + if lines_are_columns { rows } else { columns }
    };
    let [ra, rb, rc] = case.registers;
    let (sum, ty) = (case.sum, case.ty);
    let (kind, from, to) = if sum == "f32" { ("%f", 0, 8) } else { ("%r", 20, 28) };
    let (c_list, d_list) = (registers(kind, from, rc), registers(kind, to, rc));
    let types = match ty {
        "f16" => format!("{sum}.{sum}"),
        _ => format!("{sum}.{ty}.{ty}.{sum}"),
    };
    let operation = if case.bits == 1 { "wmma.mma.xor.popc" } else { "wmma.mma" };
    let body = format!(
        "wmma.load.a.sync.aligned.{a_order}.{shape}.global.{ty} {}, [%in], {};
         wmma.load.b.sync.aligned.{b_order}.{shape}.{ty} {}, [%in+{}], {};
         wmma.load.c.sync.aligned.row.{shape}.global.{sum} {c_list}, [%in+{}];
         {operation}.sync.aligned.{a_order}.{b_order}.{shape}.{types} {d_list}, {}, {}, {c_list};
         wmma.store.d.sync.aligned.{d_order}.{shape}.global.{sum} [%out], {d_list};",
        registers("%r", 0, ra),
        stride(a_column, m, k),
        registers("%r", 10, rb),
        4 * words_a.len(),
        stride(b_column, k, n),
        4 * (words_a.len() + words_b.len()),
        registers("%r", 0, ra),
        registers("%r", 10, rb),
    );
    let input = [words_a, words_b, words_c].concat();
    let out = Run::block(32).out(m * n * sum_bits / 32).run(&kernel(&body), &input);
    let found = unpack(&out, sum_bits);
    for row in 0..m {
        for column in 0..n {
            let term = |i: usize| match case.bits {
                1 => a[row * k + i] ^ b[i * n + column],
                _ => a[row * k + i] * b[i * n + column],
            };
            let expected = c[row * n + column] + (0..k).map(term).sum::<i64>();
            let at = if d_column { column * m + row } else { row * n + column };
            assert_eq!(
                decode(sum, found[at]),
                expected,
                "{shape} {ty} {sum}: row {row}, column {column}"
            );
        }
    }
}

#[test]
fn products_of_every_shape_type_and_order() {
    for case in cases() {
        if case.bits < 8 {
            check(&case, false, true, false, 0);
            check(&case, false, true, true, 128 / case.bits);
            continue;
        }
        for order in 0..8 {
            // Lines of other lengths than the matrix has, aligned to 16 bytes.
            check(
                &case,
                order & 1 != 0,
                order & 2 != 0,
                order & 4 != 0,
                (order % 3) * 128 / case.bits,
            );
        }
    }
}

#[test]
fn doubles() {
    let body = "wmma.load.a.sync.aligned.row.m8n8k4.global.f64 {%d1}, [%in];
        wmma.load.b.sync.aligned.row.m8n8k4.global.f64 {%d2}, [%in+256];
        wmma.load.c.sync.aligned.row.m8n8k4.global.f64 {%d3, %d4}, [%in+512];
        wmma.mma.sync.aligned.row.row.m8n8k4.rn.f64.f64.f64.f64 {%d5, %d6}, {%d1}, {%d2}, {%d3, %d4};
        wmma.store.d.sync.aligned.row.m8n8k4.global.f64 [%out], {%d5, %d6};";
    let value = |i: usize| f64::from((i * 7 % 11) as u32) - 5.0;
    let input: Vec<u32> = (0..128)
        .map(|i| value(i).to_bits())
        .flat_map(|bits| [bits as u32, (bits >> 32) as u32])
        .collect();
    let out = Run::block(32).out(128).run(&kernel(body), &input);
    for (i, words) in out.chunks(2).enumerate() {
        let expected: f64 =
            (0..4).map(|k| value(i / 8 * 4 + k) * value(32 + k * 8 + i % 8)).sum::<f64>()
                + value(64 + i);
        assert_eq!(
            f64::from_bits(u64::from(words[1]) << 32 | u64::from(words[0])),
            expected,
            "{i}"
        );
    }
}

/// A row of A and two columns of B in tf32, without the 13 bits that it lacks.
const TF32: [[u32; 40]; 3] = [
    [
        0x1f967, 0x5f236, 0x5f623, 0x5f736, 0x5f896, 0x5fe2e, 0x1fd31, 0x1edde, 0x1fd77, 0x1fa5a,
        0x5f772, 0x5ee80, 0x1faca, 0x1f3ef, 0x5f2a0, 0x1f378, 0x1f17c, 0x1fb8f, 0x5f703, 0x1fcf0,
        0x5fcd7, 0x5fa9c, 0x1f619, 0x1f6eb, 0x1fed7, 0x1f07f, 0x5fcfa, 0x1f712, 0x5e9e9, 0x5fc03,
        0x5f12a, 0x1fc08, 0x5f68b, 0x5fce4, 0x1f993, 0x5f8b4, 0x1fad1, 0x1fb3c, 0x1fc01, 0x1f75d,
    ],
    [
        0x1fda5, 0x1eda2, 0x5f523, 0x1fcda, 0x1f28f, 0x5fd0d, 0x1f7b9, 0x5f46d, 0x1fc20, 0x1fda8,
        0x6014f, 0x1fa83, 0x1f0a7, 0x5fd00, 0x5f0c3, 0x5fc66, 0x5f923, 0x1f42d, 0x1f6a2, 0x5fa3b,
        0x5f6f0, 0x1fede, 0x5f82b, 0x5f4c2, 0x1f918, 0x1fa60, 0x5fbdb, 0x5fc24, 0x5ef94, 0x5f8b5,
        0x5f5a8, 0x5f9a8, 0x1fd9f, 0x1faf9, 0x1f7cd, 0x5f8c7, 0x5fce9, 0x1ff7d, 0x5ee23, 0x1fd06,
    ],
    [
        0x1f78e, 0x1f8ad, 0x1f8b6, 0x5f7db, 0x1f8de, 0x5febd, 0x1f9cb, 0x1fea7, 0x1f666, 0x1fc23,
        0x1f675, 0x5fbb6, 0x1f8e5, 0x5f606, 0x60109, 0x1f74e, 0x1fc3e, 0x60072, 0x5f36a, 0x1fc37,
        0x1f27d, 0x1f1e1, 0x5f498, 0x5fced, 0x1fcd8, 0x1fea7, 0x1f70b, 0x1f47d, 0x1fc6a, 0x5fd1f,
        0x5fb6f, 0x1f4bf, 0x5ffc6, 0x1f5a9, 0x1ea02, 0x1f87f, 0x5f9bd, 0x5faca, 0x5f2e0, 0x1fb1e,
    ],
];

/// The bits that an H100 gives (and 8 products at a time do not): its machine code has instructions for 4.
#[test]
fn products_of_tf32_are_added_four_at_a_time() {
    let mut input = vec![0; 2 * 16 * 40];
    for (line, numbers) in [0, 16, 17].into_iter().zip(TF32) {
        let place = &mut input[line * 40..][..40];
        place.iter_mut().zip(numbers).for_each(|(to, number)| *to = number << 13);
    }
    let (a, b, c) = (registers("%r", 0, 4), registers("%r", 10, 4), registers("%f", 0, 8));
    let zeros: String = (0..8).map(|i| format!("mov.f32 %f{i}, 0f00000000;\n")).collect();
    let step = |k: usize| {
        let (at, below) = (4 * k, 4 * (16 * 40 + k));
        format!(
            "wmma.load.a.sync.aligned.row.m16n16k8.tf32 {a}, [%in+{at}], 40;
             wmma.load.b.sync.aligned.col.m16n16k8.tf32 {b}, [%in+{below}], 40;
             wmma.mma.sync.aligned.row.col.m16n16k8.f32.tf32.tf32.f32 {c}, {a}, {b}, {c};\n"
        )
    };
    let steps: String = (0..40).step_by(8).map(step).collect();
    let body = format!("{zeros}{steps}wmma.store.d.sync.aligned.row.m16n16k8.f32 [%out], {c}, 16;");
    let run = Run::block(32).out(16 * 16).mma(MmaMode::BitAccurate);
    assert_eq!(run.run(&kernel(&body), &input)[..2], [0x40c2_6a7f, 0x40d8_822f]);
}

const LOAD: &str = "wmma.load.a.sync.aligned.row.m16n16k16.global.f16 {%r0,%r1,%r2,%r3,%r4,%r5,%r6,%r7}, [%in], 16;
    wmma.load.b.sync.aligned.row.m16n16k16.global.f16 {%r10,%r11,%r12,%r13,%r14,%r15,%r16,%r17}, [%in], 16;\n";
const MULTIPLY: &str = "wmma.mma.sync.aligned.row.row.m16n16k16.f16.f16 {%r20,%r21,%r22,%r23},
    {%r0,%r1,%r2,%r3,%r4,%r5,%r6,%r7}, {%r10,%r11,%r12,%r13,%r14,%r15,%r16,%r17}, {%r30,%r30,%r30,%r30};
    wmma.store.d.sync.aligned.row.m16n16k16.global.f16 [%out], {%r20,%r21,%r22,%r23}, 16;\n";

#[test]
fn fragments_may_be_changed_element_by_element() {
    // The identity, doubled in its registers, times the matrix itself.
    let identity: Vec<u32> = (0..256).map(|i| encode("f16", i64::from(i % 17 == 0))).collect();
    let scale: String = (0..8).map(|r| format!("add.f16x2 %r{r}, %r{r}, %r{r};\n")).collect();
    let body = format!("mov.u32 %r30, 0;\n{LOAD}{scale}{MULTIPLY}");
    let out = Run::block(32).out(128).run(&kernel(&body), &pack(&identity, 16));
    let expected: Vec<u32> =
        identity.iter().map(|&x| if x == 0 { 0 } else { encode("f16", 2) }).collect();
    assert_eq!(unpack(&out, 16), expected);
}

#[test]
fn misuse_is_found() {
    let input = [0u32; 128];
    let find = |body: &str, kind, part: &str| {
        Run::block(32).out(128).finds(&kernel(body), &input, kind, part);
    };
    let copies = format!("mov.u32 %r30, 0;\n{LOAD} mov.u32 %r5, 0x3c003c00;\n{MULTIPLY}");
    find(&copies, FindingKind::Operand, "registers 1 and 5 of the A fragment");
    let partial = format!("setp.lt.u32 %p1, %thread, 20; @!%p1 bra $end; {LOAD} $end:");
    find(&partial, FindingKind::Divergence, "wmma.load");
    let addresses = format!("setp.eq.u32 %p1, %thread, 7; @%p1 add.u64 %in, %in, 64; {LOAD}");
    find(&addresses, FindingKind::Operand, "in lane 0");
    find(&LOAD.replacen("[%in]", "[%in+8]", 1), FindingKind::Misaligned, "multiple of 32");
    find(
        &LOAD.replacen("], 16", "], 20", 1),
        FindingKind::Misaligned,
        "40 bytes from line to line",
    );
    find(
        &LOAD.replacen("], 16", "], 8", 1),
        FindingKind::Operand,
        "a stride of 8 elements for lines of 16",
    );
    find(&LOAD.replacen("[%in]", "[%in+32]", 1), FindingKind::OutOfBounds, "past the end");
    find(&LOAD.replacen("], 16", "], 1073741824", 1), FindingKind::OutOfBounds, "");
}
