//! Integer arithmetic and bit operations against integers of 128 bits and the ISA's own loops.

use crate::draw::Draw;
use crate::run::{Kernel, check, run};

const ROWS: usize = 3000;

const TYPES: [(&str, u32, bool); 6] = [
    ("u16", 16, false),
    ("s16", 16, true),
    ("u32", 32, false),
    ("s32", 32, true),
    ("u64", 64, false),
    ("s64", 64, true),
];

fn register(width: u32) -> &'static str {
    match width {
        16 => "b16",
        32 => "b32",
        _ => "b64",
    }
}

/// The integer that the low bits stand for.
fn value(bits: u64, width: u32, signed: bool) -> i128 {
    let low = bits & mask(width);
    if signed && low >> (width - 1) != 0 { i128::from(low) - (1 << width) } else { low.into() }
}

fn mask(width: u32) -> u64 {
    u64::MAX >> (64 - width)
}

fn rows(width: u32, seed: u64) -> Vec<[u64; 3]> {
    Draw::new(seed).rows(ROWS, |d| d.integer(width))
}

fn sweep(name: &str, operands: usize, signed_only: bool, exact: impl Fn([i128; 3], u32) -> i128) {
    for (ty, width, signed) in TYPES {
        if signed_only && !signed {
            continue;
        }
        let text = format!("{name}.{ty} %d, {};", ["%a", "%b", "%c"][..operands].join(", "));
        let types = [register(width); 3];
        let kernel =
            Kernel { text: &text, result: types[0], operands: &types[..operands], target: "sm_80" };
        let expected = |row: &[u64; 3]| {
            exact(row.map(|x| value(x, width, signed)), width) as u64 & mask(width)
        };
        check(&kernel, &rows(width, 1), expected, |got, want| got == want);
    }
}

#[test]
fn arithmetic() {
    sweep("add", 2, false, |[a, b, _], _| a + b);
    sweep("sub", 2, false, |[a, b, _], _| a - b);
    sweep("mul.lo", 2, false, |[a, b, _], _| a.wrapping_mul(b));
    // The product of two numbers of 64 bits, unsigned, needs all 128 bits.
    let high = |a: i128, b: i128, width: u32| {
        if a >= 0 && b >= 0 { ((a as u128 * b as u128) >> width) as i128 } else { (a * b) >> width }
    };
    sweep("mul.hi", 2, false, |[a, b, _], w| high(a, b, w));
    sweep("mad.lo", 3, false, |[a, b, c], _| a.wrapping_mul(b).wrapping_add(c));
    sweep("mad.hi", 3, false, |[a, b, c], w| high(a, b, w) + c);
    sweep("sad", 3, false, |[a, b, c], _| c + (a - b).abs());
    sweep("min", 2, false, |[a, b, _], _| a.min(b));
    sweep("max", 2, false, |[a, b, _], _| a.max(b));
    sweep("abs", 1, true, |[a, ..], _| a.abs());
    sweep("neg", 1, true, |[a, ..], _| -a);
}

/// Division by zero is unspecified, so that only the rest is judged.
#[test]
fn quotients_and_remainders() {
    for (name, rest) in [("div", false), ("rem", true)] {
        for (ty, width, signed) in TYPES {
            let text = format!("{name}.{ty} %d, %a, %b;");
            let types = [register(width); 2];
            let kernel =
                Kernel { text: &text, result: types[0], operands: &types, target: "sm_80" };
            let expected = |row: &[u64; 3]| {
                let [a, b, _] = row.map(|x| value(x, width, signed));
                // By zero the ISA leaves it open; an H100 gives all ones.
                let result = if b == 0 {
                    -1
                } else if rest {
                    a % b
                } else {
                    a / b
                };
                result as u64 & mask(width)
            };
            check(&kernel, &rows(width, 2), expected, |got, want| got == want);
        }
    }
}

#[test]
fn saturating_forms() {
    let clamp = |x: i128| x.clamp(i32::MIN.into(), i32::MAX.into()) as u32;
    let signed = |row: &[u64; 3]| row.map(|x| value(x, 32, true));
    let one = |text: &str, exact: &dyn Fn([i128; 3]) -> i128| {
        let kernel = Kernel { text, result: "b32", operands: &["b32"; 3], target: "sm_90" };
        check(
            &kernel,
            &rows(32, 3),
            |row| clamp(exact(signed(row))).into(),
            |got, want| got == want,
        );
    };
    one("add.sat.s32 %d, %a, %b;", &|[a, b, _]| a + b);
    one("sub.sat.s32 %d, %a, %b;", &|[a, b, _]| a - b);
    one("mad.hi.sat.s32 %d, %a, %b, %c;", &|[a, b, c]| ((a * b) >> 32) + c);
    one("min.relu.s32 %d, %a, %b;", &|[a, b, _]| a.min(b).max(0));
    one("max.relu.s32 %d, %a, %b;", &|[a, b, _]| a.max(b).max(0));
    let low = |x: i128| value(x as u64, 24, true);
    one("mad24.hi.sat.s32 %d, %a, %b, %c;", &|[a, b, c]| {
        value(((low(a) * low(b)) >> 16) as u64, 32, true) + c
    });
}

#[test]
fn wide_products() {
    for (ty, width, signed) in TYPES.into_iter().filter(|t| t.1 < 64) {
        let wide = register(2 * width);
        let text = format!("mul.wide.{ty} %d, %a, %b;");
        let narrow = register(width);
        let kernel = Kernel { text: &text, result: wide, operands: &[narrow; 2], target: "sm_80" };
        let product = |row: &[u64; 3]| value(row[0], width, signed) * value(row[1], width, signed);
        check(
            &kernel,
            &rows(width, 4),
            |row| product(row) as u64 & mask(2 * width),
            |got, want| got == want,
        );
        let text = format!("mad.wide.{ty} %d, %a, %b, %c;");
        let kernel = Kernel {
            text: &text,
            result: wide,
            operands: &[narrow, narrow, wide],
            target: "sm_80",
        };
        let sum = |row: &[u64; 3]| (product(row) as u64).wrapping_add(row[2]) & mask(2 * width);
        check(&kernel, &rows(2 * width, 5), sum, |got, want| got == want);
    }
}

/// Products of 24 bits (PTX ISA, "mul24", "mad24"): bits 31..0 or 47..16 of 48.
#[test]
fn products_of_24_bits() {
    for (ty, signed) in [("u32", false), ("s32", true)] {
        for (mode, shift) in [("lo", 0), ("hi", 16)] {
            let product = move |row: &[u64; 3]| {
                ((value(row[0], 24, signed) * value(row[1], 24, signed)) >> shift) as u64 & mask(32)
            };
            let text = format!("mul24.{mode}.{ty} %d, %a, %b;");
            let kernel =
                Kernel { text: &text, result: "b32", operands: &["b32"; 2], target: "sm_80" };
            check(&kernel, &rows(32, 6), product, |got, want| got == want);
            let text = format!("mad24.{mode}.{ty} %d, %a, %b, %c;");
            let kernel =
                Kernel { text: &text, result: "b32", operands: &["b32"; 3], target: "sm_80" };
            let sum = |row: &[u64; 3]| (product(row) + row[2]) & mask(32);
            check(&kernel, &rows(32, 6), sum, |got, want| got == want);
        }
    }
}

/// A result of 128 bits and what is carried beyond it.
type Carrying = fn(u128, u128) -> (u128, bool);

/// Sums and differences of two words with the carry between them are those of numbers twice as wide.
#[test]
fn carries() {
    for (ty, width) in [("u32", 32), ("s32", 32), ("u64", 64), ("s64", 64)] {
        let r = register(width);
        // Two numbers of two words: [a, b] and [c, a]; the upper word of the result, or the carry.
        let long = |low: u64, high: u64| u128::from(high) << width | u128::from(low);
        let cases: [(&str, Carrying); 2] =
            [("add", |x, y| x.overflowing_add(y)), ("sub", |x, y| x.overflowing_sub(y))];
        for (name, exact) in cases {
            let chain =
                format!("{{ .reg .{r} %t; {name}.cc.{ty} %t, %a, %c; {name}c.cc.{ty} %d, %b, %a;");
            let high = |row: &[u64; 3]| {
                let [x, y] =
                    [long(row[0], row[1]), long(row[2], row[0])].map(|n| n << (128 - 2 * width));
                let (result, carry) = exact(x, y);
                (result >> (128 - width), carry)
            };
            let text = format!("{chain} }}");
            let kernel = Kernel { text: &text, result: r, operands: &[r; 3], target: "sm_80" };
            check(&kernel, &rows(width, 7), |row| high(row).0 as u64, |got, want| got == want);
            // The carry that is left: 0 + 0 + carry, or 0 - 0 - borrow.
            let text = format!("{chain} {name}c.{ty} %d, 0, 0; }}");
            let kernel = Kernel { text: &text, result: r, operands: &[r; 3], target: "sm_80" };
            let left = |row: &[u64; 3]| {
                let carry = u64::from(high(row).1);
                (if name == "add" { carry } else { carry.wrapping_neg() }) & mask(width)
            };
            check(&kernel, &rows(width, 8), left, |got, want| got == want);
        }
    }
}

/// `mad.cc` and `madc`: half of the product, plus c, plus the carry of the addition before.
#[test]
fn carries_of_products() {
    for (ty, width, signed) in TYPES.into_iter().filter(|t| t.1 > 16) {
        let r = register(width);
        let half = |row: &[u64; 3], hi: bool| {
            let [a, b, _] = row.map(|x| value(x, width, signed));
            let product = a.wrapping_mul(b);
            let product = if signed {
                product >> (if hi { width } else { 0 })
            } else {
                (product as u128 >> (if hi { width } else { 0 })) as i128
            };
            u128::from(product as u64 & mask(width))
        };
        for (first, second) in [("lo", "hi"), ("hi", "lo"), ("lo", "lo"), ("hi", "hi")] {
            let text = format!(
                "{{ .reg .{r} %t, %u; mad.{first}.cc.{ty} %t, %a, %b, %c; madc.{second}.cc.{ty} %u, %a, %b, %t; \
                 addc.{ty} %d, %u, 0; }}"
            );
            let kernel = Kernel { text: &text, result: r, operands: &[r; 3], target: "sm_80" };
            let expected = |row: &[u64; 3]| {
                let t = half(row, first == "hi") + u128::from(row[2]);
                let low = u128::from(t as u64 & mask(width));
                let u = half(row, second == "hi") + low + (t >> width);
                ((u as u64 & mask(width)).wrapping_add((u >> width) as u64)) & mask(width)
            };
            check(&kernel, &rows(width, 9), expected, |got, want| got == want);
        }
        // Without .cc the carry is read, but left as it is.
        let text = format!(
            "{{ .reg .{r} %t, %u; add.cc.{ty} %t, %a, %b; madc.lo.{ty} %u, %a, %b, %c; addc.{ty} %d, %u, 0; }}"
        );
        let kernel = Kernel { text: &text, result: r, operands: &[r; 3], target: "sm_80" };
        let expected = |row: &[u64; 3]| {
            let carry = (u128::from(row[0]) + u128::from(row[1])) >> width;
            let sum = half(row, false) + u128::from(row[2]) + 2 * carry;
            sum as u64 & mask(width)
        };
        check(&kernel, &rows(width, 10), expected, |got, want| got == want);
    }
}

/// The loops of the semantics sections, as they stand there.
mod loops {
    /// What counts of a position or a length: the ISA says 8 bits, an H100 takes all 32 for fields of 64 bits.
    fn counted(value: u64, width: u32) -> u64 {
        value & if width == 64 { 0xffff_ffff } else { 0xff }
    }

    pub fn bfe(a: u64, b: u64, c: u64, width: u32, signed: bool) -> u64 {
        let (msb, pos, len) = (u64::from(width) - 1, counted(b, width), counted(c, width));
        let bit = |i: u64| a >> i & 1;
        let sign = if !signed || len == 0 { 0 } else { bit((pos + len - 1).min(msb)) };
        (0..=msb)
            .fold(0, |d, i| d | (if i < len && pos + i <= msb { bit(pos + i) } else { sign }) << i)
    }

    pub fn bfi(a: u64, b: u64, c: u64, d: u64, width: u32) -> u64 {
        let (pos, len) = (counted(c, width), counted(d, width));
        let mut f = b;
        for i in (0..len).take_while(|i| pos + i < width.into()) {
            f = f & !(1 << (pos + i)) | (a >> i & 1) << (pos + i);
        }
        f
    }

    pub fn bfind(a: u64, width: u32, signed: bool, shift: bool) -> u64 {
        let a = if signed && a >> (width - 1) & 1 != 0 { !a } else { a };
        match (0..width).rev().find(|i| a >> i & 1 != 0) {
            None => 0xffff_ffff,
            Some(i) => (if shift { width - 1 - i } else { i }).into(),
        }
    }

    pub fn fns(mask: u64, base: u64, offset: i32) -> u64 {
        let bit = |i: i64| mask >> i & 1 != 0;
        let base = base as i64;
        if offset == 0 {
            return if bit(base) { base as u64 } else { 0xffff_ffff };
        }
        let (mut pos, mut count) = (base, i64::from(offset).abs() - 1);
        while (0..32).contains(&pos) {
            if bit(pos) {
                if count == 0 {
                    return pos as u64;
                }
                count -= 1;
            }
            pos += i64::from(offset.signum());
        }
        0xffff_ffff
    }

    pub fn bmsk(a: u32, b: u32, clamp: bool) -> u32 {
        let (a1, b1) = (a & 31, b & 31);
        let mut mask0 = u32::MAX << a1;
        let sum = a1 + b1;
        let mut overflow = sum >= 32;
        if clamp && a >= 32 {
            (overflow, mask0) = (true, 0);
        }
        overflow |= clamp && b >= 32;
        let mask1 = match () {
            _ if overflow => 0,
            _ if b1 == 0 => u32::MAX,
            _ => u32::MAX << sum,
        };
        mask0 & !mask1
    }

    pub fn szext(a: u32, b: u32, clamp: bool, signed: bool) -> u32 {
        let b1 = b & 31;
        let too_large = b >= 32 && clamp;
        let mask = if too_large { 0 } else { u32::MAX << b1 };
        let sign = signed && b1 != 0 && !too_large && a >> (b1.wrapping_sub(1) & 31) & 1 != 0;
        a & !mask | if sign { mask } else { 0 }
    }
}

#[test]
fn fields() {
    for (ty, width, signed) in TYPES.into_iter().filter(|t| t.1 > 16) {
        let r = register(width);
        let mut drawn = rows(width, 11);
        for (index, row) in drawn.iter_mut().enumerate() {
            // Mostly positions and lengths that meet the field, some beyond it, some beyond 8 bits.
            let limit = [width.into(), 2 * u64::from(width), 256, 1 << 32][index % 4];
            (row[1], row[2]) = (row[1] % limit, row[2] % limit);
        }
        let text = format!("bfe.{ty} %d, %a, %b, %c;");
        let kernel =
            Kernel { text: &text, result: r, operands: &[r, "b32", "b32"], target: "sm_80" };
        check(
            &kernel,
            &drawn,
            |x| loops::bfe(x[0], x[1], x[2], width, signed),
            |got, want| got == want,
        );
        if signed {
            continue;
        }
        // The length comes from the upper half of the third operand.
        let text = format!(
            "{{ .reg .b32 %pos, %len; and.b32 %pos, %c, 0xffff; shr.u32 %len, %c, 16; bfi.b{width} %d, %a, %b, %pos, %len; }}"
        );
        let mut drawn = rows(width, 12);
        for (index, row) in drawn.iter_mut().enumerate() {
            let limit = [u64::from(width) + 2, 256, 0x1_0000][index % 3];
            let [length, position] = [row[0], row[2]].map(|x| (x & 0xffff) % limit);
            row[2] = position | length << 16;
        }
        let kernel = Kernel { text: &text, result: r, operands: &[r, r, "b32"], target: "sm_80" };
        let expected = |x: &[u64; 3]| loops::bfi(x[0], x[1], x[2] & 0xffff, x[2] >> 16, width);
        check(&kernel, &drawn, expected, |got, want| got == want);
    }
}

#[test]
fn searches_and_counts() {
    for (ty, width, signed) in TYPES.into_iter().filter(|t| t.1 > 16) {
        let r = register(width);
        for (mode, shift) in [("", false), (".shiftamt", true)] {
            let text = format!("bfind{mode}.{ty} %d, %a;");
            let kernel = Kernel { text: &text, result: "b32", operands: &[r], target: "sm_80" };
            check(
                &kernel,
                &rows(width, 13),
                |x| loops::bfind(x[0], width, signed, shift),
                |got, want| got == want,
            );
        }
        if signed {
            continue;
        }
        let bits = |x: u64| (0..width).map(move |i| x >> i & 1);
        let one = |name: &str, result: &str, expected: &dyn Fn(u64) -> u64| {
            let text = format!("{name}.b{width} %d, %a;");
            let kernel = Kernel { text: &text, result, operands: &[r], target: "sm_80" };
            check(&kernel, &rows(width, 14), |x| expected(x[0]), |got, want| got == want);
        };
        one("popc", "b32", &|x| bits(x).sum());
        one("clz", "b32", &|x| (0..width).rev().take_while(|i| x >> i & 1 == 0).count() as u64);
        one("brev", r, &|x| bits(x).fold(0, |d, bit| d << 1 | bit));
        one("not", r, &|x| !x & mask(width));
        one("cnot", r, &|x| u64::from(x == 0));
    }
    let mut drawn = rows(32, 15);
    for (index, row) in drawn.iter_mut().enumerate() {
        row[1] %= 32;
        row[2] = (index as u64 % 81).wrapping_sub(40) & mask(32);
    }
    let kernel = Kernel {
        text: "fns.b32 %d, %a, %b, %c;",
        result: "b32",
        operands: &["b32"; 3],
        target: "sm_80",
    };
    check(&kernel, &drawn, |x| loops::fns(x[0], x[1], x[2] as u32 as i32), |got, want| got == want);
}

#[test]
fn masks_and_extensions() {
    let mut drawn = rows(32, 16);
    for (index, row) in drawn.iter_mut().enumerate() {
        let limit = if index % 3 == 0 { 1 << 32 } else { 40 };
        row[1] %= limit;
        row[2] %= limit;
    }
    for (mode, clamp) in [("clamp", true), ("wrap", false)] {
        let one = |text: String, operands: &[&str], expected: &dyn Fn([u32; 3]) -> u32| {
            let kernel = Kernel { text: &text, result: "b32", operands, target: "sm_80" };
            check(
                &kernel,
                &drawn,
                |x| expected(x.map(|x| x as u32)).into(),
                |got, want| got == want,
            );
        };
        let three = ["b32"; 3];
        one(format!("bmsk.{mode}.b32 %d, %b, %c;"), &three, &|[_, b, c]| loops::bmsk(b, c, clamp));
        one(format!("szext.{mode}.u32 %d, %a, %b;"), &three, &|[a, b, _]| {
            loops::szext(a, b, clamp, false)
        });
        one(format!("szext.{mode}.s32 %d, %a, %b;"), &three, &|[a, b, _]| {
            loops::szext(a, b, clamp, true)
        });
        let amount = |c: u32| if clamp { c.min(32) } else { c & 31 };
        let both = |a: u32, b: u32| u64::from(b) << 32 | u64::from(a);
        one(format!("shf.l.{mode}.b32 %d, %a, %b, %c;"), &three, &|[a, b, c]| {
            (u128::from(both(a, b)) << amount(c) >> 32) as u32
        });
        one(format!("shf.r.{mode}.b32 %d, %a, %b, %c;"), &three, &|[a, b, c]| {
            (u128::from(both(a, b)) >> amount(c)) as u32
        });
    }
}

#[test]
fn shifts() {
    for (ty, width, signed) in TYPES {
        let r = register(width);
        let mut drawn = rows(width, 17);
        for (index, row) in drawn.iter_mut().enumerate() {
            row[1] =
                if index % 4 == 0 { row[1] & mask(32) } else { row[1] % (u64::from(width) + 2) };
        }
        let text = format!("shr.{ty} %d, %a, %b;");
        let kernel = Kernel { text: &text, result: r, operands: &[r, "b32"], target: "sm_80" };
        let right =
            |x: &[u64; 3]| (value(x[0], width, signed) >> x[1].min(127)) as u64 & mask(width);
        check(&kernel, &drawn, right, |got, want| got == want);
        let text = format!("shl.b{width} %d, %a, %b;");
        let kernel = Kernel { text: &text, result: r, operands: &[r, "b32"], target: "sm_80" };
        let left = |x: &[u64; 3]| (u128::from(x[0]) << x[1].min(64)) as u64 & mask(width);
        check(&kernel, &drawn, left, |got, want| got == want);
    }
}

#[test]
fn dot_products() {
    let signs = [("u32", false), ("s32", true)];
    for ((a_type, a_signed), (b_type, b_signed)) in
        signs.iter().flat_map(|a| signs.iter().map(move |b| (*a, *b)))
    {
        let byte = |x: u64, i: u32, signed| value(x >> (8 * i), 8, signed);
        let half = |x: u64, i: u32, signed| value(x >> (16 * i), 16, signed);
        let text = format!("dp4a.{a_type}.{b_type} %d, %a, %b, %c;");
        let kernel = Kernel { text: &text, result: "b32", operands: &["b32"; 3], target: "sm_80" };
        let four = |x: &[u64; 3]| {
            let products = (0..4).map(|i| byte(x[0], i, a_signed) * byte(x[1], i, b_signed));
            (products.sum::<i128>() + i128::from(x[2])) as u64 & mask(32)
        };
        check(&kernel, &rows(32, 18), four, |got, want| got == want);
        for (mode, first) in [("lo", 0), ("hi", 2)] {
            let text = format!("dp2a.{mode}.{a_type}.{b_type} %d, %a, %b, %c;");
            let kernel =
                Kernel { text: &text, result: "b32", operands: &["b32"; 3], target: "sm_80" };
            let two = |x: &[u64; 3]| {
                let products =
                    (0..2).map(|i| half(x[0], i, a_signed) * byte(x[1], first + i, b_signed));
                (products.sum::<i128>() + i128::from(x[2])) as u64 & mask(32)
            };
            check(&kernel, &rows(32, 19), two, |got, want| got == want);
        }
    }
}

/// Every table of three bits, bit by bit.
#[test]
fn any_function_of_three_bits() {
    let rows: Vec<[u64; 3]> = Draw::new(20).rows(64, |d| d.bits() & mask(32));
    for table in 0..=255u64 {
        let text = format!("lop3.b32 %d, %a, %b, %c, {table:#x};");
        let kernel = Kernel { text: &text, result: "b32", operands: &["b32"; 3], target: "sm_80" };
        for (row, got) in rows.iter().zip(run(&kernel, &rows)) {
            let bit = |i: u32| {
                let [a, b, c] = row.map(|x| x >> i & 1);
                table >> (a << 2 | b << 1 | c) & 1
            };
            let want = (0..32).fold(0, |d, i| d | bit(i) << i);
            assert_eq!(got, want, "{text} of {row:x?}");
        }
    }
}
