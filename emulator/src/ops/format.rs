//! Formats of `printf` in kernels (CUDA C++ Programming Guide, "Formatted Output").
//!
//! A conversion is `%[flags][width][.precision][size]type` with flags of `#`, blank, `0`, `+`, `-`, sizes
//! `h`, `l`, `ll`, and types of `%cdiouxXpeEfgGaAs`.

/// Fields wider or more precise than this are a mistake.
const MAX_FIELD: usize = 4096;

/// Where the arguments come from, one after the other.
pub(crate) trait Arguments {
    /// Why an argument cannot be had.
    type Error;
    /// Four bytes.
    fn word(&mut self) -> Result<u32, Self::Error>;
    /// Eight bytes.
    fn double(&mut self) -> Result<u64, Self::Error>;
    /// The string at the address that the next eight bytes hold.
    fn text(&mut self) -> Result<String, Self::Error>;
    /// What to say of a conversion that does not exist.
    fn unknown(&self, conversion: &str) -> Self::Error;
}

/// A conversion taken apart.
#[derive(Debug, Default, Clone, Copy)]
struct Specification {
    left: bool,
    plus: bool,
    blank: bool,
    alternate: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
    /// Eight bytes instead of four.
    long: bool,
}

/// Puts the arguments into the format.
pub(crate) fn format<A: Arguments>(pattern: &str, arguments: &mut A) -> Result<String, A::Error> {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..start]);
        let text = &rest[start + 1..];
        let (spec, length) = Specification::parse(text, arguments)?;
        let Some(kind) = text[length..].chars().next() else {
            return Err(arguments.unknown(&rest[start..]));
        };
        let end = length + kind.len_utf8();
        let known = spec.width <= MAX_FIELD && spec.precision.unwrap_or(0) <= MAX_FIELD;
        match known.then(|| spec.convert(kind, arguments)).flatten() {
            Some(shown) => out.push_str(&shown?),
            None => return Err(arguments.unknown(&rest[start..start + 1 + end])),
        }
        rest = &text[end..];
    }
    out.push_str(rest);
    Ok(out)
}

impl Specification {
    /// What stands between `%` and the type, and its length.
    fn parse<A: Arguments>(
        text: &str,
        arguments: &mut A,
    ) -> Result<(Specification, usize), A::Error> {
        let bytes = text.as_bytes();
        let (mut spec, mut at) = (Specification::default(), 0);
        while let Some(flag) = bytes.get(at).filter(|b| b"-+ #0".contains(b)) {
            match flag {
                b'-' => spec.left = true,
                b'+' => spec.plus = true,
                b' ' => spec.blank = true,
                b'#' => spec.alternate = true,
                _ => spec.zeros = true,
            }
            at += 1;
        }
        let mut number = |at: &mut usize| -> Result<i64, A::Error> {
            if bytes.get(*at) == Some(&b'*') {
                *at += 1;
                return Ok((arguments.word()? as i32).into());
            }
            let digits = bytes[*at..].iter().take_while(|b| b.is_ascii_digit()).count();
            let value =
                text[*at..*at + digits].parse().unwrap_or(if digits > 0 { i64::MAX } else { 0 });
            *at += digits;
            Ok(value)
        };
        let width = number(&mut at)?;
        spec.left |= width < 0;
        spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
        if bytes.get(at) == Some(&b'.') {
            at += 1;
            spec.precision = usize::try_from(number(&mut at)?).ok();
        }
        while let Some(size) = bytes.get(at).filter(|b| b"hljzt".contains(b)) {
            spec.long |= *size != b'h';
            at += 1;
        }
        Ok((spec, at))
    }

    /// The next argument as the type says; nothing if there is no such type.
    fn convert<A: Arguments>(
        &self,
        kind: char,
        arguments: &mut A,
    ) -> Option<Result<String, A::Error>> {
        let mut integer = |spec: &Specification| {
            if spec.long { arguments.double() } else { arguments.word().map(u64::from) }
        };
        Some(match kind {
            '%' => Ok("%".into()),
            'c' => {
                arguments.word().map(|c| self.padded("", &char::from(c as u8).to_string(), false))
            }
            's' => arguments.text().map(|text| {
                let shown = text.chars().take(self.precision.unwrap_or(usize::MAX));
                self.padded("", &shown.collect::<String>(), false)
            }),
            'd' | 'i' => integer(self).map(|v| {
                let value = if self.long { v as i64 } else { i64::from(v as i32) };
                self.integer(self.sign(value < 0), &value.unsigned_abs().to_string())
            }),
            'u' => integer(self).map(|v| self.integer("", &v.to_string())),
            'o' => integer(self).map(|v| {
                let prefix = if self.alternate && v != 0 { "0" } else { "" };
                self.integer(prefix, &format!("{v:o}"))
            }),
            'x' => integer(self).map(|v| {
                let prefix = if self.alternate && v != 0 { "0x" } else { "" };
                self.integer(prefix, &format!("{v:x}"))
            }),
            'X' => integer(self).map(|v| {
                let prefix = if self.alternate && v != 0 { "0X" } else { "" };
                self.integer(prefix, &format!("{v:X}"))
            }),
            'p' => arguments.double().map(|v| self.padded("0x", &format!("{v:x}"), false)),
            'f' | 'F' | 'e' | 'E' | 'g' | 'G' | 'a' | 'A' => {
                arguments.double().map(|v| self.real(kind, f64::from_bits(v)))
            }
            _ => return None,
        })
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.blank) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        }
    }

    fn padded(&self, prefix: &str, digits: &str, zeros: bool) -> String {
        let fill = self.width.saturating_sub(prefix.len() + digits.chars().count());
        match (self.left, zeros) {
            (true, _) => format!("{prefix}{digits}{}", " ".repeat(fill)),
            (_, true) => format!("{prefix}{}{digits}", "0".repeat(fill)),
            _ => format!("{}{prefix}{digits}", " ".repeat(fill)),
        }
    }

    fn integer(&self, prefix: &str, digits: &str) -> String {
        let least = self.precision.unwrap_or(1);
        let digits = if least == 0 && digits == "0" { "" } else { digits };
        let missing = least.saturating_sub(digits.len());
        let digits = format!("{}{digits}", "0".repeat(missing));
        self.padded(prefix, &digits, self.zeros && self.precision.is_none())
    }

    fn real(&self, kind: char, value: f64) -> String {
        let magnitude = value.abs();
        let sign = self.sign(value.is_sign_negative());
        let shown = if magnitude.is_nan() {
            "nan".into()
        } else if magnitude.is_infinite() {
            "inf".into()
        } else {
            match kind.to_ascii_lowercase() {
                'f' => format!("{magnitude:.*}", self.precision.unwrap_or(6)),
                'e' => scientific(magnitude, self.precision.unwrap_or(6)),
                'g' => self.shortest(magnitude),
                _ => hexadecimal(magnitude, self.precision),
            }
        };
        let shown = if kind.is_ascii_uppercase() { shown.to_ascii_uppercase() } else { shown };
        self.padded(sign, &shown, self.zeros && value.is_finite())
    }

    /// `%g`: the notation that its exponent asks for, without trailing zeros.
    fn shortest(&self, value: f64) -> String {
        let digits = self.precision.unwrap_or(6).max(1);
        let long = scientific(value, digits - 1);
        let (mantissa, exponent) = long.split_once('e').unwrap_or((&long, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let trim = |text: &str| {
            if self.alternate || !text.contains('.') {
                return text.to_owned();
            }
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        if exponent < -4 || exponent >= digits as i32 {
            return format!(
                "{}e{}{:02}",
                trim(mantissa),
                if exponent < 0 { '-' } else { '+' },
                exponent.abs()
            );
        }
        trim(&format!("{value:.*}", (digits as i32 - 1 - exponent).max(0) as usize))
    }
}

/// `d.ddde+dd`
fn scientific(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// `0xh.hhhp+d`
fn hexadecimal(value: f64, precision: Option<usize>) -> String {
    if value == 0.0 {
        return "0x0p+0".into();
    }
    let bits = value.to_bits();
    let (mut lead, mut fraction) = (u64::from(bits >> 52 != 0), bits & ((1 << 52) - 1));
    let exponent = if lead == 1 { (bits >> 52) as i64 - 1023 } else { -1022 };
    let mut digits = 13;
    if let Some(wanted) = precision.filter(|&p| p < 13) {
        let drop = 4 * (13 - wanted as u32);
        let whole = lead << 52 | fraction;
        let (kept, lost) = (whole >> drop, whole & ((1 << drop) - 1));
        let half = 1u64 << (drop - 1);
        let rounded = kept + u64::from(lost > half || (lost == half && kept & 1 == 1));
        (lead, fraction, digits) =
            (rounded >> (52 - drop), rounded & ((1 << (52 - drop)) - 1), wanted);
    }
    let mut text = if digits == 0 { String::new() } else { format!("{fraction:0digits$x}") };
    match precision {
        None => text.truncate(text.trim_end_matches('0').len()),
        Some(wanted) => text.push_str(&"0".repeat(wanted.saturating_sub(13))),
    }
    let point = if text.is_empty() { "" } else { "." };
    format!("0x{lead}{point}{text}p{exponent:+}")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct List(std::collections::VecDeque<u64>);

    impl Arguments for List {
        type Error = String;
        fn word(&mut self) -> Result<u32, String> {
            self.double().map(|v| v as u32)
        }
        fn double(&mut self) -> Result<u64, String> {
            self.0.pop_front().ok_or_else(|| "none left".into())
        }
        fn text(&mut self) -> Result<String, String> {
            self.double().map(|v| format!("text {v}"))
        }
        fn unknown(&self, conversion: &str) -> String {
            conversion.into()
        }
    }

    fn shown(pattern: &str, list: &[u64]) -> Result<String, String> {
        format(pattern, &mut List(list.iter().copied().collect()))
    }

    /// Expected texts are those of glibc's `printf`.
    #[test]
    fn conversions() {
        let minus = -42i32 as u32 as u64;
        for (pattern, list, expected) in [
            ("no conversion, 100%%\n", &[][..], "no conversion, 100%\n"),
            (
                "%d %i %5d|%-5d|%05d|%+d|% d",
                &[7, minus, 42, 42, minus, 42, 42],
                "7 -42    42|42   |-0042|+42| 42",
            ),
            (
                "%u %o %#o %x %#X %.5d %8.3x",
                &[minus, 8, 8, 255, 255, 42, 10],
                "4294967254 10 010 ff 0XFF 00042      00a",
            ),
            (
                "%lld %llu %lx %hd",
                &[u64::MAX, u64::MAX, 1 << 40, 3],
                "-1 18446744073709551615 10000000000 3",
            ),
            (
                "[%c] [%3c] [%s] [%8s] [%.4s] %p",
                &[65, 66, 1, 2, 3, 0x7f00],
                "[A] [  B] [text 1] [  text 2] [text] 0x7f00",
            ),
            ("%*d|%-*d|%.*d", &[4, 7, 4, 7, 3, 7], "   7|7   |007"),
        ] {
            assert_eq!(shown(pattern, list).as_deref(), Ok(expected), "{pattern}");
        }
    }

    #[test]
    fn real_numbers() {
        for (pattern, value, expected) in [
            ("%f", 1.5, "1.500000"),
            ("%.2f", -2.675, "-2.67"),
            ("%10.3f", 4.56789, "     4.568"),
            ("%010.3f", -4.56789, "-00004.568"),
            ("%e", 12345.678, "1.234568e+04"),
            ("%.0e", 0.00005, "5e-05"),
            ("%E", 1e-300, "1.000000E-300"),
            ("%g", 100000.0, "100000"),
            ("%g", 1000000.0, "1e+06"),
            ("%g", 0.0001, "0.0001"),
            ("%g", 0.00001, "1e-05"),
            ("%g", 1.5, "1.5"),
            ("%.3g", 1234.5, "1.23e+03"),
            ("%g", 0.0, "0"),
            ("%+f", f64::INFINITY, "+inf"),
            ("%F", f64::NAN, "NAN"),
            ("%5.1f|", 9.96, " 10.0|"),
            ("%a", 1.0, "0x1p+0"),
            ("%a", 0.1, "0x1.999999999999ap-4"),
            ("%.2a", 0.1, "0x1.9ap-4"),
        ] {
            assert_eq!(shown(pattern, &[value.to_bits()]).as_deref(), Ok(expected), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_conversion_is_named() {
        for (pattern, expected) in [
            ("a %q b", "%q"),
            ("%", "%"),
            ("%5", "%5"),
            ("%n", "%n"),
            ("%99999d", "%99999d"),
            ("%.99999999999999999999f", "%.99999999999999999999f"),
            ("\u{fc}%-\u{fc}", "%-\u{fc}"),
        ] {
            assert_eq!(shown(pattern, &[1]), Err(expected.into()), "{pattern}");
        }
        assert_eq!(shown("%d%d", &[1]), Err("none left".into()));
    }
}
